"""Admission: a plan that only `admit` makes, or a refusal that says what to write where."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from types import SimpleNamespace

import pytest

from sandbox_host.admission import Policy, SandboxPlan, admit
from sandbox_host.bundle.plugin_json import parse_manifest
from sandbox_host.errors import (
    AdmissionError,
    ConfigError,
    ConfinementError,
    PluginDisabledError,
)
from sandbox_host.guarantees import missing
from sandbox_host.model import Grant, Guarantee, Layer, Limits, Permissions

ALL = frozenset(Layer)


def bundle(*files, **keys):
    base = {"name": "Sample", "version": "1.0.0", "description": "d", "author": "a"}
    return SimpleNamespace(
        manifest=parse_manifest(json.dumps(base | keys).encode()),
        files={"__init__.py": b"", "plugin.json": b"{}"} | dict.fromkeys(files, b""),
        root_digest="ab" * 32,
        key_id="cd" * 32,
        signers=(SimpleNamespace(id="cd" * 32),),
    )


def plan(*files, policy=None, offered=ALL, required=frozenset(Guarantee), **keys):
    return admit(bundle(*files, **keys), policy or Policy(), offered, required)


def test_a_modest_plugin():
    made = plan(
        permissions={"publish": ["model_updated"]},
        limits={"memory": "128 MiB"},
        config={"a": 1},
        config_schema={"properties": {"b": {"default": 2}}},
        dependencies=["core_framework >= 1.0.0", "ai_models >= 1.0.0"],
    )
    assert (made.identity, made.root_digest, made.key_id) == ("sample", "ab" * 32, "cd" * 32)
    assert made.limits == Limits(memory_bytes=128 * 2**20, threads=1)
    assert made.permissions == Permissions(publish=("model_updated",))
    assert dict(made.config) == {"a": 1, "b": 2}
    assert made.layers == tuple(Layer)
    assert (made.disabled, made.accepted_missing) == ((), ())
    assert made.notes == ()


def test_a_plan_cannot_be_made_or_changed_elsewhere():
    made = plan()
    fields = {f.name: getattr(made, f.name) for f in dataclasses.fields(made)}
    with pytest.raises(TypeError, match=r"by sandbox_host\.admission\.admit only"):
        SandboxPlan(**fields, token=object())
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(made, permissions=Permissions(subprocess=True))
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.permissions = Permissions(subprocess=True)


def test_every_difference_is_listed_with_the_line_that_grants_it():
    policy = Policy(grants={"sample": Permissions(publish=("other",))})
    with pytest.raises(AdmissionError) as caught:
        plan(
            policy=policy,
            permissions={
                "publish": ["model_updated", "plugin_loaded"],
                "read": ["/srv/a, b", "/srv/c"],
                "native_code": True,
            },
            limits={"memory": "1 GiB", "descriptors": 2000},
        )
    text = caught.value.message
    for path in (
        'permissions.publish[1]: only the host publishes "plugin_loaded"',
        'permissions.publish[0]: publishing "model_updated" is not granted',
        'permissions.read[0]: reading "/srv/a, b" is not granted',
        'permissions.read[1]: reading "/srv/c" is not granted',
        "permissions.native_code: bringing native code is not granted",
        'limits.memory: asks for "1 GiB", above the operator\'s "512 MiB"',
        "limits.descriptors: asks for 2000, above the operator's 1000",
    ):
        assert f"plugin.json: {path}" in text
    assert caught.value.remedy == (
        'To grant it, write in the host\'s TOML under [grants."sample"]: '
        'publish = ["model_updated"], read = ["/srv/a, b", "/srv/c"], native_code = true; '
        'under [limits]: memory = "1 GiB", descriptors = 2000. '
        "What cannot be granted, the plugin has to do without: remove it there."
    )


def test_threads_are_granted_unless_a_table_says_no():
    asked = {"permissions": {"threads": True}, "limits": {"threads": 8}}
    made = plan(**asked)
    assert (made.permissions.threads, made.limits.threads, made.notes) == (True, 8, ())
    no = Policy(grants={"sample": Grant(named=frozenset({"threads"}))})
    with pytest.raises(AdmissionError, match=r"permissions\.threads: starting threads is not"):
        plan(policy=no, **asked)


def test_an_empty_list_that_is_named_grants_nothing():
    for key, asked in (
        ("publish", {"permissions": {"publish": ["a"]}}),
        ("subscribe", {"events": ["a"]}),
    ):
        plan(**asked)
        with pytest.raises(AdmissionError, match='"a" is not granted'):
            plan(policy=Policy(grants={"*": Grant(named=frozenset({key}))}), **asked)


def test_a_limit_on_threads_is_no_permission():
    made = plan(limits={"threads": 8})
    assert (made.permissions.threads, made.limits.threads) == (False, 1)
    assert made.notes == (
        "limits.threads means nothing without permissions.threads, which it lacks",
    )


def test_what_is_granted_to_a_signer():
    asked = {"permissions": {"env": ["TOKEN"]}}
    grants = {"cd" * 32: Permissions(env=("TOKEN",))}
    assert plan(policy=Policy(signer_grants=grants), **asked).permissions.env == ("TOKEN",)
    with pytest.raises(AdmissionError, match=r'seeing the variable "TOKEN" is not granted'):
        plan(policy=Policy(signer_grants={"ab" * 32: grants["cd" * 32]}), **asked)


def test_what_is_handled_is_requested():
    assert plan(events=["data_processed"]).permissions.subscribe == ("data_processed",)
    wide = plan(events=["data_processed"], permissions={"subscribe": ["data_*"]})
    assert wide.permissions.subscribe == ("data_*",)
    policy = Policy(grants={"*": Permissions(subscribe=("model_*",))})
    with pytest.raises(AdmissionError, match='handling "data_processed" is not granted'):
        plan(events=["data_processed"], policy=policy)


def test_the_lines_of_a_remedy_are_toml_that_grants():
    asked = {"read": ['/srv/"quoted" \u00e9\\'], "native_code": True}
    with pytest.raises(AdmissionError) as caught:
        plan(permissions=asked)
    table, _, lines = caught.value.remedy.removesuffix(".").partition("under ")[2].partition(": ")
    grants = tomllib.loads(f"{table}\n{lines.replace('], ', ']' + chr(10))}")["grants"]
    assert grants == {"sample": asked}
    granted = Permissions(read=tuple(grants["sample"]["read"]), native_code=True)
    assert plan(permissions=asked, policy=Policy(grants={"sample": granted})).permissions == granted


def test_only_what_no_table_can_grant():
    with pytest.raises(AdmissionError) as caught:
        plan(permissions={"publish": ["plugin_unloaded"]})
    assert "To grant it" not in caught.value.remedy
    assert 'only the host publishes "plugin_unloaded"' in caught.value.message


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"plugin_api": "2.0"}, "plugin_api"),
        ({"plugin_api": "> 1.0.0"}, "plugin_api"),
        ({"dependencies": ["ai", "core_framework >= 1.1"]}, "dependencies[1]"),
    ],
)
def test_another_plugin_api(keys, path):
    with pytest.raises(AdmissionError, match=r"this host's plugin API is 1\.0\.0") as caught:
        plan(**keys)
    assert f"plugin.json: {path}: " in caught.value.message


def test_confinement_is_part_of_the_plan():
    accepted = frozenset({Layer.SECCOMP, *missing(ALL - {Layer.SECCOMP})})
    with pytest.raises(ConfinementError, match="Plugin sample is not admitted: guarantee"):
        plan(offered=ALL - {Layer.SECCOMP})
    made = plan(
        policy=Policy(accept_missing=accepted, disabled=frozenset({Layer.SECCOMP})),
    )
    assert made.layers == tuple(layer for layer in Layer if layer is not Layer.SECCOMP)
    assert made.disabled == (Layer.SECCOMP,)
    assert set(made.accepted_missing) == accepted - {Layer.SECCOMP}
    assert made.notes[0] == "layer seccomp is switched off, and the operator accepted that"


def test_what_a_grant_to_write_does_not_bound_is_noted():
    asked = {"permissions": {"write": ["/srv/out"]}, "limits": {"file_size": "1 MiB"}}
    made = plan(policy=Policy(grants={"sample": Permissions(write=("/srv",))}), **asked)
    assert made.permissions == Permissions(write=("/srv/out",))
    assert made.notes == (
        "it may write to /srv/out: each file has at most 1 MiB, and nothing bounds all of them",
    )


@pytest.mark.parametrize(
    ("read", "ok"), [([], False), (["/srv/out/in"], False), (["/srv/out"], True), (["/srv"], True)]
)
def test_writing_apart_from_reading_takes_landlock(read, ok):
    asked = {"write": ["/srv/out"], "read": read}
    policy = Policy(grants={"sample": Permissions(write=("/srv",), read=("/srv",))})
    assert plan(policy=policy, permissions=asked)
    if ok:
        assert plan(policy=policy, offered=ALL - {Layer.LANDLOCK}, permissions=asked)
        return
    with pytest.raises(AdmissionError, match="only the layer landlock keeps that apart"):
        plan(policy=policy, offered=ALL - {Layer.LANDLOCK}, permissions=asked)


def test_only_what_is_required_refuses():
    with pytest.raises(ConfinementError, match="guarantee memory"):
        plan(offered=frozenset(), required=frozenset({Guarantee.MEMORY}))
    assert plan(offered=frozenset(), required=frozenset()).layers == ()


def test_disabled_by_the_author_or_by_the_operator():
    with pytest.raises(PluginDisabledError, match="sample is disabled"):
        plan(config={"enabled": False})
    with pytest.raises(PluginDisabledError, match="sample is disabled"):
        plan(policy=Policy(plugin_config={"sample": {"enabled": False}}))
    enabled = Policy(plugin_config={"sample": {"enabled": True}})
    assert plan(config={"enabled": False}, policy=enabled).config["enabled"] is True


@pytest.mark.parametrize("value", [0, "no", None])
def test_enabled_by_the_operator_must_be_a_bool(value):
    with pytest.raises(
        ConfigError, match=r"plugin_config\.sample\.enabled: expected true or false"
    ):
        plan(policy=Policy(plugin_config={"sample": {"enabled": value}}))


def test_an_override_must_meet_the_schema():
    keys = {"config": {"n": 1}, "config_schema": {"properties": {"n": {"type": "integer"}}}}
    with pytest.raises(ConfigError, match=r"plugin_config\.sample\.n: expected a whole number"):
        plan(policy=Policy(plugin_config={"sample": {"n": "2"}}), **keys)
    assert plan(policy=Policy(plugin_config={"sample": {"n": 2}}), **keys).config["n"] == 2
