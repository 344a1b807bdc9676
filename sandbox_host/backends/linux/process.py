"""A child process: forked by a nursery, held by a pidfd, its end told once.

A pidfd names the process itself: a signal through it cannot reach another that inherited the
number. The nursery is the parent, so it is the nursery that collects the status and hands it on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire.connection import Connection
from plugin_sdk.wire.limits import MAX_PAYLOAD_BYTES
from plugin_sdk.wire.message import HOST
from plugin_sdk.wire.nursery import EXIT_RECORD
from sandbox_host.backends.base import Exit, OutOfMemory, Sample
from sandbox_host.backends.linux import procfs
from sandbox_host.backends.linux.arena import make_arena
from sandbox_host.backends.linux.cgroup_share import Share
from sandbox_host.backends.linux.process_tree import continue_all, stop_all

if TYPE_CHECKING:
    from sandbox_host.backends.linux.cgroup import Cgroup
    from sandbox_host.backends.linux.nursery import Nursery

_TRACE: Final = 4  # in the order of the child's ends, see spawn
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_SLACK_BYTES: Final = 2 * 1024 * 1024
_UNSEEN_CPU_SECONDS: Final = 0.01  # how much another process's clock may be taken for
_FALLING_BACK_SECONDS: Final = 0.005
_PAUSE_SECONDS: Final = 0.000_2
_CPUCLOCK_SCHED: Final = 2  # include/linux/posix-timers_types.h
_DYING_SECONDS: Final = 2.0
_BLOCK_BYTES: Final = 512  # stat(2)
_PEAK_SECONDS: Final = 1.0


def spawn(
    nursery: Nursery,
    timeout: float = 20.0,
    *,
    network: bool = False,
    preparation: dict[str, Any] | None = None,
    max_payload_bytes: int = MAX_PAYLOAD_BYTES,
    meanwhile: Callable[[], object] = bool,
) -> LinuxChild:
    """Have an unconfined, trusted child forked, which waits for its lock-down.

    Args:
        nursery: its parent to be.
        timeout: seconds to wait for it.
        network: give it a socket to the host's network desk.
        preparation: what it does before it waits.
        max_payload_bytes: of one message's payload, in either direction.
        meanwhile: called while the nursery forks.

    Raises:
        OSError: the process or its pipes could not be made.
    """
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        ends = []
        for their_side in (0, 1, 1, 1, 1, 1):  # in, out, standard output and error, trace, exit
            pair = os.pipe2(os.O_CLOEXEC)
            theirs.callback(os.close, pair[their_side])
            ours.callback(os.close, pair[1 - their_side])
            os.set_blocking(pair[1 - their_side], False)
            ends.append((pair[their_side], pair[1 - their_side]))
        passed, desk = [their_end for their_end, _ in ends], None
        shared, arena = make_arena(max_payload_bytes)
        theirs.callback(os.close, shared)
        if arena is not None:
            ours.callback(arena.close)
        passed.insert(-1, shared)
        if network:
            # Packets: a plugin that writes half a request has written none.
            desk, theirs_too = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.callback(desk.close)
            theirs.callback(theirs_too.close)
            passed.insert(-1, theirs_too.fileno())
        keep_pages(*ends[_TRACE])
        pidfd = nursery.spawn(passed, timeout, preparation=preparation, meanwhile=meanwhile)
        ours.callback(os.close, pidfd)
        send, receive, out, err, trace, exit_fd = (our_end for _, our_end in ends)
        try:
            pid = pid_of(pidfd)
        except OSError:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            raise
        ours.pop_all()
    child = LinuxChild(pid, pidfd, receive, send, (out, err), trace, exit_fd)
    child.connection.arena = arena
    child.connection.allow(max_payload_bytes)
    child.epitaph, child.last_resort, child.desk = nursery.epitaph, nursery.drop, desk
    return child


def keep_pages(write_end: int, read_end: int) -> None:
    """Have a new pipe keep a page or two, which writing to it needs no new memory for then.

    Pages that were read are used again by the same pipe (fs/pipe.c, ``tmp_page``): these are on
    the host's account, and serve a process that has no memory left to tell where it stands.
    """
    os.write(write_end, bytes(_PAGE_BYTES + 1))
    os.read(read_end, _PAGE_BYTES + 1)


def pid_of(pidfd: int) -> int:
    """Return the process's number in this process's pid namespace.

    Raises:
        OSError: it has ended, or is not visible from here.
    """
    text = Path(f"/proc/self/fdinfo/{pidfd}").read_text(encoding="ascii")
    pid = int(procfs.parse_status(text)["Pid"])
    if pid <= 0:
        text = "the process ended before it could be confined"
        raise ProcessLookupError(text)
    return pid


class LinuxChild:
    """A process of ours; see `sandbox_host.backends.base.Child`.

    Attributes:
        on_close: called once when everything is closed, in reverse order.
        group: its control group, or None.
        starts_processes: what it uses is what its whole group uses, and it is stopped as a whole.
        epitaph: asked when its nursery is gone: what is known of that.
        last_resort: ends the process where it cannot be signalled, and others with it.
    """

    def __init__(
        self,
        pid: int,
        pidfd: int,
        receive_fd: int,
        send_fd: int,
        log_fds: tuple[int, int],
        trace_fd: int,
        exit_fd: int,
    ) -> None:
        self.pid = pid
        self.connection = Connection(HOST)
        self.receive_fd = receive_fd
        self.send_fd = send_fd
        self.log_fds = log_fds
        self.trace_fd = trace_fd
        self.exit_fd = exit_fd
        self.on_close: list[Callable[[], object]] = []
        self.group: Cgroup | None = None
        self.starts_processes = False
        self.desk: socket.socket | None = None
        self.epitaph: Callable[[], str] = str
        self.last_resort: Callable[[str], object] = str
        self._share: Share | None = None
        self._pidfd = pidfd
        self._clock = (~pid << 3) | _CPUCLOCK_SCHED
        self._lock = threading.Lock()
        self._exit: Exit | None = None
        self._last_cpu = 0.0
        self._resident_peak = 0
        self._next_peak = 0.0
        self._closed = False

    @property
    def clock(self) -> int | None:
        """Its process's; None where it may have several, or it has ended."""
        return None if self.starts_processes or self._exit is not None else self._clock

    def cpu_seconds(self) -> float:
        """Return the CPU time used so far, in seconds."""
        last = self._last_cpu
        if self._exit is None:
            try:
                if self.starts_processes and self.group is not None:
                    used = self.group.cpu_seconds() or 0.0
                else:
                    used = time.clock_gettime(self._clock)
            except OSError:
                return last
            # A group's clock is behind by what the kernel has not added up yet. And between its end
            # and the word of that, its number may be another's, whose clock has its own reading:
            # what little passes in a short call is not worth a look at that.
            if last < used and (used - last < _UNSEEN_CPU_SECONDS or not self._is_gone()):
                self._last_cpu = last = used
        return last

    def sample(self) -> Sample | None:
        """Return current use, or None once the process has ended."""
        if self._exit is not None:
            return None
        try:
            stat = procfs.parse_stat(procfs.read(self.pid, "stat"))
            resident = procfs.parse_statm(procfs.read(self.pid, "statm"))
            threads = stat.threads
            if self.group is not None and self.starts_processes:
                used = self.group.usage()
                if used is None:
                    return None
                resident, threads = used.memory_bytes, used.tasks
            descriptors = procfs.count_descriptors(self.pid)
            peak = self._peak(resident)
        except (OSError, ValueError, IndexError):
            return None
        # Once it is gone, the nursery collects it, and its number may be another's.
        if stat.state in "ZX" or self._is_gone():
            return None
        return Sample(
            resident_bytes=resident,
            resident_peak_bytes=peak,
            cpu_seconds=self.cpu_seconds(),
            threads=threads,
            descriptors=descriptors,
            at_memory_limit=self.group is not None and self.group.at_memory_limit(),
        )

    def _peak(self, resident: int) -> int:
        """Return the most that was resident; the kernel's own figure costs as much as the rest."""
        now = time.monotonic()
        if now >= self._next_peak:
            self._next_peak = now + _PEAK_SECONDS
            told = procfs.parse_status(procfs.read(self.pid, "status")).get("VmHWM", "0 kB")
            self._resident_peak = max(self._resident_peak, int(told.split()[0]) * 1024)
        self._resident_peak = max(self._resident_peak, resident)
        return self._resident_peak

    def give_way(self, on: bool, /) -> None:
        """Have its group leave most of its share of the CPU to others, or take it again."""
        if self._share is None:
            if self.group is None or not on:
                return
            self._share = Share(self.group.paths)
        if on:
            self._share.lower()
        else:
            self._share.restore()

    def unlinked_bytes(self, device: int) -> int:
        """Return the size on disk of open files of a device that were removed."""
        sizes: dict[int, int] = {}
        for pid in self._processes():
            with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        status = entry.stat()
                        if status.st_dev == device and status.st_nlink == 0:
                            sizes[status.st_ino] = status.st_blocks * _BLOCK_BYTES
        return 0 if self._is_gone() else sum(sizes.values())

    def _processes(self) -> list[int]:
        """Return its process and all that it has started."""
        if self.group is not None and self.starts_processes:
            return self.group.processes()
        return [self.pid]

    def suspend(self) -> None:
        """Send SIGSTOP, which nobody can catch; a dying parent's SIGKILL ends the stopped too.

        Not the freezer of version 1's control groups: what that holds, no SIGKILL ends, so that a
        plugin would survive a host that is killed meanwhile.
        """
        with contextlib.suppress(OSError):
            if self.starts_processes:
                stop_all(self._processes)
            else:
                self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Send SIGCONT."""
        with contextlib.suppress(OSError):
            if self.starts_processes:
                continue_all(self._processes)
            else:
                self._signal(signal.SIGCONT)

    @property
    def pidfd(self) -> int:
        """Becomes readable when the process has ended, whether its nursery has told so or not."""
        return self._pidfd

    def refuse_network(self) -> None:
        """Close the host's end of the desk, where it was made before anybody knew of a grant."""
        if self.desk is not None:
            self.desk.close()
            self.desk = None

    def _is_gone(self) -> bool:
        return self._closed or _readable(self._pidfd, 0.0)

    def ask_for_stacks(self) -> None:
        """Ask the fault handler inside for all stacks.

        The main thread answers. Held at the memory limit of its group it takes no signal until
        there is a little more, and then before it goes on; where others are held, it may need a
        page or two for its answer, which must be there first, and not be taken by them.
        """
        group = self.group if self.group is not None and self.group.at_memory_limit() else None
        if group is not None:
            self._hold_others_back()
            group.reserve()
            if not self._main_thread_is_held():
                group.loosen(_SLACK_BYTES)
        with contextlib.suppress(OSError):
            self._signal(signal.SIGUSR1)
        if group is not None:
            group.loosen(_SLACK_BYTES)

    def _hold_others_back(self) -> None:
        """Let its other threads not run before the main thread, nor before this one.

        A number that is another's by now would have to have come round, pid_max being 32,768 at
        least: that one would be slow, no more.
        """
        for pid in self._processes():
            with contextlib.suppress(OSError):
                for name in os.listdir(f"/proc/{pid}/task"):
                    if int(name) != self.pid:
                        with contextlib.suppress(OSError):  # it ended, or we are nobody to say so
                            os.sched_setscheduler(int(name), os.SCHED_IDLE, os.sched_param(0))

    def _main_thread_is_held(self) -> bool:
        """Tell whether it waits in a page fault, giving it a moment to come back there."""
        until = time.monotonic() + _FALLING_BACK_SECONDS
        with contextlib.suppress(OSError, ValueError, IndexError):
            while True:
                state = procfs.parse_stat(procfs.read(self.pid, "stat")).state
                if state != "R" or time.monotonic() > until:
                    return state == "D"
                time.sleep(_PAUSE_SECONDS)
        return False

    def interrupt(self) -> None:
        """Raise in the operation whose deadline has passed; a plugin may ignore it."""
        with contextlib.suppress(OSError):
            self._signal(signal.SIGUSR2)

    def kill(self) -> None:
        """Send SIGKILL; harmless when the process has ended.

        Where this process may not signal it any more (it changed its user, or closed descriptors
        that are not its own), the nursery is ended instead: a plugin must not be out of reach.
        """
        try:
            self._signal(signal.SIGKILL)
        except OSError:
            self.last_resort("a plugin of it could not be signalled, so this host ended them all")

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            if self._exit is None and not self._closed:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, number)

    def wait(self, timeout: float) -> Exit | None:
        """Learn how the process ended; None if it still runs after ``timeout`` seconds."""
        if self._exit is not None:
            return self._exit
        if not _readable(self.exit_fd, max(0.0, timeout)):
            return None
        with self._lock:
            if self._exit is None:
                self._exit = self._collect()
            return self._exit

    def _collect(self) -> Exit:
        record = os.read(self.exit_fd, EXIT_RECORD.size)
        if len(record) < EXIT_RECORD.size:
            # The nursery is gone, and the kernel ends its children with it; make sure of it.
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            _readable(self._pidfd, _DYING_SECONDS)
            return Exit(None, None, self._last_cpu, with_nursery=True, detail=self.epitaph())
        status, cpu, peak = EXIT_RECORD.unpack(record)
        code = os.waitstatus_to_exitcode(status)
        return Exit(
            code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            cpu_seconds=max(cpu / 1e6, self._last_cpu if self.starts_processes else 0.0),
            resident_peak_bytes=peak,
            out_of_memory=self._lacked_memory() if code == -signal.SIGKILL else OutOfMemory.NO,
        )

    def _lacked_memory(self) -> OutOfMemory:
        return self.group.out_of_memory() if self.group is not None else OutOfMemory.NO

    def close(self) -> None:
        """Close every descriptor of ours, and give back what was taken for the process; once."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self.desk is not None:
                self.desk.close()
            if self.connection.arena is not None:
                self.connection.arena.close()
            ends = (self.receive_fd, self.send_fd, *self.log_fds, self.trace_fd, self.exit_fd)
            for end in (*ends, self._pidfd):
                with contextlib.suppress(OSError):  # the application has closed it
                    os.close(end)
        with contextlib.ExitStack() as steps:
            for give_back in self.on_close:
                steps.callback(give_back)


def _readable(descriptor: int, timeout: float) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(timeout * 1_000))
