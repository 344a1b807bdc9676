"""Resolves names and makes TCP connections, in the host's own network. Blocks: see `desk`."""

from __future__ import annotations

import socket
from typing import Final

MAX_SECONDS: Final = 30.0
"""The most that one connection may take to be made, whatever is asked for."""


def resolve(host: str) -> list[str]:
    """Return the addresses of a name, each once, in the resolver's order.

    Takes as long as the system's resolver lets it (resolv.conf(5): some 30 s at most).

    Raises:
        OSError: it has none, or cannot be resolved now.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def connect(address: str, port: int, seconds: float) -> socket.socket:
    """Return a connected, blocking TCP socket.

    Args:
        address: IPv4 or IPv6, as a number: nothing is resolved here.
        port: of the other side.
        seconds: at most `MAX_SECONDS`.

    Raises:
        OSError: it was refused, or not made in time.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        connection.settimeout(max(0.001, min(seconds, MAX_SECONDS)))
        connection.connect((address, port))
        connection.settimeout(None)
    except BaseException:
        connection.close()
        raise
    return connection
