from __future__ import annotations

from itertools import product

import pytest

from plugin_sdk.wire.message import HOST, PLUGIN, Message
from plugin_sdk.wire.messages import (
    MESSAGES,
    Call,
    Confine,
    Confined,
    Failed,
    Load,
    Publish,
    Ready,
    Result,
    Stop,
    Stopped,
)
from plugin_sdk.wire.state import (
    CLOSED,
    CONFINED,
    CONFINING,
    LOADING,
    NEW,
    RUNNING,
    STOPPING,
    TABLE,
)

STATES = (NEW, CONFINING, CONFINED, LOADING, RUNNING, STOPPING, CLOSED)


def next_state(state: str, message: type[Message]) -> str | None:
    return TABLE[message.sender].get(state, {}).get(message)


def after(*messages: type[Message]) -> str | None:
    state: str | None = NEW
    for message in messages:
        assert state is not None
        state = next_state(state, message)
    return state


def test_a_whole_life() -> None:
    start = (Confine, Confined, Load, Publish, Ready)
    assert after(*start) == RUNNING
    assert after(*start, Call, Publish, Result, Stop) == STOPPING
    assert after(*start, Call, Stop, Publish, Result, Stopped) == CLOSED


def test_a_failed_start_closes() -> None:
    assert after(Confine, Failed) == CLOSED
    assert after(Confine, Confined, Load, Failed) == CLOSED


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (NEW, Load),
        (CONFINING, Load),
        (CONFINING, Ready),
        (CONFINED, Ready),
        (CONFINED, Publish),
        (LOADING, Call),
        (LOADING, Result),
        (RUNNING, Confine),
        (RUNNING, Load),
        (RUNNING, Stopped),
        (RUNNING, Failed),
        (STOPPING, Call),
        (STOPPING, Stop),
    ],
)
def test_what_the_table_leaves_out(state: str, message: type[Message]) -> None:
    assert next_state(state, message) is None


def test_nothing_leaves_the_end_and_nothing_but_the_end_is_a_dead_end() -> None:
    for state, message in product(STATES, MESSAGES.values()):
        if state == CLOSED:
            assert next_state(state, message) is None
    for state in STATES[:-1]:
        assert any(next_state(state, message) for message in MESSAGES.values())


def test_the_table_names_only_known_states_and_each_message_under_its_sender() -> None:
    assert set(TABLE) == {HOST, PLUGIN}
    used: set[type[Message]] = set()
    for sender, rows in TABLE.items():
        for state, row in rows.items():
            assert state in STATES
            assert set(row.values()) <= set(STATES)
            assert all(message.sender == sender for message in row)
            used |= set(row)
    assert used == set(MESSAGES.values())
