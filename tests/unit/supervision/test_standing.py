"""What the loaded plugins need of each other; random ones are in tests/property."""

from __future__ import annotations

from sandbox_host.model import Manifest
from sandbox_host.supervision.problems import Conflict, Missing, Unusable
from sandbox_host.supervision.standing import Standing


def plugin(
    identity: str, *dependencies: str, version: str = "1.0.0", offers: tuple[str, ...] = ()
) -> Manifest:
    return Manifest(
        identity, identity, version, "d", "a", capabilities=offers, dependencies=dependencies
    )


def test_who_runs_is_a_fact():
    """What it lacks itself is told of it alone, not of those that need it."""
    source = plugin("source", "nowhere")
    standing = Standing([source])
    assert [type(one) for one in standing.lacks(source)] == [Missing]
    assert standing.lacks(plugin("user", "source", "core_framework >= 1.0")) == ()
    found = standing.resolve([plugin("user", "source"), plugin("far", "user")], {})
    assert found.levels == (("source",), ("user",), ("far",))


def test_what_one_lacks():
    standing = Standing([plugin("a")], [(plugin("b"), "it crashed.")])
    told = standing.lacks(plugin("user", "a >= 2", "b", "b >= 2", "c", "core_framework >= 9"))
    assert [type(one) for one in told] == [Conflict, Unusable, Conflict, Missing, Conflict]
    assert told[1].fault == "b does not run: it crashed"
    # Whoever is loaded again is not what it was.
    assert standing.resolve([plugin("b"), plugin("user", "b")], {}).levels[-1] == ("user",)


def test_of_several_processes_of_one_plugin_one_that_runs_is_enough():
    source, user = plugin("source"), plugin("user", "source")
    standing = Standing([user, source, source], [(source, "it crashed")])
    assert standing.lacks(user) == ()
    assert standing.resolve([plugin("other", "source")], {}).uses("other") == ("source",)


def test_a_new_version_is_compared_with_the_one_before():
    user = plugin("user", "source < 2", "data", "nowhere")
    source = plugin("source", "nowhere", offers=("data",))
    standing = Standing([user, source])
    assert standing.spoils(plugin("source", offers=("data",), version="1.5")) == ()
    faults = [one.fault for one in standing.spoils(plugin("source", version="2.0"))]
    assert faults == [
        "user needs source < 2, and there is source 2.0",
        "user needs data, and there is no plugin or capability of that name",
    ]
    assert standing.newly_lacks(plugin("source", "nowhere")) == ()
    (problem,) = standing.newly_lacks(plugin("source", "nowhere", "elsewhere"))
    assert problem.chain == ("source", "elsewhere")
    # One that has ended is still what the others expect there.
    ended = Standing([user], [(source, "it crashed")])
    assert len(ended.spoils(plugin("source", version="2.0"))) == 2
    assert Standing([user]).spoils(plugin("source", version="2.0")) == ()


def test_the_order_to_stop_in():
    ones = [plugin("a", "b"), plugin("b", "a"), plugin("c", "b", "nowhere"), plugin("d")]
    standing = Standing([*ones, plugin("e", "d", "nowhere")])
    assert standing.stop_levels({"a", "b", "c"}) == (("c",), ("a", "b"))
    assert standing.stop_levels({"d", "e"}) == (("e",), ("d",))
    assert [need.chain for need in standing.needed_by("a")] == [("b", "a"), ("c", "b", "a")]


def test_who_could_be_met_by_another_does_not_have_one_wait():
    """Those that need each other stop together, and before what one of them needs alone."""
    two = [plugin("a", "b", "data"), plugin("b", "a", "only")]
    more = [plugin("first", offers=("data",)), plugin("second", "a", offers=("data",))]
    standing = Standing([*two, *more, plugin("only", "a")])
    levels = standing.stop_levels({"a", "b", "second", "only", "first"})
    assert levels == (("second",), ("a", "b", "only"), ("first",))
    assert Standing([plugin("a", "b"), plugin("b", "a"), *more]).stop_levels({"a", "second"}) == (
        ("second",),
        ("a",),
    )
