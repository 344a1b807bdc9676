"""Which layers keep which promise: the table says what the mechanisms can, and no more."""

from __future__ import annotations

import itertools

import pytest

from sandbox_host.guarantees import PROMISES, WAYS, missing, restricted, standing
from sandbox_host.model import Guarantee, Layer, LayerStatus

ALL = frozenset(Layer)


def report(guarantee, in_force):
    (found,) = [r for r in standing(in_force) if r.guarantee is guarantee]
    return found


def test_every_guarantee_has_a_promise_and_a_way():
    assert list(PROMISES) == list(Guarantee) == list(WAYS)
    assert all(WAYS.values())
    assert all(way.layers for ways in WAYS.values() for way in ways)
    assert len(set(PROMISES.values())) == len(Guarantee)


def test_no_name_is_both_a_guarantee_and_a_layer():
    # accept_missing and disable_layers hold names of either kind.
    assert not {str(one) for one in Guarantee} & {str(one) for one in Layer}


def test_every_layer_but_those_that_only_hide_serves_a_guarantee():
    serving = {layer for ways in WAYS.values() for way in ways for layer in way.layers}
    assert ALL - serving == {Layer.UTS_NAMESPACE, Layer.CGROUP_NAMESPACE}


@pytest.mark.parametrize("guarantee", Guarantee)
def test_the_best_way_comes_first_and_none_is_hidden_by_another(guarantee):
    ways = WAYS[guarantee]
    assert sorted(ways, key=lambda way: bool(way.restriction)) == list(ways)
    for before, after in itertools.combinations(ways, 2):
        assert not set(before.layers) <= set(after.layers)


@pytest.mark.parametrize(
    ("guarantee", "way"), [(g, way) for g, ways in WAYS.items() for way in ways]
)
def test_the_layers_of_a_way_are_enough(guarantee, way):
    found = report(guarantee, way.layers)
    assert found.status is not LayerStatus.UNAVAILABLE
    assert guarantee not in missing(way.layers)
    if way == WAYS[guarantee][0]:
        told = ", ".join(way.layers)
        assert found.detail == (f"{told}; {way.restriction}" if way.restriction else told)


def test_nothing_keeps_nothing():
    assert missing(()) == tuple(Guarantee)
    assert {r.status for r in standing(())} == {LayerStatus.UNAVAILABLE}
    assert restricted(()) == ()


def test_all_layers_keep_everything_without_restriction():
    assert missing(Layer) == ()
    assert {r.status for r in standing(Layer)} == {LayerStatus.ACTIVE}
    assert restricted(Layer) == ()  # no machine does better


NEEDED = {
    Layer.PARENT_DEATH: {"lifetime"},
    Layer.ENVIRONMENT: {"secrets"},
    Layer.INHERITED_DESCRIPTORS: {"secrets"},
    Layer.RLIMITS: {"cpu", "descriptors", "disk"},
    Layer.CAPABILITIES: {"kernel-surface"},
    Layer.NO_NEW_PRIVS: {"kernel-surface"},
    Layer.SECCOMP: {"programs", "kernel-surface", "cpu"},
    Layer.WATCHDOG: {"memory", "cpu", "tasks", "disk"},
}


@pytest.mark.parametrize("layer", Layer)
def test_what_goes_missing_with_one_layer(layer):
    assert set(missing(ALL - {layer})) == NEEDED.get(layer, set())


@pytest.mark.parametrize(
    ("lacking", "less"),
    [
        # Debian 11: no Landlock. An ordinary user: no id of its own, no control group.
        ({"landlock"}, {"files"}),
        ({"own-uid", "cgroup"}, set()),
        # A distribution that restricts user namespaces.
        (
            {name for name in Layer if name.endswith("-namespace")}
            | {"own-root", "own-uid", "cgroup"},
            {"files", "processes", "tasks", "disk"},
        ),
    ],
)
def test_machines_that_keep_everything_some_with_a_restriction(lacking, less):
    in_force = ALL - lacking
    assert missing(in_force) == ()
    assert {r.guarantee for r in restricted(in_force)} == less


def test_a_root_of_its_own_without_landlock_keeps_files_with_a_restriction():
    assert report(Guarantee.FILES, ALL).status is LayerStatus.ACTIVE
    assert report(Guarantee.FILES, ALL - {Layer.SECCOMP}).status is LayerStatus.ACTIVE
    found = report(Guarantee.FILES, ALL - {Layer.LANDLOCK})
    assert found.status is LayerStatus.DEGRADED
    assert found.detail.startswith("own-root, seccomp; FIFOs in granted directories")


def test_landlock_or_seccomp_alone_keeps_no_files():
    fixed = ALL - {Layer.OWN_ROOT}
    assert Guarantee.FILES in missing(fixed - {Layer.SECCOMP})
    assert Guarantee.FILES in missing(fixed - {Layer.LANDLOCK})


def test_what_would_help_is_the_least_of_what_is_lacking():
    network, programs = Guarantee.NETWORK, Guarantee.PROGRAMS
    assert report(network, ()).detail == "would take seccomp, or network-namespace and own-root"
    assert report(network, {Layer.OWN_ROOT}).detail == "would take seccomp, or network-namespace"
    assert report(programs, ALL - {Layer.SECCOMP}).detail == "would take seccomp"


def test_writing_elsewhere_is_a_restriction_of_the_disk_and_of_nothing_else():
    for in_force in (ALL, ALL - {Layer.OWN_ROOT}, frozenset()):
        plain, less = standing(in_force), standing(in_force, writes_outside=True)
        assert [r for r in less if r.guarantee is not Guarantee.DISK] == [
            r for r in plain if r.guarantee is not Guarantee.DISK
        ]
        (before,) = [r for r in plain if r.guarantee is Guarantee.DISK]
        (after,) = [r for r in less if r.guarantee is Guarantee.DISK]
        if before.status is LayerStatus.UNAVAILABLE:
            assert after == before
        else:
            assert after.status is LayerStatus.DEGRADED
            assert after.detail.startswith(f"{before.detail}; what it writes to granted paths")


def test_what_processes_take_away():
    plain = {r.guarantee: r for r in standing(ALL)}
    less = {r.guarantee: r for r in standing(ALL, starts_processes=True)}
    changed = {name for name in Guarantee if plain[name] != less[name]}
    assert changed == {Guarantee.PROGRAMS, Guarantee.DESCRIPTORS, Guarantee.CPU}
    assert less[Guarantee.PROGRAMS].status is LayerStatus.DEGRADED
    assert less[Guarantee.PROGRAMS].detail == (
        "own-root, landlock, seccomp; its own interpreter only"
    )
    assert less[Guarantee.DESCRIPTORS].detail == "rlimits; those of each of its processes"
    assert (less[Guarantee.CPU].status, less[Guarantee.CPU].detail) == (
        LayerStatus.ACTIVE,
        "cgroup, watchdog",
    )


def test_without_a_group_processes_have_no_budget_of_cpu_time():
    found = {r.guarantee: r for r in standing(ALL - {Layer.CGROUP}, starts_processes=True)}
    assert found[Guarantee.CPU].status is LayerStatus.UNAVAILABLE
    assert found[Guarantee.CPU].detail == "would take cgroup"
