"""Random hosts of plugins: what a change of one means, against a naive reading of it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.bundle.plugin_json import split_dependency
from sandbox_host.model import PLUGIN_API_VERSION, Manifest
from sandbox_host.supervision.problems import Conflict, Cycle, Missing, Unusable
from sandbox_host.supervision.standing import Standing

NAMES = [f"p{n}" for n in range(6)]
CAPABILITIES = ["ai", "data"]
VERSIONS = ["1.0.0", "1.1.0", "2.0.0", "2.0.0-rc.1"]

wanted = st.builds(
    str.__add__,
    st.sampled_from([*NAMES, *CAPABILITIES, "nowhere", "core_framework"]),
    st.sampled_from(["", "", "", " >= 1", " >= 2", " < 2"]),
)


def manifests(name):
    return st.builds(
        Manifest,
        st.just(name),
        st.just(name),
        st.sampled_from(VERSIONS),
        st.just("d"),
        st.just("a"),
        capabilities=st.sets(st.sampled_from(CAPABILITIES), max_size=1).map(tuple),
        dependencies=st.lists(wanted, unique_by=lambda t: split_dependency(t)[0], max_size=3).map(
            tuple
        ),
    )


@st.composite
def hosts(draw):
    """Return those that run, those that have ended, and a version of one of them or another."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=6))
    ones = [draw(manifests(name)) for name in names]
    cut = draw(st.integers(0, len(ones)))
    new = draw(manifests(draw(st.sampled_from(names or NAMES))))
    return ones[:cut], ones[cut:], new


def meets(text, user, running, ended=()):
    """Tell whether one that runs, and is not the user, meets a dependency. The naive reading."""
    name, versions = split_dependency(text)
    if name == "core_framework":
        return versions.contains(PLUGIN_API_VERSION, prereleases=True)
    named = [one for one in (*running, *ended) if one.identity == name]
    candidates = named or [one for one in running if name in one.capabilities]
    return any(
        one in running and one.identity != user and versions.contains(one.version, prereleases=True)
        for one in candidates
    )


def lacks(user, running, ended=()):
    return [text for text in user.dependencies if not meets(text, user.identity, running, ended)]


def instead(ones, new):
    return [one for one in ones if one.identity != new.identity] + [new]


@given(hosts())
def test_what_one_lacks_is_what_nobody_that_runs_meets(host):
    running, ended, _ = host
    standing = Standing(running, [(one, "it crashed") for one in ended])
    for user in running:
        told = standing.lacks(user)
        naive = lacks(user, running, ended)
        assert len(told) == len(naive)
        for problem, text in zip(told, naive, strict=True):
            assert problem.plugin == problem.chain[0] == user.identity
            name = split_dependency(text)[0]
            if isinstance(problem, Missing | Conflict):
                assert (problem.chain[-1], problem.wanted.name) == (name, name)
            elif isinstance(problem, Unusable):
                assert problem.chain[-1] in {one.identity for one in ended}
                assert "it crashed" in problem.text
            else:
                assert isinstance(problem, Cycle)
                assert problem.members == (user.identity,)


@given(hosts())
def test_a_new_version_spoils_what_the_old_one_met_and_it_does_not(host):
    running, ended, new = host
    standing = Standing(running, [(one, "it crashed") for one in ended])
    before = [one for one in (*running, *ended) if one.identity == new.identity]
    others = [one for one in ended if one.identity != new.identity]
    expected = []
    for user in running if before else ():
        if user.identity != new.identity:
            then = lacks(user, instead(running, before[0]), others)
            now = lacks(user, instead(running, new), others)
            expected += [(user.identity, text) for text in now if text not in then]
    told = standing.spoils(new)
    assert sorted(p.plugin for p in told) == sorted(user for user, _ in expected)
    assert standing.spoils(replace(new, identity="stranger")) == ()


@given(hosts(), st.data())
def test_who_needs_another_stops_before_it(host, data):
    running, _, _ = host
    standing = Standing(running)
    names = sorted(standing.running)
    going = data.draw(st.sets(st.sampled_from(names))) if names else set()
    levels = standing.stop_levels(going)
    assert sorted(one for level in levels for one in level) == sorted(going)
    at = {one: index for index, level in enumerate(levels) for one in level}
    for one in going:
        for need in standing.needed_by(one):
            chain = need.chain
            if need.plugin in going and one not in {
                back.plugin for back in standing.needed_by(need.plugin)
            }:
                assert at[need.plugin] < at[one], chain
