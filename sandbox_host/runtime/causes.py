"""Tells why a process ended: from what the host did first, else from what the kernel says."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from sandbox_host.backends.base import OutOfMemory
from sandbox_host.model import Cause

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox_host.backends.base import Exit
    from sandbox_host.budget.enforce import Excess

OUT_OF_MEMORY_STATUS: Final = 74
"""Exit status of a child that has no memory left between two operations; the plugin's word."""

_CRASHES: Final = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP}
)


@dataclass(frozen=True, slots=True)
class Ending:
    """Why the host ended a plugin: recorded before the signal is sent.

    Attributes:
        text: one sentence for the operator.
        excess: the budget that was exceeded, or None.
    """

    cause: Cause
    text: str
    excess: Excess | None = None


class _End(NamedTuple):
    """An end that was not the host's doing: what the kernel says, and what it says it about."""

    how: Exit
    cpu_total_seconds: float


class _Rule(NamedTuple):
    """What follows from what the kernel says; ``text`` has fields for what it is told of."""

    holds: Callable[[_End], bool]
    cause: Cause
    text: str


_RULES: Final = (
    # The kernel's own counts come first: they name the killer, which a signal does not.
    _Rule(
        lambda end: end.how.out_of_memory is OutOfMemory.OWN_LIMIT,
        Cause.MEMORY,
        "{plugin} reached the memory limit of its control group, and the kernel ended it.",
    ),
    _Rule(
        lambda end: end.how.out_of_memory is OutOfMemory.ABOVE,
        Cause.KILLED,
        "{plugin} was chosen by the kernel to be killed: the machine, or a control group above its "
        "own, ran out of memory.",
    ),
    _Rule(
        lambda end: end.how.out_of_memory is OutOfMemory.UNTOLD,
        Cause.UNKNOWN,
        "{plugin} was killed by the kernel for want of memory: its control group's, whose limit it "
        "had come near, or the machine's; this kernel does not tell which.",
    ),
    _Rule(
        lambda end: end.how.with_nursery and bool(end.how.detail),
        Cause.KILLED,
        "{plugin} ended with its nursery: {detail}.",
    ),
    _Rule(
        lambda end: end.how.with_nursery,
        Cause.KILLED,
        "{plugin} ended with its nursery, which somebody else ended: an operator, perhaps.",
    ),
    # Soft and hard limit are one, so that the kernel sends SIGKILL at once.
    _Rule(
        lambda end: (
            end.how.signal == signal.SIGXCPU
            or (end.how.signal == signal.SIGKILL and end.how.cpu_seconds >= end.cpu_total_seconds)
        ),
        Cause.CPU,
        "{plugin} used up the CPU time of its whole life (RLIMIT_CPU).",
    ),
    _Rule(
        lambda end: end.how.signal == signal.SIGSYS,
        Cause.SYSCALL,
        "{plugin} made a system call that ends a process ({signal}).",
    ),
    _Rule(
        lambda end: end.how.signal in _CRASHES,
        Cause.CRASHED,
        "{plugin} crashed with {signal}.",
    ),
    _Rule(
        lambda end: end.how.signal == signal.SIGKILL,
        Cause.KILLED,
        "{plugin} was killed by {signal}, and not by this host, nor for want of memory: by an "
        "operator, perhaps.",
    ),
    _Rule(
        lambda end: end.how.signal is not None,
        Cause.KILLED,
        "{plugin} was ended by {signal}, which this host did not send: itself, or an operator.",
    ),
    _Rule(
        lambda end: end.how.code == OUT_OF_MEMORY_STATUS,
        Cause.MEMORY,
        "{plugin} said that it has no memory left and cannot go on (exit status {code}).",
    ),
    _Rule(
        lambda end: end.how.code is not None,
        Cause.EXITED,
        "{plugin} left by itself with exit status {code}.",
    ),
    _Rule(
        lambda end: True,  # noqa: ARG005 - the last word
        Cause.UNKNOWN,
        "{plugin} ended, and somebody else collected its exit status.",
    ),
)
"""The first that holds is the one; the last always does."""


def cause_of(
    plugin: str, ending: Ending | None, how: Exit, cpu_total_seconds: float
) -> tuple[Cause, str]:
    """Return the one true cause and a sentence that says it.

    Args:
        plugin: its identity.
        ending: what the host did, or None.
        how: what the kernel says.
        cpu_total_seconds: at which the kernel ends it by SIGKILL, soft and hard limit being one.
    """
    if ending is not None:
        return ending.cause, ending.text
    end = _End(how, cpu_total_seconds)
    rule = next(rule for rule in _RULES if rule.holds(end))
    name = _name_of(how.signal) if how.signal is not None else ""
    return rule.cause, rule.text.format(
        plugin=plugin, signal=name, code=how.code, detail=how.detail
    )


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
