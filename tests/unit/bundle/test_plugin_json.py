"""plugin.json: both documents' shapes are read, everything else is refused with its path."""

from __future__ import annotations

import json

import pytest

from sandbox_host.bundle.plugin_json import api_range, parse_manifest, split_dependency
from sandbox_host.errors import ManifestError
from sandbox_host.model import PLUGIN_API_VERSION, Permissions

BASE = {"name": "sample", "version": "1.0.0", "description": "A sample", "author": "Somebody"}

# Both documents' own examples, word for word.
DOCUMENT_A = b"""{
  "name": "MyPlugin",
  "version": "1.0.0",
  "description": "A sample plugin for the Abi AI Framework",
  "author": "Your Name",
  "license": "MIT",
  "capabilities": {
    "ai_model": true,
    "data_source": false,
    "pipeline": false
  },
  "dependencies": [
    "core_framework >= 1.0.0",
    "ai_models >= 1.0.0"
  ],
  "config": {
    "model_type": "transformer",
    "max_input_length": 1024,
    "temperature": 0.7
  },
  "events": [
    "data_processed",
    "model_updated"
  ]
}
"""
DOCUMENT_T = b"""{
  "name": "my_plugin",
  "version": "1.0.0",
  "description": "Example plugin description",
  "author": "Your Name",
  "dependencies": [],
  "capabilities": ["example_capability"],
  "config": {
    "enabled": true,
    "setting1": "value1"
  }
}
"""


def manifest(**keys):
    return parse_manifest(json.dumps(BASE | keys).encode())


def refusal(data):
    if isinstance(data, dict):
        data = json.dumps(BASE | data)
    with pytest.raises(ManifestError) as caught:
        parse_manifest(data if isinstance(data, bytes) else data.encode())
    return str(caught.value)


def test_the_example_of_document_a():
    read = parse_manifest(DOCUMENT_A)
    assert (read.name, read.identity, read.license) == ("MyPlugin", "my_plugin", "MIT")
    assert read.capabilities == ("ai_model",)
    assert read.dependencies == ("core_framework >= 1.0.0", "ai_models >= 1.0.0")
    assert dict(read.config) == {
        "model_type": "transformer",
        "max_input_length": 1024,
        "temperature": 0.7,
    }
    assert read.events == ("data_processed", "model_updated")
    assert read.enabled
    assert read.permissions == Permissions(subscribe=read.events)


def test_the_example_of_document_t():
    read = parse_manifest(DOCUMENT_T)
    assert (read.name, read.identity) == ("my_plugin", "my_plugin")
    assert read.capabilities == ("example_capability",)
    assert dict(read.config) == {"enabled": True, "setting1": "value1"}
    assert read.enabled
    assert read.plugin_api == PLUGIN_API_VERSION


def test_every_optional_key():
    read = manifest(
        license="MIT",
        capabilities=["ai_model"],
        permissions={
            "publish": ["model_updated"],
            "read": ["/srv/data"],
            "write": ["/srv/out"],
            "network": ["api.example.org:443", "[::1]:80"],
            "env": ["WEATHER_TOKEN"],
            "native_code": True,
            "subprocess": False,
        },
        limits={
            "memory": "256 MiB",
            "cpu_time": "500 ms",
            "wall_time": 2,
            "descriptors": 64,
            "threads": 4,
            "file_size": "1 MB",
        },
        plugin_api=">= 1.0",
    )
    assert read.permissions.read == ("/srv/data",)
    assert read.permissions.native_code is True
    assert dict(read.limits) == {
        "memory_bytes": 256 * 1024 * 1024,
        "cpu_seconds": 0.5,
        "wall_seconds": 2.0,
        "descriptors": 64,
        "threads": 4,
        "file_bytes": 1_000_000,
    }


