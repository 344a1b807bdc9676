"""What dossiers are called, and which of them go first."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.errors import DossierError
from sandbox_host.observe.dossier_ids import (
    check_id,
    ended_at,
    id_of,
    in_order_of_removal,
    is_dossier_id,
    time_in,
)
from tests.support.dossier_examples import example


def test_an_id() -> None:
    name = id_of(example())
    assert name == "20260131T120000-hog-4711"
    check_id(name)
    assert time_in(f"{name}-2") == "20260131T120000"
    assert ended_at(name) == datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_an_instance_is_no_other_plugin() -> None:
    name = id_of(replace(example(), plugin="hog@tenant_a"))
    assert name == "20260131T120000-hog@tenant_a-4711"
    check_id(name)
    check_id(id_of(replace(example(), plugin="h" * 128 + "@" + "t" * 32)))
    ids = [f"202601{day:02}T120000-{who}-1" for day, who in ((1, "a"), (2, "a@t"), (3, "a@t"))]
    assert list(in_order_of_removal(ids)) == [ids[1], ids[0]]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "hog",
        "20260131T120000-hog@-1",
        "20260131T120000-@a-1",
        "20260131T120000-a@b@c-1",
        "20261331T120000-hog-1",
        "20260131T120000-Hog-1",
        "20260131T120000-hog-1/../x",
    ],
)
def test_what_is_no_id(name: str) -> None:
    assert not is_dossier_id(name)
    with pytest.raises(DossierError, match="is no id of a dossier"):
        check_id(name)


def made(plugins: str) -> list[str]:
    """Return the ids of dossiers of these plugins, one letter each, the oldest first."""
    return [f"202601{day:02}T120000-{plugin}-1" for day, plugin in enumerate(plugins, 1)]


def plugins_of(ids: list[str]) -> str:
    return "".join(name.split("-")[1] for name in ids)


@pytest.mark.parametrize(
    ("plugins", "gone"),
    [
        ("", ""),
        ("a", ""),
        ("aaa", "aa"),
        ("baaa", "aab"),
        ("abab", "aba"),
        ("abbb", "bba"),
        ("cabbbab", "bbabca"),
        ("abc", "ab"),
    ],
)
def test_who_has_most_gives_first(plugins: str, gone: str) -> None:
    assert plugins_of(list(in_order_of_removal(made(plugins)))) == gone


def test_who_is_alike_by_the_beginning_of_its_name_is_another() -> None:
    ids = [f"202601{day:02}T120000-{name}-1" for day, name in enumerate(("a_b", "a", "a"), 1)]
    assert next(in_order_of_removal(ids)) == ids[1]


@given(st.text("abc", min_size=1, max_size=30))
def test_nobody_loses_one_who_has_less_than_another(plugins: str) -> None:
    ids = made(plugins)
    left = list(ids)
    for name in in_order_of_removal(ids):
        counts = Counter(plugins_of(left))
        plugin = plugins_of([name])
        assert counts[plugin] == max(counts.values())
        assert name == next(one for one in left if plugins_of([one]) == plugin)
        left.remove(name)
    assert left == ids[-1:]
