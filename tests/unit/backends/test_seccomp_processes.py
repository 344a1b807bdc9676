"""The filter of a plugin that may start processes, in a simulator: what it opens, and no more."""

from __future__ import annotations

import errno
import signal

import pytest

from sandbox_host.backends.linux.seccomp import (
    ALLOW,
    ARCHITECTURES,
    Architecture,
    build_filter,
    rules,
)
from tests.support.bpf_simulator import Call, run, verify

PID = 1
EPERM, ENOSYS = (0x5_0000 | number for number in (errno.EPERM, errno.ENOSYS))
THREAD, HIGH = 0x3D_0F00, 0xDEAD_BEEF << 32
SIGCHLD, VFORK = 17, 0x4111


class Policy:
    """One architecture's filter."""

    def __init__(self, name: str, *, threads: bool = True) -> None:
        self.architecture: Architecture = ARCHITECTURES[name]
        by_argument = rules(
            own_pid=PID,
            native_code=False,
            truncate_by_path=True,
            own_root=True,
            threads=threads,
            processes=True,
        )
        self.program = build_filter(self.architecture, by_argument, processes=True)
        verify(self.program)

    def __call__(self, name: str, *arguments: int) -> int:
        """Return what the filter says to a call by name."""
        numbers = self.architecture.numbers | self.architecture.processes
        return run(self.program, Call(numbers[name], self.architecture.audit, arguments))


@pytest.fixture(params=sorted(ARCHITECTURES), scope="module")
def policy(request: pytest.FixtureRequest) -> Policy:
    return Policy(request.param)


def test_what_is_added(policy: Policy) -> None:
    added = policy.architecture.processes
    assert not set(added) & set(policy.architecture.numbers)
    assert set(added) <= {"fork", "vfork", "execve", "setsid", "setpgid"}
    assert {policy(name) for name in added} == {ALLOW}


def test_forks_have_numbers_of_their_own_where_there_are_old_calls() -> None:
    assert {"fork", "vfork"} <= set(ARCHITECTURES["x86_64"].processes)
    assert not {"fork", "vfork"} & set(ARCHITECTURES["aarch64"].processes)


@pytest.mark.parametrize(
    ("flags", "verdict"),
    [
        (SIGCHLD, ALLOW),
        (SIGCHLD | 0x120_0000, ALLOW),  # CHILD_SETTID and CHILD_CLEARTID, as a C library forks
        (SIGCHLD | 0x130_0000 | HIGH, ALLOW),
        (VFORK, ALLOW),
        (THREAD, ALLOW),
        (0, EPERM),  # its parent would hear nothing of its end
        (18, EPERM),  # SIGCONT, for its parent, when it ends
        (SIGCHLD | 0x100, EPERM),  # shares memory, and runs at the same time
        (SIGCHLD | 0x400, EPERM),  # shares descriptors
        (SIGCHLD | 0x1000, EPERM),  # CLONE_PIDFD
        (SIGCHLD | 0x2000, EPERM),  # CLONE_PTRACE
        (SIGCHLD | 0x8000, EPERM),  # CLONE_PARENT
        *[(SIGCHLD | flag, EPERM) for flag in (0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000)],
        *[(SIGCHLD | flag, EPERM) for flag in (0x1000_0000, 0x2000_0000, 0x4000_0000)],
        (VFORK | 0x1000_0000, EPERM),
        (THREAD | 0x1000_0000, EPERM),
    ],
)
def test_clone(policy: Policy, flags: int, verdict: int) -> None:
    assert policy("clone", flags) == verdict


def test_clone3_is_not_there(policy: Policy) -> None:
    assert policy("clone3", 1, 88) == ENOSYS


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_threads_are_another_permission(name: str) -> None:
    policy = Policy(name, threads=False)
    assert policy("clone", THREAD) == EPERM
    assert policy("clone", SIGCHLD) == ALLOW


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, 0])
@pytest.mark.parametrize("pid", [2, 40_000, 0, -1, -2])
def test_others_of_the_namespace_are_signalled(policy: Policy, pid: int, number: int) -> None:
    assert policy("kill", pid, number) == ALLOW
    assert policy("tgkill", pid, pid, number) == ALLOW


@pytest.mark.parametrize("number", [9, 19, 24, 31, 11, 7, 4, 33, 64])
def test_none_tells_a_false_cause(policy: Policy, number: int) -> None:
    assert policy("kill", PID, number) == EPERM
    assert policy("kill", PID | HIGH, number) == EPERM
    assert policy("tgkill", PID, PID, number) == EPERM


@pytest.mark.parametrize("number", [0, 2, 6, 10, 12, 15])
def test_it_signals_itself_as_any_plugin_does(policy: Policy, number: int) -> None:
    assert policy("kill", PID, number) == ALLOW


@pytest.mark.parametrize("pid", [PID, 2, 0, -1, -2])
def test_nobody_is_continued(policy: Policy, pid: int) -> None:
    assert policy("kill", pid, signal.SIGCONT) == EPERM
    assert policy("kill", pid, HIGH | signal.SIGCONT) == EPERM
    assert policy("tgkill", pid, pid, signal.SIGCONT) == EPERM


def test_nothing_else_differs() -> None:
    for architecture in ARCHITECTURES.values():
        known = set(architecture.numbers.values()) | set(architecture.processes.values())
        program = Policy(architecture.name).program
        others = [number for number in range(600) if number not in known]
        assert {run(program, Call(n, architecture.audit)) for n in others} == {EPERM}
