"""What no call with any arguments does, in the filter of a plugin that may start processes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.backends.linux.seccomp import ALLOW, ARCHITECTURES, build_filter, rules
from tests.support.bpf_simulator import Call, run

WORD = 2**32 - 1
SIGCHLD, SIGCONT, SIGSTOP, SIGKILL = 17, 18, 19, 9
NAMESPACES = 0x7E02_0000
THREAD = 0x1_0000
OWN = (0, 1, 2, 3, 6, 10, 12, 13, 14, 15, 17, 23, 28, 32)

PROGRAMS = {
    (architecture.name, threads): build_filter(
        architecture,
        rules(
            own_pid=1,
            native_code=False,
            truncate_by_path=True,
            own_root=True,
            threads=threads,
            processes=True,
        ),
        processes=True,
    )
    for architecture in ARCHITECTURES.values()
    for threads in (False, True)
}
filters = st.sampled_from(sorted(PROGRAMS))
words = st.integers(0, 2**64 - 1)
# One flag more or less than what is allowed, beside anything at all.
allowed = st.sampled_from([SIGCHLD, 0x4111, 0x3D_0F00, 0x120_0011])
flags = st.one_of(
    words, st.builds(lambda value, bit: value ^ (1 << bit), allowed, st.integers(0, 40))
)


def passes(which: tuple[str, bool], name: str, *arguments: int) -> bool:
    architecture = ARCHITECTURES[which[0]]
    call = Call(architecture.numbers[name], architecture.audit, arguments)
    return run(PROGRAMS[which], call) == ALLOW


@given(filters, flags)
def test_what_is_cloned_is_a_plain_fork_or_a_thread(which: tuple[str, bool], value: int) -> None:
    if passes(which, "clone", value):
        assert not value & NAMESPACES
        if value & THREAD:
            assert which[1]
        else:
            assert value & 0xFF == SIGCHLD
            # Shared with the parent: nothing, or the memory while the parent waits.
            assert value & WORD & ~0x130_0000 in {SIGCHLD, SIGCHLD | 0x4100}


@given(filters, words, st.one_of(words, st.integers(0, 64)))
def test_signals(which: tuple[str, bool], pid: int, number: int) -> None:
    low_pid, low_number = pid & WORD, number & WORD
    expected = low_number in OWN if low_pid == 1 else low_number != SIGCONT
    assert passes(which, "kill", pid, number) is expected
    assert passes(which, "tgkill", pid, 7, number) is expected


@given(filters, words)
def test_none_stops_or_kills_process_1_and_none_continues_any(
    which: tuple[str, bool], pid: int
) -> None:
    assert not passes(which, "kill", pid, SIGCONT)
    for number in (SIGKILL, SIGSTOP):
        assert passes(which, "kill", pid, number) is (pid & WORD != 1)
