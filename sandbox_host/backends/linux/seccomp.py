"""The system calls that a plugin may make: an allowlist, as data, compiled to a filter.

What is not in the table of `syscalls` is answered with EPERM; what is in it passes, unless
`RULES` looks at its arguments. The kernel's attack surface shrinks to what Python work needs, and
the ways around Landlock are closed here: signals to others, sockets, programs, namespaces,
io_uring, bpf, memfd, changing the mode or owner of files that belong to the same user.

A filter sees argument *values*, never what they point to (Documentation/userspace-api/
seccomp_filter.rst); rules are therefore on numbers and flags only. Where the C prototype has an
``int``, the kernel ignores the upper half of the register, and so does the rule.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

from sandbox_host.backends.linux.bpf import (
    Label,
    Program,
    assemble,
    give,
    if_at_least,
    if_equal,
    jump,
    load,
    mask,
)
from sandbox_host.backends.linux.syscalls import (
    AARCH64,
    AARCH64_NETWORK,
    AARCH64_PROCESSES,
    AARCH64_UNIX,
    X86_64,
    X86_64_NETWORK,
    X86_64_PROCESSES,
    X86_64_UNIX,
)

ALLOW: Final = 0x7FFF_0000
KILL: Final = 0x8000_0000
"""SECCOMP_RET_KILL_PROCESS."""

_ERRNO: Final = 0x0005_0000

_NR, _ARCH, _ARGS = 0, 4, 16
_WORD: Final = 0xFFFF_FFFF
_X32_BIT: Final = 0x4000_0000


@dataclass(frozen=True, slots=True)
class Architecture:
    """An instruction set: its AUDIT_ARCH constant and its numbers.

    Attributes:
        network: those of the calls that only a plugin with connections may make.
        unix: the same for one that connects to Unix sockets.
        processes: the same for one that starts processes.
    """

    name: str
    audit: int
    numbers: dict[str, int]
    network: dict[str, int]
    unix: dict[str, int]
    processes: dict[str, int]


ARCHITECTURES: Final = {
    "x86_64": Architecture(
        "x86_64", 0xC000_003E, X86_64, X86_64_NETWORK, X86_64_UNIX, X86_64_PROCESSES
    ),
    "aarch64": Architecture(
        "aarch64", 0xC000_00B7, AARCH64, AARCH64_NETWORK, AARCH64_UNIX, AARCH64_PROCESSES
    ),
}


@dataclass(frozen=True, slots=True)
class Arg:
    """A condition on one argument: ``value & bits`` equals one of ``values``.

    ``wide`` compares all 64 bits of a pointer-sized argument with a single value, unmasked;
    ``none`` turns the condition round: it equals none of them.
    """

    index: int
    values: tuple[int, ...]
    bits: int = _WORD
    wide: bool = False
    none: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A call that passes if all conditions of any alternative hold, and fails with ``errno`` else.

    No alternative means: never.
    """

    alternatives: tuple[tuple[Arg, ...], ...] = ()
    errno: int = errno.EPERM


_PROT_WRITE, _PROT_EXEC = 2, 4
_MAP_SHARED, _MAP_ANONYMOUS = 1, 0x20  # MAP_SHARED_VALIDATE is 3 and has the same bit
_AF_UNIX, _SOCK_STREAM, _SOCK_TYPE_BITS, _SOL_SOCKET = 1, 1, 0xF, 1

# VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID, CHILD_CLEARTID: what a C library
# passes to start a thread; 0x400000 is the obsolete CLONE_DETACHED that one of them still sets.
_THREAD_FLAGS, _THREAD_FLAG_BITS = 0x3D_0F00, _WORD & ~0x40_0000

# SIGCHLD alone, as fork has it, or with VM and VFORK, as vfork has it; besides, PARENT_SETTID,
# CHILD_CLEARTID and CHILD_SETTID. No CLONE_NEW*, no CLONE_PARENT (the parent would be the nursery),
# and no other signal for the parent when it ends: that could be SIGCONT.
_FORK_FLAGS, _FORK_FLAG_BITS = (0x11, 0x4111), _WORD & ~0x130_0000

# Only reads, and the thread's own name. PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP stay out.
_PRCTL = (2, 3, 15, 16, 21, 23, 27, 39)

# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIOCLEX, FIONCLEX. No TIOCSTI (CVE-2017-5226), no FIOASYNC.
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5451, 0x5450)

