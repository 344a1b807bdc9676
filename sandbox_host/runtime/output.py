"""What a plugin's process says beside the protocol: its output, and where it stands."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Final

from sandbox_host.budget.place import MAX_DUMP_BYTES, place_in

if TYPE_CHECKING:
    from sandbox_host.backends.base import Child
    from sandbox_host.budget.rate import Bucket
    from sandbox_host.observe.plugin_log import PluginLog

STDOUT: Final = "stdout"
STDERR: Final = "stderr"
TRACE: Final = "trace"

_READ_BYTES: Final = 64 * 1024
_PAUSE_SECONDS: Final = 0.01
_LAST_BYTES: Final = 4 * 1024 * 1024


class Output:
    """Takes a child's standard streams into its log, and its stack dump into memory.

    Args:
        child: whose descriptors are read; they never block.
        log: where the streams go.
        rate: bounds how fast they are read.
    """

    def __init__(self, child: Child, log: PluginLog, rate: Bucket) -> None:
        self.log = log
        self._rate = rate
        self._descriptors = {
            STDOUT: child.log_fds[0],
            STDERR: child.log_fds[1],
            TRACE: child.trace_fd,
        }
        self._dump = bytearray()
        self._again_at: dict[str, float] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._mid_line = False
        self._left_out = 0

    def descriptors(self) -> dict[int, str]:
        """Return what is to be watched, with the role that `take` gets."""
        return {descriptor: role for role, descriptor in self._descriptors.items()}

    def take(self, role: str) -> bool:
        """Read once; False at the end of the stream."""
        with self._lock:
            return not self._closed and self._read(role) != b""

    def held(self, role: str, now: float) -> bool:
        """Tell whether a stream is not to be read yet; a full pipe makes the plugin wait.

        One that had little to read gets a pause: a byte at a time would cost a read for each.
        """
        if now < self._again_at.get(role, 0.0):
            return True
        return role != TRACE and self._rate.wait(now) > 0

    @property
    def held_seconds(self) -> float:
        """For how long, all in all, the streams were not read."""
        return self._rate.held_seconds

    def drain(self) -> None:
        """Take the last words of a process that has ended, up to 4 MiB of each stream."""
        with self._lock:
            for role in () if self._closed else self._descriptors:
                for _ in range(_LAST_BYTES // _READ_BYTES):
                    if not self._read(role):
                        break

    def catch_up(self) -> None:
        """Take what is there now, as far as the rate allows.

        It was printed before an answer that came by another pipe, and somebody looks at the log.
        """
        with self._lock:
            for role in () if self._closed else (STDOUT, STDERR):
                while self._rate.wait(time.monotonic()) == 0 and self._read(role):
                    pass

    def add(self, entry: bytes) -> None:
        """Put an entry that came as a message into the log; it counts as printed."""
        with self._lock:
            if self._closed:
                return
            now = time.monotonic()
            if self._rate.wait(now) > 0:
                # Nothing holds back who says it as a message: the pace of those is another one.
                self._left_out += 1
                return
            if self._left_out:
                entry = b"WARNING sandbox-host: %d entries left out\n" % self._left_out + entry
                self._left_out = 0
            self._rate.take(len(entry), now)
            if self._mid_line:
                self._mid_line = False
                entry = b"\n" + entry
            self.log.write(entry)

    def close(self) -> None:
        """Read nothing any more: the descriptors are about to be closed, and the log with them."""
        with self._lock:
            self._closed = True
            self.log.close()

    def _read(self, role: str) -> bytes | None:
        """Take one piece and return it: b"" at the end of the stream, None if there is none now."""
        try:
            data = os.read(self._descriptors[role], _READ_BYTES)
        except BlockingIOError:
            return None
        now = time.monotonic()
        if len(data) < _READ_BYTES:
            self._again_at[role] = now + _PAUSE_SECONDS
        if role == TRACE:
            # Only the start of the dumps is looked at; the rest is read and dropped.
            self._dump += data[: MAX_DUMP_BYTES - len(self._dump)]
        else:
            self._rate.take(len(data), now)
            self.log.write(data)
            self._mid_line = bool(data) and data[-1:] != b"\n"
        return data

    def forget(self) -> None:
        """Let go of what it said of its stacks."""
        with self._lock:
            self._dump = bytearray()

    def stacks(self) -> str:
        """Return what it said of where its threads stood; its word, as it came, up to 64 KiB."""
        return self._dump.decode("utf-8", "replace")

    def log_stacks(self) -> None:
        """Put what it said of its stacks into the log, behind its output."""
        with self._lock:
            if not self._closed and self._dump:
                self.log.write(bytes(self._dump), printed=False)

    def place(self, package_dir: str) -> str:
        """Return where the plugin's code stood when it was asked, or ""."""
        return place_in(bytes(self._dump), package_dir)
