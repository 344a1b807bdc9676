"""Why a process ended: what the host did first, else what the kernel says."""

from __future__ import annotations

import signal

import pytest

from sandbox_host.backends.base import Exit
from sandbox_host.model import Cause
from sandbox_host.runtime.causes import OUT_OF_MEMORY_STATUS, Ending, cause_of

LIFE = 100.0


@pytest.mark.parametrize("how", [Exit(0, None), Exit(None, 9), Exit(None, 11), Exit(None, None)])
def test_what_the_host_did_is_the_cause(how: Exit) -> None:
    ending = Ending(Cause.MEMORY, "too much")
    assert cause_of("sample", ending, how, LIFE) == (Cause.MEMORY, "too much")


@pytest.mark.parametrize(
    ("number", "cause", "told"),
    [
        (signal.SIGSYS, Cause.SYSCALL, "SIGSYS"),
        (signal.SIGXCPU, Cause.CPU, "RLIMIT_CPU"),
        (signal.SIGSEGV, Cause.CRASHED, "SIGSEGV"),
        (signal.SIGABRT, Cause.CRASHED, "SIGABRT"),
        (signal.SIGBUS, Cause.CRASHED, "SIGBUS"),
        (signal.SIGILL, Cause.CRASHED, "SIGILL"),
        (signal.SIGFPE, Cause.CRASHED, "SIGFPE"),
        (signal.SIGKILL, Cause.KILLED, "not by this host"),
        (signal.SIGTERM, Cause.KILLED, "SIGTERM"),
        (signal.SIGRTMIN + 1, Cause.KILLED, "signal 35"),
        (200, Cause.KILLED, "signal 200"),
    ],
)
def test_by_signal(number: int, cause: Cause, told: str) -> None:
    found, text = cause_of("sample", None, Exit(None, int(number)), LIFE)
    assert found is cause
    assert told in text
    assert text.startswith("sample ")


@pytest.mark.parametrize("code", [0, 1, 255])
def test_by_exit_status(code: int) -> None:
    cause, text = cause_of("sample", None, Exit(code, None), LIFE)
    assert cause is Cause.EXITED
    assert text == f"sample left by itself with exit status {code}."


def test_unknown() -> None:
    assert cause_of("sample", None, Exit(None, None), LIFE)[0] is Cause.UNKNOWN


def test_kernel_kills_at_the_hard_limit_of_cpu_time() -> None:
    spent, fresh = Exit(None, 9, cpu_seconds=LIFE), Exit(None, 9, cpu_seconds=LIFE - 1)
    assert cause_of("sample", None, spent, LIFE)[0] is Cause.CPU
    assert cause_of("sample", None, fresh, LIFE)[0] is Cause.KILLED


def test_child_that_says_it_has_no_memory_left() -> None:
    how = Exit(OUT_OF_MEMORY_STATUS, None)
    assert cause_of("sample", None, how, LIFE)[0] is Cause.MEMORY


@pytest.mark.parametrize(
    ("detail", "told"),
    [
        ("", "sample ended with its nursery, which somebody else ended: an operator, perhaps."),
        ("it was killed by signal 9", "sample ended with its nursery: it was killed by signal 9."),
    ],
)
def test_end_with_the_nursery(detail: str, told: str) -> None:
    how = Exit(None, None, with_nursery=True, detail=detail)
    assert cause_of("sample", None, how, LIFE) == (Cause.KILLED, told)