# Without F_SETOWN, F_SETSIG, F_SETOWN_EX (a descriptor's owner is sent any signal: that would
# kill the host), F_NOTIFY, F_SETLEASE (both watch others) and F_SETPIPE_SZ (pins kernel memory).
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 16, 36, 37, 38, 1030, 1032, 1034)

# SO_REUSEADDR, TYPE, ERROR, KEEPALIVE, RCVTIMEO, SNDTIMEO. No SO_SNDBUF and SO_RCVBUF, which pin
# kernel memory that no budget sees; no SO_ATTACH_FILTER.
_SOCKOPT = (2, 3, 4, 9, 20, 21)

# What a process may send itself. Not SIGKILL, SIGSTOP, SIGXCPU and SIGSYS: they would tell the host
# of a cause that is not the true one. 32 is how a C library cancels a thread.
_OWN_SIGNALS = (0, 1, 2, 3, 6, 10, 12, 13, 14, 15, 17, 18, 23, 28, 32)

_SIGCONT = 18

# With the permission to ask for connections: TCP sockets, which this process cannot connect, and
# what clients set on those they are given: TCP_NODELAY, KEEPIDLE, KEEPINTVL, KEEPCNT, QUICKACK,
# USER_TIMEOUT. No TCP_FASTOPEN_CONNECT, TCP_REPAIR or TCP_ULP.
_AF_INET, _AF_INET6, _IPPROTO_TCP = 2, 10, 6
_TCP_OPTIONS = (1, 4, 5, 6, 12, 18)
_MSG_FASTOPEN = 0x2000_0000

# Out-of-band bytes: nobody needs them, and of Unix sockets they let a sandbox be left by a fault of
# the kernel's (CVE-2025-38236).
_MSG_OOB = 1

# Beside those that may be set: SNDBUF, RCVBUF, LINGER, ACCEPTCONN, PROTOCOL, DOMAIN.
_SOCKOPT_READ = (*_SOCKOPT, 7, 8, 13, 30, 38, 39)

_CLOSE_RANGE_CLOEXEC = 4

_OWNER_CALLS = ("chown", "fchown", "lchown", "fchownat")
_MODE_CALLS = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2}  # which argument is the mode
_ATTRIBUTE_CALLS = ("getxattr", "lgetxattr", "listxattr", "llistxattr")
_TIME_CALLS = ("utime", "utimes", "utimensat", "futimesat")

_SETUID_SETGID_STICKY = 0o7000


def rules(
    *,
    own_pid: int,
    native_code: bool,
    truncate_by_path: bool,
    own_root: bool = False,
    network: bool = False,
    unix: bool = False,
    threads: bool = True,
    processes: bool = False,
) -> dict[str, Rule]:
    """Return the calls whose arguments decide.

    Args:
        own_pid: the plugin's process, the only one it may signal.
        native_code: granted: memory may become executable although no file is behind it.
        truncate_by_path: Landlock (ABI 3) rules on truncation; otherwise the call is refused.
        own_root: no file outside the plan can be named, so that modes and times may be changed.
        network: granted: it is handed connected sockets. They must lead nowhere else: connect, bind
            and listen stay out, and one that has come to its end is not opened anew by sending
            (MSG_FASTOPEN connects).
        unix: granted, and never beside ``network``: it connects to the Unix sockets in its root.
        threads: granted.
        processes: granted, and only to process 1 of a pid namespace: it forks, and signals what it
            has forked.
    """
    table = {
        "clone": (Rule(((Arg(0, (_THREAD_FLAGS,), _THREAD_FLAG_BITS),),)) if threads else Rule()),
        # Its flags lie behind a pointer; ENOSYS makes the C library fall back to clone.
        "clone3": Rule(errno=errno.ENOSYS),
        # A datagram socket, even of a pair, can send to any path: streams only.
        "socketpair": Rule(((Arg(0, (_AF_UNIX,)), Arg(1, (_SOCK_STREAM,), _SOCK_TYPE_BITS)),)),
        "sendto": Rule(((Arg(4, (0,), wide=True), Arg(3, (0,), _MSG_OOB)),)),
        "setsockopt": Rule(((Arg(1, (_SOL_SOCKET,)), Arg(2, _SOCKOPT)),)),
        "kill": Rule(((Arg(0, (own_pid,)), Arg(1, _OWN_SIGNALS)),)),
        "tgkill": Rule(((Arg(0, (own_pid,)), Arg(2, _OWN_SIGNALS)),)),
        # With FALLOC_FL_KEEP_SIZE, RLIMIT_FSIZE is not looked at (fallocate(2)): plain mode only.
        "fallocate": Rule(((Arg(1, (0,)),),)),
        "prlimit64": Rule(((Arg(0, (0,)), Arg(2, (0,), wide=True)),)),
        "prctl": Rule(((Arg(0, _PRCTL),),)),
        # CLOSE_RANGE_UNSHARE gives a thread a table of its own, which no budget sees.
        "close_range": Rule(((Arg(2, (0, _CLOSE_RANGE_CLOEXEC)),),)),
        "ioctl": Rule(((Arg(1, _IOCTL),),), errno.ENOTTY),
        "fcntl": Rule(((Arg(1, _FCNTL),),)),
    }
    table.update(_memory_rules(native_code=native_code))
    table.update(_file_rules(own_root=own_root))
    if not truncate_by_path:
        table["truncate"] = Rule()
    if network:
        table.update(_network_rules())
    if unix:
        table.update(_unix_rules())
    if processes:
        table.update(_process_rules(own_pid, threads=threads))
    return table


