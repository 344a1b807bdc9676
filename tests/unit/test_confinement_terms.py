"""What may be missing, what is switched off, whose ids: read strictly from TOML and from Python."""

from __future__ import annotations

import pytest

from sandbox_host.confinement_terms import read_accepted, read_disabled, read_uids
from sandbox_host.errors import ConfigError
from sandbox_host.model import FIXED_LAYERS, Guarantee, Layer
from sandbox_host.reading import BadValueError


@pytest.mark.parametrize("name", [*Guarantee, *Layer])
def test_every_name_can_be_accepted_as_text_or_member(name):
    (read,) = read_accepted([str(name)])
    assert read is name
    assert read_accepted({name}) == read_accepted(frozenset({name})) == {name}


@pytest.mark.parametrize("layer", Layer)
def test_only_layers_that_some_systems_lack_can_be_switched_off(layer):
    if layer not in FIXED_LAYERS:
        (read,) = read_disabled([str(layer)])
        assert read is layer
        return
    with pytest.raises(ConfigError, match=f"{layer} cannot be switched off") as caught:
        read_disabled(["landlock", str(layer)])
    assert "landlock" in caught.value.remedy
    assert layer not in caught.value.remedy


@pytest.mark.parametrize("value", [3, None, "seccomp", ["seccomp", 3], {"seccomp", 3}, [["x"]]])
def test_no_list_of_names(value):
    with pytest.raises(BadValueError, match="accept_missing"):
        read_accepted(value)
    with pytest.raises(BadValueError, match="disable_layers"):
        read_disabled(value)


def test_a_slip_is_told_only_what_can_be_switched_off():
    with pytest.raises(BadValueError) as caught:
        read_disabled(["secomp"])
    assert {name for name in Layer if f"{name}" in str(caught.value)} == set(Layer) - FIXED_LAYERS


@pytest.mark.parametrize(
    ("value", "uids"),
    [
        ("61184-65183", (61_184, 4_000)),
        ("1-1", (1, 1)),
        ((61_184, 4_000), (61_184, 4_000)),
        ((65_536, 100_000), (65_536, 100_000)),
        ("65000-65533", (65_000, 534)),
        ("2147483647-2147483647", (2**31 - 1, 1)),
    ],
)
def test_user_ids(value, uids):
    assert read_uids(value) == uids


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("0-10", "0 is root"),
        ((0, 10), "0 is root"),
        ("10-9", "not empty"),
        ((10, 0), "not empty"),
        ((10, -5), "not empty"),
        ((-5, 10), "from 1"),
        ("2147483640-2147483648", "from 1 to 2147483647"),
        ((2**31, 1), "from 1 to 2147483647"),
        ("65534-65534", "includes 65534"),
        ("61184-65535", "includes 65534"),
        ("65535-66000", "includes 65535"),
        ((70_000, 100_001), "at most 100000"),
        ("70000", "first-last"),
        ("70000-", "first-last"),
        (" 70000-70001", "first-last"),
        ("\u0661-\u0662", "first-last"),
        ("1-99999999999", "first-last"),
        ([61_184, 4_000], "first-last"),
        ((61_184,), "first-last"),
        ((True, 2), "first-last"),
        ((1.0, 2), "first-last"),
        (61_184, "first-last"),
        (None, "first-last"),
    ],
)
def test_no_user_ids(value, problem):
    with pytest.raises(BadValueError, match=problem) as caught:
        read_uids(value)
    assert caught.value.path == "plugin_uids"
