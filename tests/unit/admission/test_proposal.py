"""What is proposed for what a trial needed: pure, so every case is a line here."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.admission.proposal import Needed, Proposal, propose
from sandbox_host.bundle.plugin_json import parse_manifest
from sandbox_host.model import MIB, Denial
from sandbox_host.terms import LIMIT_KEYS
from tests.support.bundles import plugin_files

LITTLE = {
    "memory_bytes": 20 * MIB,
    "cpu_seconds": 0.02,
    "wall_seconds": 0.03,
    "descriptors": 8,
    "threads": 1,
    "file_bytes": 0,
    "data_bytes": 0,
    "data_files": 0,
}


def proposed(manifest: dict[str, Any], **needed: Any) -> Proposal:
    read = parse_manifest(plugin_files(**manifest)["plugin.json"])
    usual: dict[str, Any] = {
        **dict.fromkeys(("published", "handles", "used", "denied"), ()),
        "peaks": LITTLE,
    }
    return propose(read, Needed(**usual | needed), manifest.get("permissions", {}))


def permissions(requested: dict[str, Any], **needed: Any) -> dict[str, Any]:
    return dict(proposed({"permissions": requested}, **needed).permissions)


def denied(rule: str, asked: str = "", request: str = "x") -> Denial:
    return Denial(rule, asked, "main.py:1 in f", request, f"{rule} {asked}")


@pytest.mark.parametrize(
    ("requested", "needed", "change"),
    [
        ({}, {}, {}),
        ({"read": ["/a", "/b"]}, {"used": [("read", "/b")]}, {"read": ["/b"]}),
        ({"read": ["/a"]}, {}, {"read": None}),
        ({"read": []}, {}, {}),
        ({"env": ["A", "B"]}, {"used": [("env", "A"), ("env", "B")]}, {}),
        ({"network": ["a:1"]}, {"used": [("network", "a:1")]}, {}),
        ({"publish": ["b", "a"]}, {"published": ["a", "b"]}, {}),
        ({"publish": ["a", "b"]}, {"published": ["a"]}, {"publish": ["a"]}),
        ({"publish": ["*"]}, {"published": ["b", "a"]}, {"publish": ["a", "b"]}),
        ({"native_code": True}, {}, {"native_code": None}),
        ({"native_code": True}, {"used": [("native_code", "")]}, {}),
        ({"native_code": False}, {}, {}),
        ({"threads": True}, {"used": [("threads", "")]}, {}),
        ({"threads": True}, {"peaks": {**LITTLE, "threads": 3}}, {}),
        ({"threads": True}, {}, {"threads": None}),
        ({"services": ["prices", "x"]}, {"used": [("services", "x")]}, {"services": ["x"]}),
        # What was refused.
        ({}, {"denied": [denied("read", "/srv/x")]}, {"read": ["/srv/x"]}),
        (
            {"read": ["/a"]},
            {"used": [("read", "/a")], "denied": [denied("read", "/b")]},
            {"read": ["/a", "/b"]},
        ),
        ({}, {"denied": [denied("threads")]}, {"threads": True}),
        # What no plugin.json can say, or what would not help.
        ({}, {"denied": [denied("read", "relative")]}, {}),
        ({}, {"denied": [denied("env", "LD_PRELOAD")]}, {}),
        ({}, {"denied": [denied("network", "example.org")]}, {}),
        ({}, {"denied": [denied("read", "/srv/x", request="")]}, {}),
        ({}, {"denied": [denied("bundle", "/x", request="")]}, {}),
    ],
)
def test_permissions(
    requested: dict[str, Any], needed: dict[str, Any], change: dict[str, Any]
) -> None:
    assert permissions(requested, **needed) == change


def test_each_refusal_is_told() -> None:
    found = proposed({}, denied=[denied("read", "/srv/x"), denied("never")])
    assert len(found.notes) == 2
    assert "for the plugin's word alone" in found.notes[0]
    assert "nothing is added" in proposed({}, denied=[denied("never", request="")]).notes[0]


def test_events_without_a_handler_go() -> None:
    manifest = {"events": ["a", "b"]}
    assert proposed(manifest, handles=["a", "b"]).events is None
    assert proposed(manifest, handles=["b"]).events == ["b"]
    subscribing = {**manifest, "permissions": {"subscribe": ["a*", "b"]}}
    found = proposed(subscribing, handles=["b"])
    assert (found.events, found.permissions) == (["b"], {"subscribe": ["b"]})


@pytest.mark.parametrize(
    ("limits", "peaks", "change"),
    [
        # Named, and roomy: as it is.
        ({"memory": "128 MiB"}, {}, {}),
        ({"memory": "256 MiB"}, {"memory_bytes": 40 * MIB}, {}),
        # Many times as much, or too little.
        ({"memory": "1 GiB"}, {}, {"memory": '"64 MiB"'}),
        ({"memory": "64 MiB"}, {"memory_bytes": 60 * MIB}, {"memory": '"128 MiB"'}),
        ({"cpu_time": "10 s"}, {}, {}),
        ({"cpu_time": "60 s"}, {}, {"cpu_time": '"1 s"'}),
        ({"cpu_time": "1 s"}, {"cpu_seconds": 0.9}, {"cpu_time": '"10 s"'}),
        ({"wall_time": "40 s"}, {}, {}),
        ({"wall_time": "20 min"}, {}, {"wall_time": '"2 s"'}),
        ({"descriptors": 1_000}, {}, {"descriptors": "32"}),
        ({"file_size": "100 MiB"}, {"file_bytes": 2 * MIB}, {}),
        ({"file_size": "0 B"}, {}, {}),
        ({"file_size": "1 GiB"}, {}, {"file_size": '"1 MiB"'}),
        ({"data": "1 MiB"}, {"data_bytes": MIB}, {"data": '"4 MiB"'}),
        # Without the permission it means nothing.
        ({"threads": 4}, {}, {"threads": None}),
        # What nobody measures is left alone.
        ({"scratch": "64 MiB", "cpu_weight": 50}, {}, {}),
    ],
    ids=repr,
)
def test_limits(limits: dict[str, Any], peaks: dict[str, Any], change: dict[str, Any]) -> None:
    named = {"memory": "128 MiB", "cpu_time": "5 s", "wall_time": "10 s", "descriptors": 32}
    found = proposed({"limits": {**named, **limits}}, peaks={**LITTLE, **peaks})
    assert dict(found.limits) == change


def test_what_is_not_named_is_proposed_where_the_default_is_much_more() -> None:
    assert proposed({}).limits == {
        "memory": '"64 MiB"',
        "cpu_time": '"1 s"',
        "wall_time": '"2 s"',
        "descriptors": "32",
    }
    much = {"memory_bytes": 300 * MIB, "cpu_seconds": 5, "wall_seconds": 5, "descriptors": 400}
    assert proposed({}, peaks={**LITTLE, **much}).limits == {}
    assert proposed({}, peaks={**LITTLE, "file_bytes": 250 * MIB}).limits["file_size"] == '"1 GiB"'


def test_threads_with_the_permission() -> None:
    manifest = {"permissions": {"threads": True}, "limits": {"threads": 64}}
    found = proposed(manifest, used=[("threads", "")], peaks={**LITTLE, "threads": 3})
    assert found.permissions == {}
    assert found.limits["threads"] == "8"


@given(
    st.fixed_dictionaries(
        {
            "memory_bytes": st.floats(0, 2**38),
            "cpu_seconds": st.floats(0, 10_000),
            "wall_seconds": st.floats(0, 10_000),
            "descriptors": st.integers(0, 100_000),
            "threads": st.integers(0, 1_000),
            "file_bytes": st.floats(0, 2**38),
            "data_bytes": st.floats(0, 2**38),
            "data_files": st.integers(0, 100_000),
        }
    )
)
def test_what_is_proposed_is_proposed_no_more_and_has_room(peaks: dict[str, float]) -> None:
    """For all that was seen: plugin.json accepts the proposal, and it is a fixpoint."""
    limits = {
        **dict.fromkeys(("memory", "file_size", "data"), "1 GiB"),
        **dict.fromkeys(("cpu_time", "wall_time"), "60 s"),
        **dict.fromkeys(("descriptors", "threads", "data_files"), 100),
    }
    manifest = {"permissions": {"threads": True}, "limits": limits}
    needed = {"used": [("threads", "")], "peaks": peaks}
    found = proposed(manifest, **needed)
    for key, text in found.limits.items():
        assert text is not None
        limits[key] = int(text) if text.isdigit() else text.strip('"')
    read = parse_manifest(plugin_files(**manifest)["plugin.json"])
    for one in LIMIT_KEYS:
        if one.key in found.limits:
            assert read.limits[one.field] >= peaks[one.field] * 1.25
    assert proposed(manifest, **needed).limits == {}