def _memory_rules(*, native_code: bool) -> dict[str, Rule]:
    # Shared anonymous memory outlives MADV_DONTNEED, unseen by the resident size: private only.
    file_backed, private = Arg(3, (0,), _MAP_ANONYMOUS), Arg(3, (0,), _MAP_SHARED)
    if native_code:
        return {"mmap": Rule(((file_backed,), (private,)))}
    # Loading a shared object maps a file read-execute; making code in memory needs more. Code in a
    # file of the plugin's own can still be mapped: see docs/security.md, honest limits.
    no_exec = Arg(2, (0,), _PROT_EXEC)
    loaded = (Arg(2, (0,), _PROT_WRITE), file_backed)
    return {
        "mmap": Rule(((no_exec, file_backed), (no_exec, private), loaded)),
        "mprotect": Rule(((no_exec,),)),
    }


def _file_rules(*, own_root: bool) -> dict[str, Rule]:
    table = dict.fromkeys(_OWNER_CALLS, Rule())
    if own_root:
        # What it writes is still there for others when it has ended: never with another's rights.
        for name, index in _MODE_CALLS.items():
            table[name] = Rule(((Arg(index, (0,), _SETUID_SETGID_STICKY),),))
        return table
    # The plugin may have the uid of the host, and Landlock does not rule on these calls: the owner
    # of a file may make them wherever the file is.
    table |= dict.fromkeys((*_MODE_CALLS, *_TIME_CALLS), Rule())
    # What copies a file with all that belongs to it goes on after ENOTSUP, not after EPERM.
    return table | dict.fromkeys(_ATTRIBUTE_CALLS, Rule(errno=errno.ENOTSUP))


def _network_rules() -> dict[str, Rule]:
    # No sendmsg: descriptors that it sends to itself are in flight, which no budget sees, and the
    # kernel counts them for all processes of a user together (unix(7), ETOOMANYREFS).
    stream = Arg(1, (_SOCK_STREAM,), _SOCK_TYPE_BITS)
    plain = (0,), _MSG_FASTOPEN | _MSG_OOB
    return {
        "socket": Rule(((Arg(0, (_AF_INET, _AF_INET6)), stream, Arg(2, (0, _IPPROTO_TCP))),)),
        "sendto": Rule(((Arg(4, (0,), wide=True), Arg(3, *plain)),)),
        # On the desk's socket, the other side's process and credentials could be asked for.
        "getsockopt": Rule(
            (
                (Arg(1, (_SOL_SOCKET,)), Arg(2, _SOCKOPT_READ)),
                (Arg(1, (_IPPROTO_TCP,)), Arg(2, _TCP_OPTIONS)),
            )
        ),
        "setsockopt": Rule(
            (
                (Arg(1, (_SOL_SOCKET,)), Arg(2, _SOCKOPT)),
                (Arg(1, (_IPPROTO_TCP,)), Arg(2, _TCP_OPTIONS)),
            )
        ),
    }


