"""Sends the journal's entries to the system journal, where an edit of the host's own files shows.

systemd-journald takes datagrams of ``FIELD=value`` lines on a Unix socket ("Native Journal
Protocol"). Nothing is waited for: what it does not take at once is counted as lost.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sandbox_host.observe.journal_lines import JournalEntry

SYSTEM_JOURNAL: Final = Path("/run/systemd/journal/socket")

_NOTICE: Final = 5
"""Priority, as in syslog(3)."""


class SystemJournal:
    """Where entries are forwarded to. Thread-safe.

    Args:
        path: the socket of the system journal.

    Attributes:
        lost: how many entries it did not take: there is none, or it is behind.
    """

    def __init__(self, path: Path = SYSTEM_JOURNAL) -> None:
        self._path = str(path)
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.lost = 0

    def send(self, entry: JournalEntry) -> None:
        """Hand one entry over, or count it as lost; never waits, and raises nothing."""
        with self._lock:
            try:
                if self._socket is None:
                    self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                    self._socket.setblocking(False)
                # By its path each time: a system journal that was restarted has another socket.
                self._socket.sendto(datagram(entry), self._path)
            except OSError:
                self.lost += 1

    def close(self) -> None:
        """Close the socket; a second time does nothing."""
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.close()
            self._socket = None


def datagram(entry: JournalEntry) -> bytes:
    """Return an entry in the native protocol; its texts hold no line feed."""
    whose = f" {entry.plugin}:" if entry.plugin else ""
    fields = {
        "MESSAGE": f"{entry.event}:{whose} {entry.detail}".rstrip(": "),
        "PRIORITY": _NOTICE,
        "SYSLOG_IDENTIFIER": "sandbox-host",
        "SANDBOX_HOST_SEQ": entry.seq,
        "SANDBOX_HOST_EVENT": entry.event,
        "SANDBOX_HOST_PLUGIN": entry.plugin,
        "SANDBOX_HOST_HASH": entry.hash,
    }
    lines = (f"{name}={value}\n" for name, value in fields.items())
    return "".join(lines).encode("utf-8", "backslashreplace")
