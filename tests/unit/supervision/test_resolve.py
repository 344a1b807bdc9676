"""The order of starting, and why some cannot."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sandbox_host.errors import UsageError
from sandbox_host.model import Manifest
from sandbox_host.supervision.problems import (
    Conflict,
    Cycle,
    Missing,
    Problem,
    Unusable,
    Wanted,
    shown_chain,
)
from sandbox_host.supervision.resolve import TOLD, Resolution, resolve


def plugin(
    identity: str, *dependencies: str, version: str = "1.0.0", offers: tuple[str, ...] = ()
) -> Manifest:
    return Manifest(
        identity, identity, version, "d", "a", capabilities=offers, dependencies=dependencies
    )


def only(resolution: Resolution, identity: str) -> Problem:
    (problem,) = resolution.problems[identity]
    return problem


# -- the order -------------------------------------------------------------------------------


def test_levels():
    found = resolve(
        [
            plugin("report", "model >= 1.0", "source"),
            plugin("model", "source ~= 1.4", "core_framework >= 1.0.0"),
            plugin("source", version="1.4.2"),
            plugin("alone"),
        ]
    )
    assert found.levels == (("alone", "source"), ("model",), ("report",))
    assert not found.problems
    assert found.uses("report") == ("model", "source")
    assert found.uses("model") == ("source",)


def test_a_level_is_in_the_order_of_the_alphabet():
    found = resolve([plugin("a"), plugin("b"), plugin("z", "a"), plugin("c", "b"), plugin("y")])
    assert found.levels == (("a", "b", "y"), ("c", "z"))


def test_a_plugin_is_found_by_its_identity():
    assert resolve([plugin("my_plugin"), plugin("b", "MyPlugin >= 1")]).levels == (
        ("my_plugin",),
        ("b",),
    )


def test_nothing_is_an_order_too():
    assert resolve([]).levels == ()


def test_two_of_one_identity_are_a_bug():
    with pytest.raises(UsageError, match="two plugins a"):
        resolve([plugin("a"), plugin("a")])


# -- capabilities ----------------------------------------------------------------------------


def test_a_capability_is_met_by_a_plugin_whose_version_is_in_the_range():
    found = resolve(
        [
            plugin("old", version="0.9", offers=("ai_model",)),
            plugin("user", "ai_model >= 1.0.0"),
            plugin("young", version="2.0", offers=("ai_model",)),
        ]
    )
    assert found.levels == (("old", "young"), ("user",))
    assert found.uses("user") == ("young",)


def test_of_several_providers_the_first_that_can_start_is_enough():
    offers = ("ai_model",)
    found = resolve(
        [
            plugin("a_late", "base", offers=offers),
            plugin("base"),
            plugin("broken", "nowhere", offers=offers),
            plugin("c_soon", offers=offers),
            plugin("d_soon", offers=offers),
            plugin("user", "ai_model"),
        ]
    )
    assert found.levels == (("base", "c_soon", "d_soon"), ("a_late", "user"))
    assert found.uses("user") == ("c_soon",)


def test_another_provider_keeps_out_of_a_cycle():
    """``model`` needs what needs a model: where there is another model, that is no cycle."""
    ones = [plugin("model", "user", offers=("ai",)), plugin("user", "ai")]
    assert resolve(ones).levels == ()
    found = resolve([*ones, plugin("other", offers=("ai",))])
    assert found.levels == (("other",), ("user",), ("model",))


def test_a_plugins_name_goes_before_a_capability():
    found = resolve(
        [
            plugin("ai", version="1.0"),
            plugin("b", version="2.0", offers=("ai",)),
            plugin("c", "ai >= 2"),
        ]
    )
    assert isinstance(only(found, "c"), Conflict)
    assert only(found, "c").there == (("ai", "1.0"),)


def test_nobody_meets_its_own_dependency():
    found = resolve([plugin("a", "ai", offers=("ai",))])
    assert only(found, "a").chain == ("a", "a")
    assert only(found, "a").text == "a cannot start: a -> a: a needs itself."


# -- versions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("versions", "version", "met"),
    [
        ("", "0.0.1", True),
        (">= 1.0.0", "1.0.0", True),
        (">=1.0,<2", "1.9.9", True),
        (">=1.0,<2", "2.0.0", False),
        ("~= 1.4.2", "1.4.9", True),
        ("~= 1.4.2", "1.5.0", False),
        ("!= 1.0.0", "1.0.0", False),
        ("== 1.*", "1.7", True),
        (">= 1.0", "2.0.0-rc.1", True),
        (">= 2.0", "2.0.0-rc.1", False),
        (">= 1.0.0", "1.0.0-alpha.beta", False),
        (">= 0.9", "1.0.0-alpha.beta", True),
        ("== 1.0.0", "1.0.0+build.5", True),
    ],
)
def test_ranges(versions, version, met):
    found = resolve([plugin("a", version=version), plugin("b", f"a {versions}".strip())])
    assert ("b" in found.problems) is not met


# -- problems, each with its chain -----------------------------------------------------------


def test_missing_with_the_chain_that_leads_to_it():
    found = resolve([plugin("a", "b"), plugin("b", "c >= 2"), plugin("z")])
    assert found.levels == (("z",),)
    assert only(found, "b") == Missing("b", ("b", "c"), Wanted("b", "c", ">= 2"))
    assert only(found, "a") == Missing("a", ("a", "b", "c"), Wanted("b", "c", ">= 2"))
    assert only(found, "a").text == (
        "a cannot start: a -> b -> c: b needs c >= 2, and there is no plugin or capability of "
        "that name."
    )


def test_a_cycle_is_named_whole():
    found = resolve([plugin("a", "b"), plugin("b", "c"), plugin("c", "a"), plugin("t", "a")])
    assert found.levels == ()
    assert only(found, "a") == Cycle("a", ("a", "b", "c", "a"), ("a", "b", "c"))
    assert only(found, "c").chain == ("c", "a", "b", "c")
    assert only(found, "t") == Cycle("t", ("t", "a", "b", "c", "a"), ("a", "b", "c"))
    assert only(found, "a").text == "a cannot start: a -> b -> c -> a: a, b and c need each other."


def test_a_conflict_says_who_wants_what_and_what_is_there():
    found = resolve(
        [
            plugin("b", "a >= 2"),
            plugin("c", "a < 2"),
            plugin("d", "a"),
            plugin("e", "b"),
            plugin("a", version="1.5"),
        ]
    )
    assert found.levels == (("a",), ("c", "d"))
    problem = only(found, "e")
    assert isinstance(problem, Conflict)
    assert problem.chain == ("e", "b", "a")
    assert problem.others == (Wanted("c", "a", "< 2"), Wanted("d", "a", ""))
    assert problem.text == (
        "e cannot start: e -> b -> a: b needs a >= 2, and there is a 1.5 (c wants < 2 and d wants "
        "any)."
    )


def test_a_conflict_with_the_host():
    found = resolve([plugin("a", "core_framework >= 99"), plugin("b", "core_framework >= 1")])
    assert found.levels == (("b",),)
    assert only(found, "a").text == (
        "a cannot start: a -> core_framework: a needs core_framework >= 99, and there is "
        "core_framework 1.0.0 (b wants >= 1)."
    )


def test_one_that_does_not_run():
    ones = [plugin("a", "b"), plugin("b", "c"), plugin("c", version="3"), plugin("d")]
    found = resolve(ones, {"c": "it is disabled.\x1b[2J"})
    assert found.levels == (("d",),)
    assert only(found, "a") == Unusable(
        "a", ("a", "b", "c"), Wanted("b", "c"), "it is disabled.\x1b[2J"
    )
    assert "c does not run: it is disabled.\\x1b[2J." in only(found, "a").text
    assert "c" not in found.problems


def test_one_that_does_not_run_and_has_not_even_a_readable_manifest():
    found = resolve([plugin("a", "MyModel >= 2")], {"my_model": "tampered"})
    assert (
        only(found, "a").text == "a cannot start: a -> my_model: my_model does not run: tampered."
    )


def test_a_wrong_version_is_told_before_that_it_does_not_run():
    found = resolve([plugin("a", "b >= 2"), plugin("b")], {"b": "disabled"})
    assert isinstance(only(found, "a"), Conflict)


def test_a_broken_provider_is_passed_over():
    ones = [plugin("p", offers=("ai",)), plugin("q", offers=("ai",)), plugin("u", "ai")]
    assert resolve(ones, {"p": "x"}).uses("u") == ("q",)
    assert only(resolve(ones, {"p": "x", "q": "y"}), "u").chain == ("u", "p")


def test_each_dependency_that_cannot_be_met_is_a_problem():
    found = resolve([plugin("a", "b", "ok", "c", "a2"), plugin("ok"), plugin("a2", "a")])
    assert [one.chain for one in found.problems["a"]] == [
        ("a", "b"),
        ("a", "c"),
        ("a", "a2", "a"),
    ]
    with pytest.raises(KeyError):
        found.problems["ok"]
    assert sorted(found.problems) == ["a", "a2"]
    assert len(found.problems) == 2


def test_long_tales_are_cut():
    chain = tuple(f"p{n}" for n in range(100))
    assert shown_chain(chain).count("->") == 24
    assert "p11 -> (76 more) -> p88" in shown_chain(chain)
    found = resolve([plugin("x"), *(plugin(f"p{n:03}", "x >= 2") for n in range(200))])
    problem = only(found, "p000")
    assert isinstance(problem, Conflict)
    assert len(problem.others) == TOLD
    assert problem.text.endswith("p006 wants >= 2 and 58 more).")


# -- who needs whom --------------------------------------------------------------------------


def test_who_needs_a_plugin():
    found = resolve(
        [
            plugin("a"),
            plugin("b", "a"),
            plugin("c", "a"),
            plugin("d", "c"),
            plugin("off", "a"),
            plugin("e"),
        ]
    )
    needs = found.needed_by("a", {"a", "b", "c", "d", "e"})
    assert [one.plugin for one in needs] == ["b", "c", "d"]
    assert [str(one) for one in needs] == ["b -> a", "c -> a", "d -> c -> a"]
    assert needs[2].through == "c"
    assert found.needed_by("e", {"e", "a"}) == ()
    assert found.needed_by("unknown", {"a"}) == ()


def test_who_finds_another_provider_needs_nobody():
    found = resolve([plugin("p", offers=("ai",)), plugin("q", offers=("ai",)), plugin("u", "ai")])
    assert found.needed_by("p", {"p", "q", "u"}) == ()
    assert [str(one) for one in found.needed_by("p", {"p", "u"})] == ["u -> p"]


def test_two_providers_that_both_go():
    found = resolve(
        [
            plugin("base"),
            plugin("p", "base", offers=("ai",)),
            plugin("q", "base", offers=("ai",)),
            plugin("u", "ai"),
        ]
    )
    assert [str(one) for one in found.needed_by("base", {"base", "p", "q", "u"})] == [
        "p -> base",
        "q -> base",
        "u -> p -> base",
    ]


def test_what_it_provides_itself_does_not_keep_it():
    found = resolve([plugin("p", offers=("ai",)), plugin("u", "ai", offers=("ai",))])
    assert [str(one) for one in found.needed_by("p", {"p", "u"})] == ["u -> p"]


def test_the_order_of_stopping():
    found = resolve([plugin("a"), plugin("b", "a"), plugin("c", "b"), plugin("z")])
    assert found.stop_levels({"a", "b", "c", "z"}) == (("c",), ("b",), ("a", "z"))
    assert found.stop_levels({"a", "c"}) == (("c",), ("a",))


# -- many ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["none", "missing", "cycle"])
def test_ten_thousand_in_a_row(fault):
    """Neither recursion nor time in the square of their number."""
    last = {"none": (), "missing": ("nowhere",), "cycle": ("p0000",)}[fault]
    names = [f"p{n:04}" for n in range(10_000)]
    ones = [plugin(name, after) for name, after in pairwise(names)]
    found = resolve([*ones, plugin(names[-1], *last)])
    if fault == "none":
        assert [level[0] for level in found.levels] == names[::-1]
        needs = found.needed_by(names[-1], names)
        assert len(needs) == 9_999
        assert needs[-1].chain == tuple(names)
    else:
        assert found.levels == ()
        end = "nowhere" if fault == "missing" else "p0000"
        assert only(found, "p0000").chain == (*names, end)
        assert len(only(found, "p0000").text) < 500
