"""What the journal is told of a new version on its way."""

from __future__ import annotations

import pytest

from sandbox_host.errors import HeldError, ReloadError
from sandbox_host.runtime.updates import Update
from sandbox_host.supervision.rollout import RolloutState

UP = ("starting", "started", "probed", "swapped", "drained")


def told_of(steps: int, error: BaseException | None = None) -> tuple[list[str], RolloutState]:
    lines: list[tuple[str, str, str]] = []
    update = Update("a", lambda *line: lines.append(line))
    try:
        with update:
            for name in UP[:steps]:
                getattr(update, name)(*(["2.0"] if name == "starting" else []))
            if error is not None:
                raise error
    except type(error or OSError):
        pass
    assert {plugin for _, plugin, _ in lines} <= {"a"}
    return [event for event, *_ in lines], update.state


def test_all_the_way() -> None:
    assert told_of(5) == (
        ["update_starting", "update_started", "update_probed", "update_swapped", "update_done"],
        RolloutState.DONE,
    )


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_what_fails_before_the_swap_is_abandoned(steps: int) -> None:
    lines, state = told_of(steps, ReloadError("it is unhealthy", plugin="a"))
    assert state is RolloutState.ABANDONED
    assert lines[steps:] == ["update_abandoned"]


def test_what_fails_after_it_is_not() -> None:
    lines, state = told_of(4, ReloadError("late", plugin="a"))
    assert state is RolloutState.SWAPPED
    assert lines[-1] == "update_swapped"


def test_what_asks_for_more_is_held() -> None:
    lines, state = told_of(0, HeldError("more", plugin="a", changes=("network",)))
    assert (lines, state) == (["update_held"], RolloutState.HELD)