def _unix_rules() -> dict[str, Rule]:
    # What it connects to cannot be seen here: it is what has a name in its root. No bind and no
    # listen; and neither sendmsg nor recvmsg, by which descriptors would come and go.
    stream = Arg(1, (_SOCK_STREAM,), _SOCK_TYPE_BITS)
    return {
        "socket": Rule(((Arg(0, (_AF_UNIX,)), stream, Arg(2, (0, _AF_UNIX))),)),
        # Not who is at the other side: SO_PEERPIDFD would be a hold on that process.
        "getsockopt": Rule(((Arg(1, (_SOL_SOCKET,)), Arg(2, _SOCKOPT_READ)),)),
    }


def _process_rules(own_pid: int, *, threads: bool) -> dict[str, Rule]:
    # The pid namespace has its own processes and no others, so that any number, and any group, may
    # be signalled. Its process 1 is the plugin, which the kernel keeps from signals of its own
    # namespace that it has no handler for, SIGKILL and SIGSTOP included (pid_namespaces(7)); that
    # they are refused here tells who tries. Nobody may SIGCONT: what the host stops stays stopped.
    own = tuple(number for number in _OWN_SIGNALS if number != _SIGCONT)
    flags = [(Arg(0, _FORK_FLAGS, _FORK_FLAG_BITS),)]
    if threads:
        flags.append((Arg(0, (_THREAD_FLAGS,), _THREAD_FLAG_BITS),))
    signals = {
        name: Rule(
            (
                (Arg(0, (own_pid,)), Arg(index, own)),
                (Arg(0, (own_pid,), none=True), Arg(index, (_SIGCONT,), none=True)),
            )
        )
        for name, index in (("kill", 1), ("tgkill", 2))
    }
    # Which programs are executed is for Landlock to say: a filter does not see the path.
    return {"clone": Rule(tuple(flags)), **signals}


def build_filter(
    architecture: Architecture,
    by_argument: dict[str, Rule],
    *,
    network: bool = False,
    unix: bool = False,
    processes: bool = False,
) -> bytes:
    """Return the filter as an array of ``struct sock_filter``.

    Args:
        architecture: whose numbers it compares.
        by_argument: what `rules` returned.
        network: with the calls of a plugin that has connections.
        unix: with those of one that connects to Unix sockets.
        processes: with those of one that starts processes.
    """
    program: Program = [
        load(_ARCH),
        if_equal(architecture.audit, then="architecture is ours"),
        give(KILL),
        Label("architecture is ours"),
        load(_NR),
        # x32 calls carry a bit in the number and would slip past a comparison with it.
        if_at_least(_X32_BIT, otherwise="number is plain"),
        give(KILL),
        Label("number is plain"),
    ]
    numbers = architecture.numbers | (architecture.network if network else {})
    numbers |= architecture.unix if unix else {}
    numbers |= architecture.processes if processes else {}
    for name, number in numbers.items():
        rule = by_argument.get(name)
        if rule is None:
            program += [if_equal(number, otherwise=f"not {name}"), give(ALLOW)]
        else:
            program += [if_equal(number, otherwise=f"not {name}"), *_check(name, rule)]
        program.append(Label(f"not {name}"))
    program.append(give(_ERRNO | errno.EPERM))
    return assemble(program)


def _check(name: str, rule: Rule) -> Program:
    """Return the instructions after the number matched; they always end in a return."""
    program: Program = []
    for position, alternative in enumerate(rule.alternatives):
        failed = f"{name}: alternative {position} fails"
        for index, arg in enumerate(alternative):
            program += _compare(arg, f"{name}: {position}.{index} holds", failed)
        program += [give(ALLOW), Label(failed)]
    program.append(give(_ERRNO | rule.errno))
    return program


def _compare(arg: Arg, holds: str, fails: str) -> Program:
    low = _ARGS + 8 * arg.index  # both architectures are little-endian
    if arg.wide:
        (value,) = arg.values
        return [
            load(low),
            if_equal(value & _WORD, otherwise=fails),
            load(low + 4),
            if_equal(value >> 32, otherwise=fails),
        ]
    program: Program = [load(low)]
    if arg.bits != _WORD:
        program.append(mask(arg.bits))
    if arg.none:
        return program + [if_equal(value, then=fails) for value in arg.values]
    program += [if_equal(value, then=holds) for value in arg.values]
    return [*program, jump(fails), Label(holds)]
