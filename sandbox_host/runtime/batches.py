"""Many calls of one operation, a few hundred in each message: for what is quick and asked often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sandbox_host.errors import PluginError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

BATCH: Final = 500
"""Calls in one message. More of them save nothing more, and answer later."""

AHEAD: Final = 2
"""Messages that are with the plugin at a time: one is worked on, and the next is there already."""

One = tuple[Any, ...] | dict[str, Any]
"""The arguments of a call, or its keywords."""


def batches_of(calls: Iterable[Any]) -> list[tuple[One, ...]]:
    """Return the calls in batches, in their order.

    Args:
        calls: for each call its arguments, a tuple or list, or its keywords, a dict.

    Raises:
        UsageError: one of them is neither.
    """
    ones: list[One] = []
    for number, one in enumerate(calls):
        if type(one) is tuple or isinstance(one, dict):
            ones.append(one)
        elif isinstance(one, tuple | list):
            ones.append(tuple(one))
        else:
            text = f"Call {number} of call_many is {type(one).__name__}, not arguments."
            remedy = "Pass a tuple of arguments for each call, such as (1, 2) or (row,), or a dict."
            raise UsageError(text, remedy=remedy)
    return [tuple(ones[start : start + BATCH]) for start in range(0, len(ones), BATCH)]


def settled(outcomes: list[Any], *, return_errors: bool) -> list[Any]:
    """Return the outcomes, or raise the first error among them, with its number.

    Raises:
        PluginError: of the first call that failed, unless errors are returned.
    """
    if not return_errors:
        for number, one in enumerate(outcomes):
            if isinstance(one, PluginError):
                one.add_note(f"It was call {number} of {len(outcomes)}.")
                raise one
    return outcomes
