"""The policy, decided by the compiled filter in a simulator: no kernel of either kind is needed."""

from __future__ import annotations

import errno
import signal
from typing import Any

import pytest

from sandbox_host.backends.linux.seccomp import ALLOW, ARCHITECTURES, KILL, build_filter, rules
from sandbox_host.selftest.collection.native import NUMBERS
from tests.support.bpf_simulator import Call, run, run_counting, verify

PID = 4_321
EPERM, ENOSYS, ENOTTY = (0x5_0000 | number for number in (errno.EPERM, errno.ENOSYS, errno.ENOTTY))
PLAIN = {"own_pid": PID, "native_code": False, "truncate_by_path": True}


class Policy:
    """One architecture's filter."""

    def __init__(self, name: str, **options: Any) -> None:
        self.architecture = ARCHITECTURES[name]
        self.rules = rules(**PLAIN | options)
        self.program = build_filter(self.architecture, self.rules)
        verify(self.program)

    def __call__(self, name: str, *arguments: int) -> int:
        """Return what the filter says to a call by name."""
        number = self.architecture.numbers[name]
        return run(self.program, Call(number, self.architecture.audit, arguments))

    def number(self, number: int) -> int:
        return run(self.program, Call(number, self.architecture.audit))


@pytest.fixture(params=sorted(ARCHITECTURES), scope="module")
def policy(request: pytest.FixtureRequest) -> Policy:
    return Policy(request.param)


def test_every_listed_call_without_a_rule_is_allowed(policy: Policy) -> None:
    names = set(policy.architecture.numbers) - set(policy.rules)
    assert len(names) > 100
    assert {name for name in names if policy(name, *[2**64 - 1] * 6) != ALLOW} == set()


def test_every_other_number_is_refused(policy: Policy) -> None:
    listed = set(policy.architecture.numbers.values())
    others = [n for n in range(600) if n not in listed]
    assert {policy.number(n) for n in others} == {EPERM}
    assert {policy.number(n) for n in (0x3FFF_FFFF, 1_000, 2_048)} == {EPERM}


def test_numbers_are_distinct(policy: Policy) -> None:
    numbers = policy.architecture.numbers
    assert len(set(numbers.values())) == len(numbers)


def test_other_instruction_sets_end_the_process(policy: Policy) -> None:
    for audit in {0x4000_0003, 0x4000_0028, 0xC000_003E, 0xC000_00B7, 0, 2**32 - 1}:
        if audit != policy.architecture.audit:
            assert {run(policy.program, Call(n, audit)) for n in range(450)} == {KILL}


@pytest.mark.parametrize("number", [0x4000_0000, 0x4000_0001, 0x4000_0000 + 59, 2**32 - 1])
def test_x32_numbers_end_the_process(policy: Policy, number: int) -> None:
    assert policy.number(number) == KILL


NOTHING_FOR_PLUGINS = sorted(set(NUMBERS) - {"clone", "clone3", "fallocate", "getxattr"})
ATTRIBUTE_CALLS = ("getxattr", "lgetxattr", "listxattr", "llistxattr")


@pytest.mark.parametrize("name", NOTHING_FOR_PLUGINS)
def test_calls_that_attacks_use_are_not_listed(policy: Policy, name: str) -> None:
    assert policy.number(NUMBERS[name][policy.architecture.name]) == EPERM


def test_programs_and_sockets_are_not_listed(policy: Policy) -> None:
    forbidden = {
        *("execve", "execveat", "fork", "vfork", "socket", "connect", "bind", "listen", "accept"),
        *("sendmsg", "recvmsg", "setxattr"),
        *(
            "accept4",
            "removexattr",
            "ptrace",
            "mount",
            "setuid",
            "setrlimit",
            "sendmmsg",
            "recvmmsg",
            "tkill",
        ),
    }
    assert not forbidden & set(policy.architecture.numbers)


# -- by argument --------------------------------------------------------------------------------

THREAD = 0x3D_0F00
HIGH = 0xDEAD_BEEF << 32


@pytest.mark.parametrize(
    ("flags", "verdict"),
    [
        (THREAD, ALLOW),
        (THREAD | 0x40_0000, ALLOW),
        (THREAD | HIGH, ALLOW),
        (17, EPERM),
        (0, EPERM),
        (THREAD & ~0x1_0000, EPERM),  # without CLONE_THREAD
        (THREAD | 0x1000_0000, EPERM),  # with CLONE_NEWUSER
        (THREAD | 0x2_0000, EPERM),  # with CLONE_NEWNS
        (THREAD | 0x2000, EPERM),  # with CLONE_PTRACE
        (THREAD | 17, EPERM),
        (0x4111, EPERM),  # vfork's
        (2**64 - 1, EPERM),
    ],
)
def test_clone_makes_threads_only(policy: Policy, flags: int, verdict: int) -> None:
    assert policy("clone", flags) == verdict


def test_clone3_is_not_there(policy: Policy) -> None:
    assert policy("clone3", 1, 88) == ENOSYS


