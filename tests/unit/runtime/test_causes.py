"""Why a process ended: what the host did first, else what the kernel says."""

from __future__ import annotations

import itertools
import signal

import pytest

from sandbox_host.backends.base import Exit, OutOfMemory
from sandbox_host.model import Cause
from sandbox_host.runtime.causes import OUT_OF_MEMORY_STATUS, Ending, cause_of

LIFE = 100.0
SIGNALS = (None, *sorted(signal.valid_signals()), 200)
CODES = (None, 0, 1, OUT_OF_MEMORY_STATUS, 255)
# Every account that the kernel can give of an end, and some that it cannot.
EXITS = [
    Exit(code, number, cpu, 0, lack, with_nursery, detail)
    for code, number, cpu, lack, with_nursery, detail in itertools.product(
        CODES, SIGNALS, (0.0, LIFE), OutOfMemory, (False, True), ("", "it was killed by signal 9")
    )
    if code is None or number is None
]


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


@pytest.mark.parametrize(
    ("lack", "cause", "told"),
    [
        (OutOfMemory.NO, Cause.KILLED, "nor for want of memory"),
        (OutOfMemory.OWN_LIMIT, Cause.MEMORY, "reached the memory limit of its control group"),
        (OutOfMemory.ABOVE, Cause.KILLED, "the machine, or a control group above its own"),
        (OutOfMemory.UNTOLD, Cause.UNKNOWN, "this kernel does not tell which"),
    ],
    ids=[lack.value for lack in OutOfMemory],
)
def test_kill_for_want_of_memory(lack: OutOfMemory, cause: Cause, told: str) -> None:
    found, text = cause_of("sample", None, Exit(None, 9, out_of_memory=lack), LIFE)
    assert found is cause
    assert told in text


# -- over all that can be told ----------------------------------------------------------------


def test_memory_takes_the_kernels_word_or_the_plugins_own() -> None:
    """Neither a SIGKILL, nor a shortage of somebody else's memory, is ever called that."""
    blamed = [how for how in EXITS if cause_of("sample", None, how, LIFE)[0] is Cause.MEMORY]
    assert blamed
    for how in blamed:
        own_word = how.code == OUT_OF_MEMORY_STATUS and how.out_of_memory is OutOfMemory.NO
        assert how.out_of_memory is OutOfMemory.OWN_LIMIT or own_word, how


def test_unknown_is_only_what_nobody_tells() -> None:
    for how in EXITS:
        nobody_tells = (how.code, how.signal, how.with_nursery) == (None, None, False)
        wanted = how.out_of_memory is OutOfMemory.UNTOLD or (
            nobody_tells and how.out_of_memory is OutOfMemory.NO
        )
        assert (cause_of("sample", None, how, LIFE)[0] is Cause.UNKNOWN) is wanted, how


def test_no_end_is_called_something_that_only_a_host_does() -> None:
    by_kernel = {Cause.MEMORY, Cause.KILLED, Cause.UNKNOWN, Cause.CPU, Cause.SYSCALL}
    found = {cause_of("sample", None, how, LIFE)[0] for how in EXITS}
    assert found == by_kernel | {Cause.CRASHED, Cause.EXITED}


def test_every_text_is_one_sentence_or_two_about_the_plugin() -> None:
    for how in EXITS:
        _, text = cause_of("sample", None, how, LIFE)
        assert text.startswith("sample ")
        assert text.endswith(".")
        assert not set("{}\n") & set(text)
