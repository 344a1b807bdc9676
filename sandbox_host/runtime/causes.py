"""Tells why a process ended: from what the host did first, else from what the kernel says."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sandbox_host.model import Cause

if TYPE_CHECKING:
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
    if how.out_of_memory:
        text = f"{plugin} reached the memory limit of its control group, and the kernel ended it."
        return Cause.MEMORY, text
    if how.with_nursery:
        known = (
            f": {how.detail}" if how.detail else ", which somebody else ended: an operator, perhaps"
        )
        return Cause.KILLED, f"{plugin} ended with its nursery{known}."
    if how.signal == signal.SIGKILL and how.cpu_seconds >= cpu_total_seconds:
        return _by_signal(plugin, signal.SIGXCPU)
    if how.signal is not None:
        return _by_signal(plugin, how.signal)
    if how.code == OUT_OF_MEMORY_STATUS:
        return Cause.MEMORY, f"{plugin} kept all its memory and could not go on."
    if how.code is not None:
        return Cause.EXITED, f"{plugin} left by itself with exit status {how.code}."
    return Cause.UNKNOWN, f"{plugin} ended, and somebody else collected its exit status."


def _by_signal(plugin: str, number: int) -> tuple[Cause, str]:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number == signal.SIGSYS:
        return Cause.SYSCALL, f"{plugin} made a system call that ends a process ({name})."
    if number == signal.SIGXCPU:
        return Cause.CPU, f"{plugin} used up the CPU time of its whole life (RLIMIT_CPU)."
    if number in _CRASHES:
        return Cause.CRASHED, f"{plugin} crashed with {name}."
    if number == signal.SIGKILL:
        text = f"{plugin} was killed by {name}, and not by this host: an operator, or the kernel."
        return Cause.KILLED, text
    text = f"{plugin} was ended by {name}, which this host did not send: itself, or an operator."
    return Cause.KILLED, text