@pytest.mark.parametrize(
    ("pid", "verdict"),
    [(PID, ALLOW), (PID | HIGH, ALLOW), (0, EPERM), (1, EPERM), (-1, EPERM), (-PID, EPERM)],
)
def test_signals_go_to_itself_only(policy: Policy, pid: int, verdict: int) -> None:
    assert policy("kill", pid, signal.SIGTERM) == verdict
    assert policy("tgkill", pid, PID, signal.SIGTERM) == verdict


@pytest.mark.parametrize("number", [9, 19, 24, 31, 11, 7, 4, 33, 64])
def test_signals_that_would_tell_a_false_cause(policy: Policy, number: int) -> None:
    assert policy("kill", PID, number) == EPERM
    assert policy("tgkill", PID, PID, number) == EPERM


def test_signals_that_programs_send_themselves(policy: Policy) -> None:
    for number in (0, signal.SIGINT, signal.SIGABRT, signal.SIGALRM, signal.SIGUSR1, 32):
        assert policy("tgkill", PID, PID, number) == ALLOW


def test_reserving_beyond_the_size_of_a_file(policy: Policy) -> None:
    assert policy("fallocate", 3, 0, 0, 1 << 40) == ALLOW  # RLIMIT_FSIZE looks at it
    for mode in (1, 2, 3, 0x10):
        assert policy("fallocate", 3, mode, 0, 1 << 40) == EPERM


@pytest.mark.parametrize(
    ("domain", "kind", "verdict"),
    [
        (1, 1, ALLOW),
        (1, 1 | 0o2004000, ALLOW),  # SOCK_CLOEXEC | SOCK_NONBLOCK
        (1, 2, EPERM),  # datagrams
        (1, 5, EPERM),  # sequenced packets
        (2, 1, EPERM),
        (16, 1, EPERM),
        (HIGH | 1, HIGH | 1, ALLOW),
    ],
)
def test_socketpair(policy: Policy, domain: int, kind: int, verdict: int) -> None:
    assert policy("socketpair", domain, kind, 0) == verdict


@pytest.mark.parametrize(
    ("address", "verdict"), [(0, ALLOW), (1, EPERM), (1 << 32, EPERM), (0x7FFF_0000_0000, EPERM)]
)
def test_sendto_names_nobody(policy: Policy, address: int, verdict: int) -> None:
    assert policy("sendto", 3, 0x1000, 5, 0, address, 110) == verdict


@pytest.mark.parametrize(
    ("level", "option", "verdict"),
    [
        *[(1, 9, ALLOW), (1, 20, ALLOW)],
        *[(1, 7, EPERM), (1, 8, EPERM), (1, 32, EPERM), (1, 33, EPERM)],  # sizes of buffers
        *[(1, 26, EPERM), (1, 50, EPERM), (6, 9, EPERM), (0, 2, EPERM)],
    ],
)
def test_setsockopt(policy: Policy, level: int, option: int, verdict: int) -> None:
    assert policy("setsockopt", 3, level, option) == verdict


@pytest.mark.parametrize(
    ("pid", "new", "verdict"),
    [(0, 0, ALLOW), (PID, 0, EPERM), (1, 0, EPERM), (0, 1, EPERM), (0, 1 << 32, EPERM)],
)
def test_limits_are_only_read(policy: Policy, pid: int, new: int, verdict: int) -> None:
    assert policy("prlimit64", pid, 7, new, 0x1000) == verdict


@pytest.mark.parametrize("option", [2, 3, 15, 16, 21, 23, 27, 39])
def test_prctl_that_reads_or_names(policy: Policy, option: int) -> None:
    assert policy("prctl", option) == ALLOW


@pytest.mark.parametrize("option", [1, 4, 8, 22, 24, 28, 31, 35, 36, 38, 47, 53, 0x5961_6D61])
def test_prctl_that_changes(policy: Policy, option: int) -> None:
    assert policy("prctl", option) == EPERM


@pytest.mark.parametrize("request_", [0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451])
def test_ioctl_that_python_needs(policy: Policy, request_: int) -> None:
    assert policy("ioctl", 0, request_) == ALLOW
    assert policy("ioctl", 0, request_ | HIGH) == ALLOW


@pytest.mark.parametrize("request_", [0x5412, 0x541C, 0x5452, 0x8901, 0x8902, 0x4004_6602, 0])
def test_ioctl_that_it_does_not(policy: Policy, request_: int) -> None:
    # With any upper half: the kernel looks at 32 bits, CVE-2017-5226 and CVE-2019-7303.
    assert policy("ioctl", 0, request_) == ENOTTY
    assert policy("ioctl", 0, request_ | 1 << 32) == ENOTTY


@pytest.mark.parametrize("command", [0, 1, 2, 3, 4, 1030])
def test_fcntl_that_python_needs(policy: Policy, command: int) -> None:
    assert policy("fcntl", 3, command) == ALLOW


@pytest.mark.parametrize("command", [8, 10, 15, 1024, 1026, 1031])
def test_fcntl_that_reaches_others(policy: Policy, command: int) -> None:
    assert policy("fcntl", 3, command) == EPERM


