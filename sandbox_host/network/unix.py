"""Asks whether anybody listens at a Unix socket, as the host; see unix(7)."""

from __future__ import annotations

import errno
import socket
from typing import Final

_FAULTS: Final = {
    errno.ECONNREFUSED: "nobody listens there now",
    errno.EPROTOTYPE: "it is no stream socket, and a plugin can connect to no other",
}


def listening_fault(path: str) -> str:
    """Return why nobody could connect to a Unix socket now; "" if somebody could, or none can tell.

    A connection is made and closed at once. Nothing is waited for: whose queue is full listens.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.setblocking(False)
        try:
            made.connect(path)
        except OSError as error:
            return _FAULTS.get(error.errno or 0, "")
    return ""
