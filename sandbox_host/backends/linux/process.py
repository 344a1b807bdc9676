"""A child process: spawned from a thread that never ends, held by a pidfd, reaped once.

PR_SET_PDEATHSIG fires when the *thread* that forked exits, not the process (prctl(2)), so every
child is forked by one thread that lives as long as the host. A pidfd names the process itself:
a signal through it cannot reach another that inherited the number.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from plugin_sdk.wire.connection import Connection
from plugin_sdk.wire.messages import HOST
from sandbox_host.backends.base import Exit, Sample
from sandbox_host.backends.linux import procfs
from sandbox_host.backends.linux.compile import environment

if TYPE_CHECKING:
    from sandbox_host.backends.base import Places

_CPUCLOCK_SCHED: Final = 2  # include/linux/posix-timers_types.h

BOOT: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from plugin_sdk.child.__main__ import main; main(sys.argv[2:])"
)

# Isolated, without site-packages, without writing byte code.
_ISOLATED: Final = ("-I", "-S", "-B", "-X", "utf8", "-c")

_spawner = ThreadPoolExecutor(1, thread_name_prefix="sandbox-host-spawner")


def _renew_spawner() -> None:
    """A forked copy of the host has no threads; give it a spawner of its own."""
    global _spawner
    _spawner = ThreadPoolExecutor(1, thread_name_prefix="sandbox-host-spawner")


os.register_at_fork(after_in_child=_renew_spawner)


def spawn(places: Places) -> LinuxChild:
    """Start an unconfined, trusted child that waits for its lock-down.

    Raises:
        OSError: the process or its pipes could not be made.
    """
    return _spawner.submit(_spawn, places).result()


def _spawn(places: Places) -> LinuxChild:
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:

        def pipe() -> tuple[int, int]:
            return os.pipe2(os.O_CLOEXEC)

        ends = [pipe() for _ in range(5)]
        (their_in, send), (receive, their_out), (out, their_out1), (err, their_err), (trace, tr) = (
            ends
        )
        for end in (send, receive, out, err, trace):
            os.set_blocking(end, False)
            ours.callback(os.close, end)
        for end in (their_in, their_out, their_out1, their_err, tr):
            theirs.callback(os.close, end)
        numbers = [str(their_in), str(their_out), str(tr), str(os.getpid())]
        process = subprocess.Popen(
            [str(places.python), *_ISOLATED, BOOT, str(places.sdk_dir), *numbers],
            stdin=subprocess.DEVNULL,
            stdout=their_out1,
            stderr=their_err,
            env=environment(places),
            cwd=places.scratch_dir,
            pass_fds=(their_in, their_out, tr),
            close_fds=True,
            start_new_session=True,
        )
        try:
            exit_fd = os.pidfd_open(process.pid)
        except OSError:
            process.kill()
            process.wait()
            raise
        ours.pop_all()
        keep = [their_in, their_out, tr]
        connection = Connection(HOST)
        return LinuxChild(process, connection, receive, send, (out, err), trace, exit_fd, keep)


class LinuxChild:
    """A process of ours; see `sandbox_host.backends.base.Child`."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        connection: Connection,
        receive_fd: int,
        send_fd: int,
        log_fds: tuple[int, int],
        trace_fd: int,
        exit_fd: int,
        keep: list[int],
    ) -> None:
        self.pid = process.pid
        self.connection = connection
        self.receive_fd = receive_fd
        self.send_fd = send_fd
        self.log_fds = log_fds
        self.trace_fd = trace_fd
        self.exit_fd = exit_fd
        self.keep = sorted(keep)
        self._process = process
        self._clock = (~process.pid << 3) | _CPUCLOCK_SCHED
        self._lock = threading.Lock()
        self._exit: Exit | None = None
        self._last_cpu = 0.0
        self._closed = False

    def cpu_seconds(self) -> float:
        """Return the CPU time used so far, in seconds."""
        if self._exit is None:
            with contextlib.suppress(OSError):
                self._last_cpu = time.clock_gettime(self._clock)
        return self._last_cpu

    def sample(self) -> Sample | None:
        """Return current use, or None once the process has ended."""
        if self._exit is not None:
            return None
        try:
            stat = procfs.parse_stat(procfs.read(self.pid, "stat"))
            peak = procfs.parse_status(procfs.read(self.pid, "status")).get("VmHWM", "0 kB")
        except (OSError, ValueError, IndexError):
            return None
        if stat.state in "ZX":
            return None
        return Sample(
            resident_bytes=stat.resident_bytes,
            resident_peak_bytes=int(peak.split()[0]) * 1024,
            cpu_seconds=self.cpu_seconds(),
            threads=stat.threads,
            descriptors=procfs.count_descriptors(self.pid),
        )

    def ask_for_stacks(self) -> None:
        """Ask the fault handler inside for all stacks."""
        self._signal(signal.SIGUSR1)

    def interrupt(self) -> None:
        """Raise in the operation whose deadline has passed; a plugin may ignore it."""
        self._signal(signal.SIGUSR2)

    def kill(self) -> None:
        """Send SIGKILL; harmless when the process has ended."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            if self._exit is None and not self._closed:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self.exit_fd, number)

    def wait(self, timeout: float) -> Exit | None:
        """Reap the process; None if it still runs after ``timeout`` seconds."""
        if self._exit is not None:
            return self._exit
        poller = select.poll()
        poller.register(self.exit_fd, select.POLLIN)
        if not poller.poll(max(0.0, timeout) * 1000):
            return None
        with self._lock:
            if self._exit is None:
                self._exit = self._reap()
            return self._exit

    def _reap(self) -> Exit:
        try:
            _, status, usage = os.wait4(self.pid, 0)
        except ChildProcessError:
            # Somebody else reaps (SIGCHLD ignored by the application): the status is lost.
            self._process.returncode = -1
            return Exit(None, None, self._last_cpu)
        code = os.waitstatus_to_exitcode(status)
        self._process.returncode = code  # Popen must not wait for a number that is no longer ours
        return Exit(
            code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            resident_peak_bytes=usage.ru_maxrss * 1024,
        )

    def close(self) -> None:
        """Close every descriptor of ours; once."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for end in (self.receive_fd, self.send_fd, *self.log_fds, self.trace_fd, self.exit_fd):
                os.close(end)