READ, WRITE, EXECUTE = 1, 2, 4
PRIVATE, SHARED, ANONYMOUS = 2, 1, 0x20


@pytest.mark.parametrize(
    ("protection", "flags", "verdict"),
    [
        (READ | WRITE, PRIVATE | ANONYMOUS, ALLOW),
        (READ | WRITE, SHARED, ALLOW),
        (READ | WRITE, SHARED | ANONYMOUS, EPERM),  # outlives MADV_DONTNEED, unseen
        (READ | WRITE, 3 | ANONYMOUS, EPERM),  # MAP_SHARED_VALIDATE
        (READ | EXECUTE, PRIVATE, ALLOW),
        (READ | WRITE | EXECUTE, PRIVATE, EPERM),
        (WRITE | EXECUTE, SHARED, EPERM),
        (EXECUTE, PRIVATE | ANONYMOUS, EPERM),
        (READ | EXECUTE, SHARED | ANONYMOUS, EPERM),
        (READ | WRITE | EXECUTE, PRIVATE | ANONYMOUS, EPERM),
        (READ | EXECUTE | 0x0100_0000, PRIVATE | ANONYMOUS, EPERM),
    ],
)
def test_mmap(policy: Policy, protection: int, flags: int, verdict: int) -> None:
    assert policy("mmap", 0, 4_096, protection, flags) == verdict


@pytest.mark.parametrize(
    ("protection", "verdict"), [(READ, ALLOW), (READ | WRITE, ALLOW), (5, EPERM), (7, EPERM)]
)
def test_mprotect(policy: Policy, protection: int, verdict: int) -> None:
    assert policy("mprotect", 0x1000, 4_096, protection) == verdict


OWNERSHIP = (
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat"),
    *("utime", "utimes", "utimensat", "futimesat"),
)


@pytest.mark.parametrize("name", OWNERSHIP)
def test_owner_mode_and_times_of_files(policy: Policy, name: str) -> None:
    if name in policy.architecture.numbers:
        assert policy(name) == EPERM
    else:
        assert policy.architecture.name == "aarch64"


# -- by the plan --------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_native_code_granted(architecture: str) -> None:
    policy = Policy(architecture, native_code=True)
    assert policy("mmap", 0, 4_096, 7, PRIVATE | ANONYMOUS) == ALLOW
    assert policy("mmap", 0, 4_096, 3, SHARED | ANONYMOUS) == EPERM
    assert policy("mprotect", 0, 4_096, 7) == ALLOW
    assert policy("clone", 17) == EPERM


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_truncation_where_landlock_does_not_rule_on_it(architecture: str) -> None:
    assert Policy(architecture, truncate_by_path=True)("truncate") == ALLOW
    assert Policy(architecture, truncate_by_path=False)("truncate") == EPERM
    assert Policy(architecture, truncate_by_path=False)("ftruncate") == ALLOW


OWNER_CALLS = ("chown", "fchown", "lchown", "fchownat")
TIME_CALLS = ("utime", "utimes", "utimensat", "futimesat")
MODE_CALLS = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2}


@pytest.mark.parametrize("name", MODE_CALLS)
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_modes_where_only_files_of_the_plan_can_be_named(architecture: str, name: str) -> None:
    policy = Policy(architecture, own_root=True)
    if name not in policy.architecture.numbers:
        assert architecture == "aarch64"
        return
    before = [0] * MODE_CALLS[name]
    for mode in (0, 0o400, 0o755, 0o777, HIGH | 0o600):
        assert policy(name, *before, mode) == ALLOW
    for mode in (0o4755, 0o2755, 0o1777, 0o7777, HIGH | 0o4000):
        assert policy(name, *before, mode) == EPERM


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_times_may_be_set_and_owners_may_not_where_the_root_is_its_own(architecture: str) -> None:
    policy = Policy(architecture, own_root=True)
    listed = policy.architecture.numbers
    assert {policy(name) for name in TIME_CALLS if name in listed} == {ALLOW}
    assert {policy(name, 3, 0, 0) for name in OWNER_CALLS if name in listed} == {EPERM}


@pytest.mark.parametrize("name", ATTRIBUTE_CALLS)
def test_attributes_can_be_read_in_an_own_root_only(policy: Policy, name: str) -> None:
    own = Policy(policy.architecture.name, own_root=True)
    assert own(name, 1, 2, 3, 4) == ALLOW
    assert policy(name, 1, 2, 3, 4) == 0x5_0000 | errno.ENOTSUP


def test_an_own_root_changes_nothing_else(policy: Policy) -> None:
    own = Policy(policy.architecture.name, own_root=True)
    differing = {
        name
        for name in own.rules.keys() | policy.rules.keys()
        if own.rules.get(name) != policy.rules.get(name)
    }
    assert differing == {*MODE_CALLS, *TIME_CALLS, *ATTRIBUTE_CALLS}


def test_hot_calls_come_first(policy: Policy) -> None:
    """A filter is linear: what every call pays must be short."""
    arch = policy.architecture
    for name in ("read", "write", "futex"):
        call = Call(arch.numbers[name], arch.audit)
        assert run_counting(policy.program, call)[1] <= 25
