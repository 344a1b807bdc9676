"""The interface between the host and an operating system's confinement."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from plugin_sdk.wire.limits import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    import socket

    from plugin_sdk.wire.connection import Connection
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.model import Layer, LayerReport, Receipt


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are for one plugin process; all paths absolute, made by the host.

    Attributes:
        python: the interpreter to run; never a virtual environment's.
        sdk_dir: private copy of `plugin_sdk` and `msgpack`, the child's only third party.
        package_dir: private copy of the verified bytes.
        data_dir: the plugin's own, kept between runs.
        scratch_dir: the plugin's own, removed when it ends.
        canary: a file that exists, is readable by the host and must not be readable inside.
        plugin_environment: installed wheels that plugins may read, or None.
        private: the host's configuration, trust store and keys, which no grant may reach.
        code: what the host or a plugin runs beside all this, which no grant may make writable.
    """

    python: Path
    sdk_dir: Path
    package_dir: Path
    data_dir: Path
    scratch_dir: Path
    canary: Path
    plugin_environment: Path | None = None
    private: tuple[Path, ...] = ()
    code: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator decided about confinement, for all plugins of a host.

    Attributes:
        start: "nursery" forks plugins from one clean process, "exec" gives each an interpreter of
            its own, with an address layout and a hash seed that no other plugin has.
        disabled: layers that are switched off; never one of `FIXED_LAYERS`.
        uids: first and number of the user ids that plugins get where the host is root.
        cgroup: directory of a control group that was delegated to the host, or None to look for
            one.
        pool: how many blank processes wait for an assignment; only where ``start`` is "nursery".
        plugin_environment: what their plugins may import beside their own, or None.
        max_payload_bytes: of one message's payload, in either direction.
    """

    start: Literal["nursery", "exec"] = "nursery"
    disabled: frozenset[Layer] = frozenset()
    uids: tuple[int, int] = (61_184, 4_000)
    cgroup: Path | None = None
    pool: int = 0
    plugin_environment: Path | None = None
    max_payload_bytes: int = MAX_PAYLOAD_BYTES


@dataclass(frozen=True, slots=True)
class Sample:
    """What a running child uses now, read from the kernel; with all processes that it may start.

    Attributes:
        resident_bytes: memory of its own; pages of files, which can be taken back, are not in it.
        resident_peak_bytes: the most that was resident, with pages of files; up to a second old.
        threads: of all processes; one that has ended and was not waited for counts as one.
        descriptors: of its own process.
        at_memory_limit: it has all the memory that its control group may have, and a thread of it
            is held until there is more. Only where the kernel holds, rather than kills.
    """

    resident_bytes: int
    resident_peak_bytes: int
    cpu_seconds: float
    threads: int
    descriptors: int
    at_memory_limit: bool = False


class OutOfMemory(enum.Enum):
    """Whether the kernel killed a process for want of memory, and whose."""

    NO = "no"
    OWN_LIMIT = "own limit"
    """It reached the limit of its own control group."""
    ABOVE = "above"
    """The machine ran out of memory, or a control group above its own."""
    UNTOLD = "untold"
    """One of both: the kernel does not tell them apart."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended: an exit code or a signal, never both; both None if nobody can know.

    Attributes:
        out_of_memory: the kernel says that it killed the process for want of memory.
        with_nursery: what had forked it ended first, and the kernel ended it with that.
        detail: what is known beside this, for the operator.
    """

    code: int | None
    signal: int | None
    cpu_seconds: float = 0.0
    resident_peak_bytes: int = 0
    out_of_memory: OutOfMemory = OutOfMemory.NO
    with_nursery: bool = False
    detail: str = ""


class Child(Protocol):
    """A started, confined and attested process. Methods are thread-safe and do not block.

    Attributes:
        connection: the protocol's state, after `Confined`.
        receive_fd: read end of the protocol pipe, non-blocking.
        send_fd: write end of the protocol pipe, non-blocking.
        log_fds: read ends of the child's standard output and error, non-blocking.
        trace_fd: read end of the pipe that stack dumps arrive on, non-blocking.
        exit_fd: becomes readable when the process has ended.
        desk: the host's end of the packet socket by which it asks for connections, or None: it may
            not.
    """

    pid: int
    connection: Connection
    receive_fd: int
    send_fd: int
    log_fds: tuple[int, int]
    trace_fd: int
    exit_fd: int
    desk: socket.socket | None

    @property
    def clock(self) -> int | None:
        """The clock of all CPU time that it uses, for `time.clock_gettime`; None: there is none."""

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has used, with all processes that it may start."""

    def sample(self) -> Sample | None:
        """Return what it uses now, or None once it has ended."""

    def give_way(self, on: bool, /) -> None:
        """Have it leave most of its share of the CPU to others, or take it again. Never raises."""

    def unlinked_bytes(self, device: int) -> int:
        """Return what it holds open on a device that has no name any more; 0 if nobody can know."""

    def suspend(self) -> None:
        """Stop all its threads, each behind the system call that it is in, until `resume`.

        Blocks for some 50 ms at most, where it may start processes.
        """

    def resume(self) -> None:
        """Let it go on."""

    def ask_for_stacks(self) -> None:
        """Make a fault handler inside write all Python stacks to `trace_fd`, even in C code.

        A process that is held at its memory limit gets a few MiB more for that, once: ask only
        what is to be ended.
        """

    def interrupt(self) -> None:
        """Ask the operation whose deadline has passed to end by itself, by an exception inside."""

    def kill(self) -> None:
        """End the process and everything it started. Never fails: the dead stay dead."""

    def wait(self, timeout: float) -> Exit | None:
        """Reap the process, waiting at most ``timeout`` seconds; None if it still runs."""

    def close(self) -> None:
        """Close all descriptors; the process must have been reaped."""


class Backend(Protocol):
    """One operating system.

    Attributes:
        name: "linux" or another system's.
    """

    name: str

    def offers(self) -> tuple[LayerReport, ...]:
        """Return what this machine offers, layer by layer, found out by trying.

        Every layer but the watchdog, which is the host's own; those that are switched off as
        `DISABLED`. Takes a moment the first time.
        """

    def start(self, plan: SandboxPlan, places: Places, timeout: float) -> tuple[Child, Receipt]:
        """Start a confined child that has imported nothing of the plugin.

        Blocks for at most ``timeout`` seconds.

        Raises:
            AttestationError: what is in force is not what was planned; the child was killed.
            ConfinementError: the child could not apply a layer; it was killed.
        """

    def close(self) -> None:
        """End what serves all plugins. Every child must have ended; nothing starts afterwards."""
