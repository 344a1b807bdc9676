"""Random graphs of plugins against a naive reading of what a dependency is."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.bundle.plugin_json import split_dependency
from sandbox_host.model import PLUGIN_API_VERSION, Manifest
from sandbox_host.supervision.problems import Conflict, Cycle, Missing, Unusable
from sandbox_host.supervision.resolve import CORE_FRAMEWORK, resolve

NAMES = [f"p{n}" for n in range(9)]
CAPABILITIES = ["ai", "data"]
RANGES = ["", " >= 1", " >= 2", " < 2", " ~= 1.1", " >= 1, < 2"]

ranges = st.sampled_from([*[""] * 6, *RANGES])
any_name = st.sampled_from([*NAMES, *NAMES, *CAPABILITIES, "nowhere", CORE_FRAMEWORK])


def dependencies(below):
    """Return lists of them; where names are given, no cycle comes of it and hardly a problem."""
    names = st.sampled_from([*below, *below, *CAPABILITIES]) if below else any_name
    one = st.builds(str.__add__, names, st.just("") if below else ranges)
    return st.lists(one, unique_by=lambda text: split_dependency(text)[0], max_size=3)


@st.composite
def systems(draw):
    """Return manifests, some of them broken, in any order."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=9))
    orderly = draw(st.booleans())
    ones = [
        Manifest(
            name,
            name,
            draw(st.sampled_from(["1.0.0", "1.1.0", "2.0.0", "2.0.0-rc.1"])),
            "d",
            "a",
            capabilities=tuple(draw(st.sets(st.sampled_from(CAPABILITIES), max_size=1))),
            dependencies=tuple(draw(dependencies(names[:index] if orderly else ())))
            if index or not orderly
            else (),
        )
        for index, name in enumerate(names)
    ]
    broken = draw(st.sets(st.sampled_from(NAMES), max_size=0 if orderly else 2))
    return ones, dict.fromkeys(broken, "it is disabled")


def met_by(text, manifests):
    """Return who meets a dependency, if it runs; "host" for the host itself. The naive reading."""
    name, versions = split_dependency(text)
    if name == CORE_FRAMEWORK:
        return {"host"} if versions.contains(PLUGIN_API_VERSION, prereleases=True) else set()
    named = [one for one in manifests if one.identity == name]
    candidates = named or [one for one in manifests if name in one.capabilities]
    return {c.identity for c in candidates if versions.contains(c.version, prereleases=True)}


def naive_levels(manifests, broken):
    levels, started = [], {"host"}
    while True:
        level = {
            one.identity
            for one in manifests
            if one.identity not in started
            and one.identity not in broken
            and all(met_by(text, manifests) & started for text in one.dependencies)
        }
        if not level:
            return levels
        started |= level
        levels.append(tuple(sorted(level)))


@given(systems())
def test_the_order_is_that_of_the_naive_reading(system):
    manifests, broken = system
    found = resolve(manifests, broken)
    assert list(found.levels) == naive_levels(manifests, broken)
    started = {one for level in found.levels for one in level}
    assert list(found.problems) == sorted({m.identity for m in manifests} - started - set(broken))


@given(systems(), st.randoms(use_true_random=False))
def test_the_order_of_reading_does_not_matter(system, random):
    manifests, broken = system
    shuffled = list(manifests)
    random.shuffle(shuffled)
    one, other = resolve(manifests, broken), resolve(shuffled, broken)
    assert one.levels == other.levels
    assert dict(one.problems) == dict(other.problems)


@given(systems())
def test_every_problem_names_a_chain_that_is_true(system):
    """Each needs the next one, none of them has started, and the fault is what it is said to be."""
    manifests, broken = system
    found = resolve(manifests, broken)
    by_name = {one.identity: one for one in manifests}
    started = {"host", *(one for level in found.levels for one in level)}
    for plugin, problems in found.problems.items():
        unmet = [t for t in by_name[plugin].dependencies if not met_by(t, manifests) & started]
        assert len(problems) == len(unmet) > 0
        for text, problem in zip(unmet, problems, strict=True):
            assert problem.plugin == problem.chain[0] == plugin
            assert " -> ".join(problem.chain) in problem.text
            wanted_first = problem.chain[1] in met_by(text, manifests)
            assert wanted_first or problem.chain[1] == split_dependency(text)[0]
            whole = problem.chain if isinstance(problem, Cycle) else problem.chain[:-1]
            assert not started & set(whole)
            for one, following in pairwise(whole):
                needs = by_name[one].dependencies
                assert any(following in met_by(t, manifests) for t in needs)
            check_fault(problem, manifests, broken)


def check_fault(problem, manifests, broken):
    by_name = {one.identity: one for one in manifests}
    if isinstance(problem, Cycle):
        start = problem.chain.index(problem.chain[-1])
        assert problem.members == problem.chain[start:-1]
        assert len(set(problem.members)) == len(problem.members)
        return
    wanted = problem.wanted
    assert wanted.plugin == problem.chain[-2]
    (text,) = [
        t for t in by_name[wanted.plugin].dependencies if split_dependency(t)[0] == wanted.name
    ]
    usable = met_by(text, manifests) - set(broken)
    if isinstance(problem, Unusable):
        assert problem.chain[-1] in broken
        assert not usable
        return
    assert problem.chain[-1] == wanted.name
    assert not met_by(text, manifests)
    if isinstance(problem, Missing):
        assert wanted.name not in by_name
        assert not any(wanted.name in one.capabilities for one in manifests)
    else:
        assert isinstance(problem, Conflict)
        assert problem.there
        others = {(one.plugin, one.versions) for one in problem.others}
        for one in manifests:
            for t in one.dependencies:
                name = split_dependency(t)[0]
                if name == wanted.name and one.identity != wanted.plugin:
                    assert (one.identity, t[len(name) :].strip()) in others


@given(systems(), st.data())
def test_who_needs_a_plugin_is_who_could_not_go_on(system, data):
    manifests, broken = system
    found = resolve(manifests, broken)
    running = {one for level in found.levels for one in level}
    if not running:
        return
    gone = data.draw(st.sampled_from(sorted(running)))
    by_name = {one.identity: one for one in manifests}
    left = running - {gone}
    while True:
        lost = {
            one
            for one in left
            if not all(
                met_by(text, manifests) & ((left - {one}) | {"host"})
                for text in by_name[one].dependencies
            )
        }
        if not lost:
            break
        left -= lost
    needs = found.needed_by(gone, running)
    assert {one.plugin for one in needs} == running - {gone} - left
    for one in needs:
        assert one.chain[0] == one.plugin
        assert one.chain[-1] == gone
        for user, provider in pairwise(one.chain):
            assert any(provider in met_by(t, manifests) for t in by_name[user].dependencies)
