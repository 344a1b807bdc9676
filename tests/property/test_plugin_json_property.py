"""Whatever the bytes: a Manifest or a ManifestError, and nothing else."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.bundle.plugin_json import parse_manifest
from sandbox_host.errors import ManifestError
from sandbox_host.model import Manifest

BASE = {"name": "sample", "version": "1.0.0", "description": "A sample", "author": "Somebody"}
OPTIONAL = [
    "license",
    "capabilities",
    "dependencies",
    "permissions",
    "config",
    "config_schema",
    "events",
    "limits",
    "plugin_api",
]
INNER = ["read", "memory", "type", "items", "properties", "default", "enum", "required", "minimum"]
KEYS = st.sampled_from([*BASE, *OPTIONAL, *INNER, "enabled"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["1.0", ">= 1.0", "ai >= 1", "256 MiB", "/srv", "a:1", "object", "integer"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=6), inner, max_size=5)
    ),
    max_leaves=20,
)


def outcome(data):
    try:
        return parse_manifest(data)
    except ManifestError as error:
        text = str(error)
        assert text.startswith("plugin.json: ")
        assert text.isascii()
        assert text.isprintable()
        assert len(text) < 8_000
        return error


@given(st.binary(max_size=300))
def test_any_bytes(data):
    assert isinstance(outcome(data), ManifestError)


@given(VALUES)
def test_any_json(value):
    assert isinstance(outcome(json.dumps(value).encode()), Manifest | ManifestError)


@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_keys_over_a_good_document(keys):
    result = outcome(json.dumps(BASE | keys).encode())
    if isinstance(result, Manifest):
        assert set(keys) <= {*BASE, *OPTIONAL}
        assert all(type(value) in {int, float} for value in result.limits.values())


@given(st.data())
def test_any_damage_to_a_good_document(data):
    text = bytearray(json.dumps(BASE | {"limits": {"memory": "64 MiB"}, "events": ["a"]}).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(outcome(bytes(text)), Manifest | ManifestError)
