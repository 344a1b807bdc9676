"""What systemd is told: ready, reloading, stopping, alive (sd_notify(3)).

Each message is one datagram to the socket in ``NOTIFY_SOCKET``, a path or, after ``@``, an abstract
name. It is never waited for: a supervisor that does not read must not hold up the service.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import TYPE_CHECKING, Final, Self

from sandbox_host.reading import escaped

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_log = logging.getLogger("sandbox_host")

SOCKET: Final = "NOTIFY_SOCKET"
WATCHDOG: Final = "WATCHDOG_USEC"
WATCHDOG_PID: Final = "WATCHDOG_PID"
_MAX_STATUS: Final = 200
_MICROSECONDS: Final = 1_000_000


class Notifier:
    """Tells the supervisor; where there is none, does nothing.

    Args:
        environment: of this process. The variables are taken out of it: they are not meant for
            what it starts.

    Attributes:
        watchdog_seconds: within which `alive` has to be called again; 0.0 where nobody waits.
    """

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        variables = os.environ if environment is None else environment
        self._address = _address(variables.pop(SOCKET, ""))
        self.watchdog_seconds = _watchdog(
            variables.pop(WATCHDOG, ""), variables.pop(WATCHDOG_PID, "")
        )
        self._status = ""
        self._told_of_failure = False
        self._next_sign = 0.0
        self._socket: socket.socket | None = None
        if self._address:
            kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self._socket = socket.socket(socket.AF_UNIX, kind)

    def ready(self, status: str = "") -> None:
        """Plugins are loaded, and commands are taken."""
        self._send("READY=1", *self._status_lines(status))

    def status(self, text: str) -> None:
        """Say in a line what is going on; the same line is not sent twice."""
        if lines := self._status_lines(text):
            self._send(*lines)

    def reloading(self) -> None:
        """The configuration is being read again; `ready` follows. For ``Type=notify-reload``."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self, seconds: float, status: str = "") -> None:
        """Plugins are being unloaded, which takes at most so long."""
        extended = f"EXTEND_TIMEOUT_USEC={int(seconds * _MICROSECONDS)}"
        self._send("STOPPING=1", extended, *self._status_lines(status))

    def sign_is_due(self, now: float) -> bool:
        """Tell whether a sign of life is expected by now: twice as often as it has to be."""
        return bool(self._socket and self.watchdog_seconds) and now >= self._next_sign

    def alive(self, now: float) -> None:
        """Give a sign of life, at this reading of the monotonic clock."""
        self._next_sign = now + self.watchdog_seconds / 3
        self._send("WATCHDOG=1")

    def _status_lines(self, text: str) -> list[str]:
        shown = escaped(text, _MAX_STATUS)  # a line feed would begin another assignment
        if not shown or shown == self._status:
            return []
        self._status = shown
        return [f"STATUS={shown}"]

    def _send(self, *lines: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
        except OSError as error:
            if not self._told_of_failure:
                _log.warning("the service manager cannot be told: %s", error.strerror or error)
            self._told_of_failure = True

    def close(self) -> None:
        """Tell nobody any more; a second time does nothing."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _address(text: str) -> str:
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else ""


def _watchdog(text: str, pid: str) -> float:
    """Return the seconds, where they are meant for this process."""
    if not text.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(text[:18]) / _MICROSECONDS