def test_disabled():
    assert manifest(config={"enabled": False}).enabled is False


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"limits": {"descriptors": True}},
            "limits.descriptors: expected a whole number, got true",
        ),
        ({"limits": {"descriptors": 2}}, "limits.descriptors: expected a whole number from 16 to"),
        ({"limits": {"memory": "1 MB"}}, 'limits.memory: expected a value from "16 MiB" to'),
        ({"limits": {"memory": "256"}}, "limits.memory: expected bytes as a whole number, or text"),
        ({"limits": {"memory": 1.5}}, "limits.memory: expected bytes as a whole number, or text"),
        ({"limits": {"memory": True}}, "limits.memory: expected bytes as a whole number, or text"),
        ({"limits": {"cpu_time": "1 parsec"}}, "limits.cpu_time: expected seconds"),
        ({"limits": {"cpu_time": False}}, "limits.cpu_time: expected seconds"),
        ({"limits": {"memroy": 1}}, 'limits.memroy: unknown key; did you mean "memory"?'),
        ({"limits": {"cpu_total": 1}}, "limits.cpu_total: unknown key"),
        ({"limits": []}, "limits: expected an object, got a list"),
        ({"surprise": 1}, "surprise: unknown key; expected one of name, version"),
        ({"permission": {}}, 'permission: unknown key; did you mean "permissions"?'),
        ({"name": "with space"}, "name: expected an identifier"),
        ({"name": "1st"}, "name: expected an identifier"),
        ({"name": "n" * 65}, "name: expected an identifier"),
        ({"name": "na\u00efve"}, "name: expected an identifier"),
        ({"name": "json"}, 'name: expected another name, "json" is reserved as a module of'),
        ({"name": "Host"}, 'name: expected another name, "Host" is reserved'),
        ({"name": "numpy"}, 'name: expected another name, "numpy" is reserved'),
        ({"name": "msgpack"}, 'name: expected another name, "msgpack" is reserved'),
        ({"name": "plugin_sdk"}, 'name: expected another name, "plugin_sdk" is reserved'),
        ({"name": "SandboxHost"}, 'name: expected another name, "SandboxHost" is reserved'),
        ({"name": "Class"}, "name: expected another name"),
        ({"name": 3}, "name: expected an identifier"),
        ({"version": 1.0}, 'version: expected a version such as "1.0.0", got 1.0'),
        ({"version": " 1.0"}, "version: expected a version"),
        ({"version": "latest"}, "version: expected a version"),
        ({"author": ""}, "author: expected text that is not blank"),
        ({"author": None}, "author: expected text, got null"),
        (
            {"author": "a\u001bb"},
            'author: expected text without control characters, got "a\\u001bb"',
        ),
        ({"description": "a\u202eb"}, "description: expected text without control characters"),
        ({"description": "x" * 2001}, "description: expected at most 2000 characters, got 2001"),
        ({"capabilities": "ai_model"}, "capabilities: expected a list of names, or an object"),
        ({"capabilities": {"ai_model": 1}}, "capabilities.ai_model: expected true or false, got 1"),
        ({"capabilities": ["a", "a"]}, 'capabilities[1]: "a" is listed twice'),
        ({"capabilities": ["a"] * 65}, "capabilities: expected at most 64 entries, got 65"),
        ({"dependencies": ["a ^1.0"]}, "dependencies[0]: expected a name and a version range"),
        ({"dependencies": ["a >= 1", "a < 2"]}, 'dependencies[1]: "a" is listed twice'),
        ({"dependencies": ["a >= x"]}, "dependencies[0]: expected a name and a version range"),
        ({"events": ["a b"]}, "events[0]: expected an event type"),
        ({"exports": "read"}, "exports: expected a list"),
        ({"exports": ["a.b"]}, "exports[0]: expected the name of an operation"),
        ({"exports": ["read", "read"]}, 'exports[1]: "read" is listed twice'),
        ({"limits": {"store": "1 B"}}, 'limits.store: expected a value from "1 KiB"'),
        (
            {"events": ["a", "b"], "permissions": {"subscribe": ["a*"]}},
            'events[1]: "b" is handled, but permissions.subscribe does not have it',
        ),
        ({"permissions": {"read": ["etc"]}}, "permissions.read[0]: expected an absolute path"),
        ({"permissions": {"read": ["/a/../b"]}}, "permissions.read[0]: expected an absolute path"),
        ({"permissions": {"read": ["/a/"]}}, "permissions.read[0]: expected an absolute path"),
        ({"permissions": {"publish": ["a-*"]}}, "permissions.publish[0]: expected an event type"),
        (
            {"permissions": {"network": ["host"]}},
            "permissions.network[0]: expected a host and port",
        ),
        ({"permissions": {"network": ["h:0"]}}, "permissions.network[0]: expected a host and port"),
        ({"permissions": {"env": ["A=B"]}}, "permissions.env[0]: expected a name"),
        ({"permissions": {"native_code": 1}}, "permissions.native_code: expected true or false"),
        ({"permissions": {"sudo": True}}, "permissions.sudo: unknown key"),
        ({"plugin_api": "soon"}, "plugin_api: expected a version or range"),
        ({"plugin_api": 1}, "plugin_api: expected text, got 1"),
        ({"config": {"enabled": "yes"}}, 'config.enabled: expected true or false, got "yes"'),
        ({"config": []}, "config: expected an object, got a list"),
        ({"config_schema": {"pattern": "x"}}, "config_schema.pattern: unknown key"),
        (
            {"config": {"n": "1"}, "config_schema": {"properties": {"n": {"type": "integer"}}}},
            'config.n: expected a whole number, got "1"',
        ),
        (
            {"config": {"a": {"b c": [1, {"d": 2**64}]}}},
            'config.a."b c"[1].d: expected a number of',
        ),
    ],
)
def test_refused_with_the_path_of_the_bad_value(keys, message):
    assert refusal(keys).startswith(f"plugin.json: {message}")


