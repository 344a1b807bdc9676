"""Updates beside what was approved: wider is always held, narrower never, and it is an order."""

from __future__ import annotations

from dataclasses import fields, replace
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.admission.changes import Asks, Change, changes, wider
from sandbox_host.model import Limits, Permissions
from sandbox_host.terms import LIMIT_KEYS

NAMES = [f.name for f in fields(Permissions)]
FLAGS = [f.name for f in fields(Permissions) if f.default is False]
PATTERNS = {"publish", "subscribe"}
PATHS = {"read", "write"}

PATH = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=3).map(lambda p: "/" + "/".join(p))
EVENT = st.sampled_from(["model", "model_a", "data", "model_?", "*", "m*", "mo*_*", "?*"])
WORD = st.sampled_from(["h:1", "h:2", "A", "A.B"])
RANGES = st.lists(st.sampled_from([">=1.0", "<2", "!=1.5", ">=1.2"]), max_size=3, unique=True)


def entries(name):
    return PATH if name in PATHS else EVENT if name in PATTERNS else WORD


PERMISSIONS = st.builds(
    Permissions,
    **{
        name: st.booleans()
        if name in FLAGS
        else st.lists(entries(name), max_size=3, unique=True).map(tuple)
        for name in NAMES
    },
)
LIMITS = st.dictionaries(
    st.sampled_from([key.field for key in LIMIT_KEYS if not key.operator_only]),
    st.integers(16, 10**6),
)
DEPENDENCIES = st.dictionaries(st.sampled_from(["x", "y", "z"]), RANGES, max_size=3).map(
    lambda d: tuple(f"{name} {','.join(ranges)}".strip() for name, ranges in d.items())
)
ASKS = st.builds(Asks, PERMISSIONS, LIMITS, DEPENDENCIES)


@given(ASKS)
def test_the_same_goes_through(asks):
    assert changes(asks, asks) == ()


@given(ASKS, st.data())
def test_narrower_goes_through(asks, data):
    """Whatever is left out, and whatever limit is lower."""
    kept = {
        name: data.draw(st.booleans()) and value
        if isinstance(value, bool)
        else tuple(entry for entry in value if data.draw(st.booleans()))
        for name in NAMES
        for value in [getattr(asks.permissions, name)]
    }
    lower = {
        name: min(value, getattr(Limits(), name)) // data.draw(st.integers(1, 9))
        for name, value in asks.limits.items()
    }
    limits = {name: min(value, asks.limits[name]) for name, value in lower.items()}
    dependencies = tuple(one for one in asks.dependencies if data.draw(st.booleans()))
    narrower = Asks(Permissions(**kept), limits, dependencies)
    assert wider(asks, narrower) == ()


@given(ASKS, st.sampled_from(NAMES), st.data())
def test_every_permission_more_is_held(asks, name, data):
    before = getattr(asks.permissions, name)
    if name in FLAGS:
        without = replace(asks, permissions=replace(asks.permissions, **{name: False}))
        more = replace(asks, permissions=replace(asks.permissions, **{name: True}))
        assert [one.path for one in wider(without, more)] == [f"permissions.{name}"]
        return
    entry = data.draw(entries(name))
    more = replace(asks, permissions=replace(asks.permissions, **{name: tuple({*before, entry})}))
    held = wider(asks, more)
    if name in PATHS:
        covered = any(entry == one or entry.startswith(one.rstrip("/") + "/") for one in before)
    elif name in PATTERNS:
        samples = ["model", "model_a", "data", "model_x", "mo_", "z", "m"]
        named = [one for one in samples if fnmatchcase(one, entry)]
        if any(not any(fnmatchcase(one, old) for old in before) for one in named):
            assert held
        return
    else:
        covered = entry in before
    assert bool(held) != covered


@given(ASKS, st.sampled_from(LIMIT_KEYS))
def test_every_higher_limit_is_held(asks, key):
    value = asks.limits.get(key.field, getattr(Limits(), key.field))
    more = replace(asks, limits={**asks.limits, key.field: value + 1})
    less = replace(asks, limits={**asks.limits, key.field: value - 1})
    assert [one.path for one in wider(asks, more)] == [f"limits.{key.key}"]
    assert wider(asks, less) == ()
    (told,) = changes(asks, less)
    assert not told.wider


@given(ASKS, ASKS, ASKS)
def test_it_is_an_order(one, two, three):
    if not wider(one, two) and not wider(two, three):
        assert not wider(one, three)


@given(ASKS, ASKS)
def test_all_differences_are_told(one, two):
    told = changes(one, two)
    paths = {change.path for change in told}
    for name in NAMES:
        old, new = getattr(one.permissions, name), getattr(two.permissions, name)
        same = set(old) == set(new) if isinstance(old, tuple) else old == new
        assert (f"permissions.{name}" in paths) != same
    assert all(change.before != change.now for change in told)
    assert wider(one, two) == tuple(change for change in told if change.wider)


@pytest.mark.parametrize(
    ("before", "now", "held"),
    [
        ((), ("x",), True),
        (("x",), (), False),
        (("x >= 1.0",), ("x >= 1.0, < 2",), False),
        (("x >= 1.0, < 2",), ("x >= 1.0",), True),
        (("x >= 1.0",), ("x >= 1.5",), True),
        (("x >= 1.0, < 2",), ("x <2,>=1.0",), False),
        (("x",), ("x >= 1.0",), False),
        (("x",), ("X",), True),
    ],
)
def test_dependencies(before, now, held):
    told = wider(Asks(dependencies=before), Asks(dependencies=now))
    assert bool(told) == held


def test_native_code_is_named():
    before, now = Asks(), Asks(Permissions(native_code=True))
    (change,) = wider(before, now)
    assert change == Change("permissions.native_code", "-", "true", True)
    assert str(change) == "permissions.native_code: true (before: -)"


def test_how_limits_are_shown():
    before, now = Asks(limits={"memory_bytes": 2**26}), Asks(limits={"cpu_seconds": 61.0})
    assert [str(one) for one in wider(before, now)] == [
        "limits.memory: 512 MiB (before: 64 MiB)",
        "limits.cpu_time: 61 s (before: 60 s)",
    ]


def test_a_kind_of_permission_that_nobody_knows_is_held(monkeypatch):
    """Of one that is neither a list nor a flag nothing says what is more."""
    before = replace(Permissions(), env=5)
    assert wider(Asks(before), Asks(replace(before, env=4)))
