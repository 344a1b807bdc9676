"""The environment of a plugin's process: its own variables, and granted ones of the host's."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_host.backends.base import Places
from sandbox_host.backends.linux.environment import (
    OWN_VARIABLES,
    base_environment,
    environment,
)
from sandbox_host.errors import ConfinementError
from sandbox_host.model import Layer
from sandbox_host.terms import MAX_VARIABLE_BYTES, RESERVED_VARIABLES, read_permissions

PLACES = Places(
    *(Path(f"/{name}") for name in ("python", "sdk", "package", "data", "scratch", "c"))
)


def test_nothing_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECRET", "LD_PRELOAD", "PYTHONPATH"):
        monkeypatch.setenv(name, "x")
    child = environment(PLACES)
    assert set(child) == OWN_VARIABLES
    assert (child["HOME"], child["TMPDIR"]) == ("/data", "/scratch")
    assert not {"SECRET", "LD_PRELOAD", "PYTHONPATH", "PATH"} & set(child)


def test_granted_ones_are_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "of the process")
    assert environment(PLACES, ["TOKEN"])["TOKEN"] == "of the process"
    source = {"TOKEN": "value", "EMPTY": "", "OTHER": "x"}
    child = environment(PLACES, ["TOKEN", "EMPTY", "UNSET"], source)
    assert set(child) == OWN_VARIABLES | {"TOKEN", "EMPTY"}
    assert (child["TOKEN"], child["EMPTY"]) == ("value", "")


def test_no_grant_replaces_what_the_host_sets() -> None:
    """Admission does not let it come to this: nobody may name them."""
    source = dict.fromkeys(OWN_VARIABLES, "theirs")
    assert environment(PLACES, OWN_VARIABLES, source) == environment(PLACES, [], {})


def test_what_the_host_sets_can_be_neither_requested_nor_granted() -> None:
    for name in OWN_VARIABLES:
        with pytest.raises(Exception, match="can be neither requested nor granted"):
            read_permissions({"env": [name]}, "p")


@pytest.mark.parametrize("size", [0, 1, MAX_VARIABLE_BYTES])
def test_sizes_that_are_handed_over(size: int) -> None:
    assert environment(PLACES, ["A"], {"A": "x" * size})["A"] == "x" * size


@pytest.mark.parametrize(
    "value", ["x" * (MAX_VARIABLE_BYTES + 1), "é" * (MAX_VARIABLE_BYTES // 2 + 1), "\udc80"]
)
def test_values_that_are_refused_and_not_told(value: str) -> None:
    with pytest.raises(ConfinementError, match="variable A cannot be handed") as caught:
        environment(PLACES, ["A"], {"A": value})
    assert caught.value.layer == Layer.ENVIRONMENT
    assert caught.value.remedy
    assert value not in str(caught.value)


def test_every_rule_about_names_has_a_reason() -> None:
    patterns = [pattern for pattern, _ in RESERVED_VARIABLES]
    assert len(set(patterns)) == len(patterns)
    assert all(why and not why.endswith(".") for _, why in RESERVED_VARIABLES)


def test_the_base_is_a_new_one_each_time() -> None:
    base_environment()["LANG"] = "changed"
    assert base_environment()["LANG"] == "C.UTF-8"
