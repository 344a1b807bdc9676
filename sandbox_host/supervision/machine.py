"""A state machine as data: ``{state: {trigger: next state}}``. A missing key is a bug of ours."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from sandbox_host.errors import UsageError

if TYPE_CHECKING:
    from enum import StrEnum

S = TypeVar("S", bound="StrEnum")
T = TypeVar("T", bound="StrEnum")

Table = Mapping[S, Mapping[T, S]]
"""Every state is a key; what is not in its row cannot happen there."""


def frozen_table(table: Mapping[S, Mapping[T, S]]) -> Table[S, T]:
    """Return a table that nobody changes."""
    return MappingProxyType({state: MappingProxyType(dict(row)) for state, row in table.items()})


def advance(table: Table[S, T], state: S, trigger: T, what: str) -> S:
    """Return the state after a trigger.

    Args:
        table: of all states.
        state: the present one.
        trigger: what happened.
        what: of whom the table is, for the error: "a plugin".

    Raises:
        UsageError: the table has no such trigger in this state.
    """
    after = table[state].get(trigger)
    if after is None:
        text = f"{what} that is {state} cannot take the step {trigger}"
        raise UsageError(text)
    return after
