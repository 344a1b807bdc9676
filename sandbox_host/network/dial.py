"""Resolves names and makes TCP connections, in the host's own network. Blocks: see `desk`."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SECONDS: Final = 30.0
"""The most that one connection may take to be made, whatever is asked for."""

_SLICE_SECONDS: Final = 0.25


def resolve(host: str) -> list[str]:
    """Return the addresses of a name, each once, in the resolver's order.

    Takes as long as the system's resolver lets it (resolv.conf(5): some 30 s at most).

    Raises:
        OSError: it has none, cannot be resolved now, or can be no name.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except UnicodeError:  # an empty or too long part of it
        raise OSError(errno.EINVAL, "it can be no name") from None
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def connect(
    address: str, port: int, seconds: float, stopped: Callable[[], bool] = bool
) -> socket.socket:
    """Return a connected, blocking TCP socket.

    Args:
        address: IPv4 or IPv6, as a number: nothing is resolved here.
        port: of the other side.
        seconds: at most `MAX_SECONDS`.
        stopped: tells whether nobody wants it any more; asked several times a second.

    Raises:
        OSError: it was refused, or not made in time.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        connection.setblocking(False)
        number = connection.connect_ex((address, port))
        if number == errno.EINPROGRESS:
            _await(connection, time.monotonic() + min(seconds, MAX_SECONDS), stopped)
            number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
        connection.setblocking(True)
    except BaseException:
        connection.close()
        raise
    return connection


def _await(connection: socket.socket, until: float, stopped: Callable[[], bool]) -> None:
    poller = select.poll()
    poller.register(connection, select.POLLOUT)
    while not stopped() and (left := until - time.monotonic()) > 0:
        if poller.poll(min(left, _SLICE_SECONDS) * 1_000):
            return
    raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
