"""What a plugin under trial tells at its end: only what can be is taken from it."""

from __future__ import annotations

from typing import Any

import pytest

from plugin_sdk.wire.codec import pack
from plugin_sdk.wire.messages import Stopped
from sandbox_host.model import Permissions
from sandbox_host.runtime.observed import Observed, observed_in

GRANTED = Permissions(read=("/srv/a", "/srv/b"), env=("TOKEN",), threads=True)


def observed(value: Any) -> Observed:
    found = observed_in(Stopped(payload=pack(value)), GRANTED)
    assert found is not None
    return found


def test_what_was_used_and_refused() -> None:
    found = observed(
        {
            "ok": True,
            "error": None,
            "observed": {
                "used": [["read", "/srv/a"], ["threads", ""], ["read", "/srv/a"]],
                "denied": [{"rule": "write", "asked": "/srv/a", "where": "main.py:1 in f"}],
            },
        }
    )
    assert found.used == {("read", "/srv/a"), ("threads", "")}
    assert [(one.rule, one.asked) for one in found.denied] == [("write", "/srv/a")]


@pytest.mark.parametrize(
    "used",
    [
        ["read", "/srv/c"],  # not in force
        ["network", "example.org:1"],
        ["native_code", ""],
        ["everything", ""],
        ["read"],
        ["read", 3],
        ["read", ["/srv/a"]],
        "read",
        None,
    ],
    ids=repr,
)
def test_what_cannot_have_been_used(used: object) -> None:
    assert observed({"observed": {"used": [used], "denied": []}}) == Observed()


@pytest.mark.parametrize("value", [None, [], {}, {"observed": None}], ids=repr)
def test_where_nothing_is_told(value: object) -> None:
    assert observed_in(Stopped(payload=pack(value)), GRANTED) is None
    assert observed_in(Stopped(payload=b"\xc1"), GRANTED) is None


@pytest.mark.parametrize(
    "value",
    [
        {"observed": {}},
        {"observed": {"used": 3, "denied": "x"}},
        {"observed": {"denied": [None, {"rule": "all"}, {"rule": "read", "asked": "/srv/a/x"}]}},
    ],
    ids=repr,
)
def test_what_tells_nothing(value: object) -> None:
    assert observed(value) == Observed()


def test_it_is_bounded() -> None:
    denied = [{"rule": "read", "asked": f"/x/{n}", "where": ""} for n in range(3_000)]
    assert len(observed({"observed": {"used": [], "denied": denied}}).denied) == 200
