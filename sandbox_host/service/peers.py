"""Who is at the other end of a Unix socket, by the kernel's word (unix(7), SO_PEERCRED).

The word is about the moment of connect(2) (for the listening side: listen(2)), and cannot be
forged without privileges. A plugin of a host without privileges has the host's own user id. It
cannot reach the socket, which is outside of its root and its Landlock rules, and cannot make one;
should both be missing, its descent still gives it away.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CREDENTIALS: Final = struct.Struct("3i")
_MOST_ANCESTORS: Final = 64
_UNKNOWN: Final = -1


@dataclass(frozen=True, slots=True)
class Peer:
    """A process at the other end.

    Attributes:
        pid: as this process sees it; 0 for one in another process namespace.
        uid: its effective user id then.
    """

    pid: int
    uid: int


def peer_of(connection: socket.socket) -> Peer:
    """Return who is connected.

    Raises:
        OSError: nobody is.
    """
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(told)
    return Peer(pid, uid)


def refusal(peer: Peer, own_uid: int, own_pid: int) -> str:
    """Return why this process takes no commands of a peer; "" where it does.

    Args:
        peer: who asks.
        own_uid: effective user id of this process.
        own_pid: its process id.
    """
    if peer.uid not in {own_uid, 0}:
        return f"it belongs to user id {peer.uid}, and takes commands of {own_uid} and root only"
    if peer.pid <= 0 or descends(peer.pid, own_pid):
        return "the process that asks was started by this host, or cannot be seen"
    return ""


def descends(pid: int, ancestor: int) -> bool:
    """Tell whether a process was started by another, or by one that that one started.

    What cannot be found out counts as descent: /proc may hide a plugin from its own user.
    """
    for _ in range(_MOST_ANCESTORS):
        parent = _parent(pid)
        if parent in {ancestor, _UNKNOWN}:
            return True
        if parent <= 1:
            return False
        pid = parent
    return True


def _parent(pid: int) -> int:
    try:
        told = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return _UNKNOWN
    # The name, in parentheses, may hold anything.
    return int(told.rpartition(b")")[2].split()[1])


def own_uid() -> int:
    """Return the effective user id of this process."""
    return os.geteuid()
