"""A dossier is a value that knows what to do next."""

from __future__ import annotations

import dataclasses

import pytest

from sandbox_host.model import Cause
from sandbox_host.observe.advice import limit_key, what_next
from sandbox_host.observe.dossier import Exceeded
from sandbox_host.terms import LIMIT_KEYS
from tests.support.dossier_examples import example


def test_it_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        example().cause = Cause.CPU  # type: ignore[misc]


def test_its_advice_is_about_its_budget() -> None:
    advice = example().advice
    assert advice == what_next(Cause.MEMORY, plugin="hog", operation="grow", budget="memory")
    assert advice[1].startswith("Let grow work in smaller pieces")
    assert '"limits": {"memory": …} in its plugin.json' in advice[-1]
    files = example(excess=Exceeded("data_files", 9, 10, "files"), cause=Cause.DISK).advice
    assert '"limits": {"data_files": …}' in files[-1]


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_advice(cause: Cause) -> None:
    advice = what_next(cause, plugin="hog")
    assert advice
    assert (advice != what_next(Cause.UNKNOWN, plugin="hog")) == (cause is not Cause.UNKNOWN)
    for text in advice:
        assert text.endswith((".", "?"))
        assert not {"{", "}"} & set(text.replace("{}", "").replace('{"', "").replace("…}", ""))
        assert "  " not in text


@pytest.mark.parametrize(
    ("budget", "cause", "key"),
    [
        ("memory", Cause.MEMORY, "memory"),
        ("", Cause.MEMORY, "memory"),
        ("cpu", Cause.CPU, "cpu_time"),
        ("cpu_per_minute", Cause.CPU, "cpu_time_per_minute"),
        ("", Cause.CPU, "cpu_total"),
        ("", Cause.DEADLINE, "wall_time"),
        ("something new", Cause.CPU, ""),
        ("", Cause.CRASHED, ""),
        ("", None, ""),
    ],
)
def test_how_plugin_json_calls_a_budget(budget: str, cause: Cause | None, key: str) -> None:
    assert limit_key(budget, cause) == key


@pytest.mark.parametrize("key", LIMIT_KEYS, ids=lambda key: key.key)
def test_every_limit_is_known_by_both_of_its_names(key) -> None:
    assert limit_key(key.key) == limit_key(key.field) == key.key


def test_the_operators_own_limit_is_raised_by_the_operator() -> None:
    advice = what_next(Cause.CPU, plugin="hog", budget="cpu_total_seconds")
    assert "raise cpu_total in [limits]" in advice[-1]
    assert "plugin.json" not in advice[-1]


def test_a_budget_without_a_key_has_no_advice_to_raise_it() -> None:
    advice = what_next(Cause.CPU, plugin="hog", budget="something new")
    assert not any("raise" in text for text in advice)
    assert "Let the plugin do less at once" in advice[1]