@pytest.mark.parametrize("key", ["name", "version", "description", "author"])
def test_each_required_key(key):
    document = {k: v for k, v in BASE.items() if k != key}
    assert refusal(json.dumps(document)) == f"plugin.json: {key}: missing; this key is required."


def test_duplicate_permissions():
    text = json.dumps(BASE)[:-1] + ', "permissions": {}, "permissions": {"subprocess": true}}'
    assert refusal(text) == "plugin.json: permissions: this key is given twice."


@pytest.mark.parametrize("document", ["[]", "null", "3", '"text"'])
def test_not_an_object(document):
    assert "expected an object" in refusal(document)


def test_too_large():
    assert "expected at most 65536 bytes" in refusal(b" " * 65_537)


def test_access_capabilities_grant_nothing_and_say_so():
    bare = manifest(capabilities={"network_access": True, "file_system_access": True})
    assert bare.permissions == Permissions()
    assert [note.split()[0] for note in bare.notes] == [
        "capabilities.file_system_access",
        "capabilities.network_access",
    ]
    listed = manifest(
        capabilities=["network_access", "file_system_access"],
        permissions={"network": ["h:1"], "write": ["/srv"]},
    )
    assert listed.notes == ()


@pytest.mark.parametrize(
    "version", ["1.0.0", "2", "1.0rc1", "1.0.0-alpha.1", "1.0.0-x.7.z+build.5"]
)
def test_versions_of_both_schemes(version):
    assert manifest(version=version).version == version


@pytest.mark.parametrize(
    ("text", "accepted", "refused"),
    [("1.0", "1.9", "2.0"), ("1.2", "1.2", "1.1"), (">= 1.0, < 3", "2.0", "3.0")],
)
def test_api_ranges(text, accepted, refused):
    assert api_range(text).contains(accepted)
    assert not api_range(text).contains(refused)


@pytest.mark.parametrize("text", ["", ">=1.0", "a ===1", "a b", "a >= 1; python_version > '3'"])
def test_no_dependency(text):
    with pytest.raises(ValueError, match=r".*"):
        split_dependency(text)
