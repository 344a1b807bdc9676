"""From verdicts to changes: what a host has to do, and nothing twice."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.catalog.discover import DiscoveredState
from sandbox_host.catalog.roster import CLASH, SWITCHED_OFF, Change, ChangeKind, Judged, Roster

FOUND, DISABLED = DiscoveredState.FOUND, DiscoveredState.DISABLED
UNVERIFIED = DiscoveredState.UNVERIFIED


def good(name: str, digest: str = "d1", *, identity: str = "", off: bool = False) -> Judged:
    return Judged(
        path=Path("/plugins") / name,
        state=DISABLED if off else FOUND,
        identity=identity or name,
        version="1",
        digest=digest,
        reason="off" if off else "",
    )


def bad(name: str, reason: str = "tampered") -> Judged:
    path = Path("/plugins") / name
    return Judged(path=path, state=UNVERIFIED, identity=name, reason=reason, code="tampered")


def told(changes: list[Change]) -> list[tuple[str, str]]:
    return [(str(one.kind), one.identity or one.path.name) for one in changes]


def test_a_life() -> None:
    roster = Roster()
    assert told(roster.update({"a": good("a"), "b": good("b", off=True)})) == [
        ("added", "a"),
        ("added", "b"),
    ]
    assert told(roster.update({"a": good("a")})) == []
    assert told(roster.update({"a": good("a", "d2")})) == [("changed", "a")]
    assert told(roster.update({"b": good("b")})) == [("enabled", "b")]
    assert told(roster.update({"a": good("a", "d2", off=True)})) == [("disabled", "a")]
    assert told(roster.update({"a": None})) == [("removed", "a")]
    assert set(roster.present) == {"b"}


def test_added_says_whether_it_is_to_run() -> None:
    changes = Roster().update({"a": good("a"), "b": good("b", off=True)})
    assert [one.enabled for one in changes] == [True, False]
    assert changes[1].reason == "off"


def test_what_cannot_be_used_is_told_once_until_the_reason_is_another() -> None:
    roster = Roster()
    assert told(roster.update({"a": bad("a")})) == [("refused", "a")]
    assert roster.update({"a": bad("a")}) == []
    assert told(roster.update({"a": bad("a", "expired")})) == [("refused", "a")]
    assert told(roster.update({"a": good("a")})) == [("added", "a")]
    assert told(roster.update({"a": bad("a")})) == [("refused", "a")]


def test_a_broken_new_version_takes_nothing_away() -> None:
    roster = Roster()
    roster.update({"a": good("a")})
    assert told(roster.update({"a": bad("a")})) == [("refused", "a")]
    assert roster.present["a"].digest == "d1"
    assert told(roster.update({"a": good("a")})) == []  # mended, to what it was
    roster.update({"a": bad("a")})
    assert told(roster.update({"a": None})) == [("removed", "a")]


def test_one_that_is_broken_can_be_switched_off() -> None:
    roster = Roster()
    roster.update({"a": good("a")})
    roster.update({"a": bad("a")})
    (change,) = roster.update({"a": bad("a")}, {"a"})
    assert (change.kind, change.reason) == (ChangeKind.DISABLED, SWITCHED_OFF)
    assert roster.update({"a": bad("a")}, {"a"}) == []


def test_of_two_of_one_identity_the_first_counts() -> None:
    roster = Roster()
    roster.update({"a": good("a")})
    (change,) = roster.update({"b": good("b", "d2", identity="a")})
    assert (change.kind, change.code, change.path.name) == (ChangeKind.REFUSED, CLASH, "b")
    assert change.reason == "its name is also that of the plugin in a"
    assert change.digest == ""
    assert told(roster.update({"a": None})) == [("changed", "a")]
    assert roster.present["a"].path.name == "b"


def test_of_two_that_come_together_neither_does() -> None:
    roster = Roster()
    both = {"a": good("a"), "b": good("b", identity="a")}
    assert told(roster.update(both)) == [("refused", "a"), ("refused", "a")]
    assert not roster.present
    assert told(roster.update({"b": None})) == [("added", "a")]


def test_another_plugin_in_the_same_place() -> None:
    roster = Roster()
    roster.update({"x": good("x", identity="b")})
    changes = roster.update({"x": good("x", "d2", identity="a")})
    assert told(changes) == [("removed", "b"), ("added", "a")]


def test_renamed_it_is_the_same_plugin() -> None:
    roster = Roster()
    roster.update({"x": good("x", identity="a")})
    (change,) = roster.update({"x": None, "y": good("y", identity="a")})
    assert (change.kind, change.path.name) == (ChangeKind.CHANGED, "y")


_ENTRIES = st.sampled_from(["p", "q", "r"])


@st.composite
def _verdicts(draw: st.DrawFn) -> dict[str, Judged | None]:
    verdicts: dict[str, Judged | None] = {}
    for name in draw(st.lists(_ENTRIES, min_size=1, max_size=3, unique=True)):
        kind = draw(st.sampled_from(["good", "good", "off", "bad", "gone"]))
        identity, digest = draw(st.sampled_from("ab")), draw(st.sampled_from(["d1", "d2"]))
        if kind in {"good", "off"}:
            verdicts[name] = good(name, digest, identity=identity, off=kind == "off")
        else:
            verdicts[name] = bad(name) if kind == "bad" else None
    return verdicts


@given(st.lists(_verdicts(), max_size=12))
def test_who_follows_the_changes_knows_what_is_there(
    steps: list[dict[str, Judged | None]],
) -> None:
    roster = Roster()
    there: dict[str, tuple[str, bool, Path]] = {}
    entries: dict[str, Judged] = {}
    for verdicts in steps:
        for name, one in verdicts.items():
            entries.pop(name, None)
            entries |= {name: one} if one else {}
        for change in roster.update(verdicts):
            _follow(there, change)
        assert there == {i: (j.digest, j.enabled, j.path) for i, j in roster.present.items()}
        assert roster.update(verdicts) == []  # nothing is told twice
        for identity, (_, _, path) in there.items():
            # What counts is there still: good, or broken where it was good before.
            here = entries[path.name]
            assert here.identity == identity or not here.digest
        good_ones = [one.identity for one in entries.values() if one.digest]
        assert {i for i in good_ones if good_ones.count(i) == 1} <= set(there)


def _follow(there: dict[str, tuple[str, bool, Path]], change: Change) -> None:
    kind, identity = change.kind, change.identity
    if kind is ChangeKind.REMOVED:
        del there[identity]
    elif kind is ChangeKind.ADDED:
        assert identity not in there
        there[identity] = (change.digest, change.enabled, change.path)
    elif kind is ChangeKind.CHANGED:
        assert identity in there
        there[identity] = (change.digest, change.enabled, change.path)
    elif kind in {ChangeKind.ENABLED, ChangeKind.DISABLED}:
        digest, before, path = there[identity]
        assert before != (kind is ChangeKind.ENABLED)
        there[identity] = (digest, kind is ChangeKind.ENABLED, path)
    else:
        assert kind is ChangeKind.REFUSED
