"""A plugin's life as a table: ``{state: {step: next state}}``. A missing key is a bug of ours."""

from __future__ import annotations

import enum
from typing import Final

from sandbox_host.errors import UsageError
from sandbox_host.model import State


class Step(enum.StrEnum):
    """What happens to a plugin."""

    START = "start"
    CONFINED = "confined"
    READY = "ready"
    DRAIN = "drain"
    ENDED = "ended"
    FAILED = "failed"


TABLE: Final[dict[State, dict[Step, State]]] = {
    State.ADMITTED: {Step.START: State.CONFINING, Step.FAILED: State.FAILED},
    State.CONFINING: {Step.CONFINED: State.STARTING, Step.FAILED: State.FAILED},
    State.STARTING: {Step.READY: State.READY, Step.FAILED: State.FAILED},
    State.READY: {Step.DRAIN: State.DRAINING, Step.FAILED: State.FAILED},
    State.DRAINING: {Step.ENDED: State.STOPPED, Step.FAILED: State.FAILED},
    State.STOPPED: {},
    State.FAILED: {},
}

ENDED: Final = frozenset({State.STOPPED, State.FAILED})
"""Nothing follows; the name may be loaded again."""


def advance(state: State, step: Step) -> State:
    """Return the state after ``step``.

    Raises:
        UsageError: the table has no such step from here.
    """
    after = TABLE[state].get(step)
    if after is None:
        text = f"a plugin that is {state} cannot take the step {step}"
        raise UsageError(text)
    return after
