"""The plugin's side of the network: `socket` as programs know it, on top of the host's desk.

This process can make no connection. A socket's `connect` asks the host, which checks, connects and
hands over a descriptor; that takes the place of the socket's own, under the same number. Names are
resolved by the host too. What is patched here is comfort: it protects nothing, and a plugin that
goes around it meets the same walls.
"""

from __future__ import annotations

import errno
import os
import socket
import threading

from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.network import CONNECT, MAX_ANSWER_BYTES, MAX_HOST_LENGTH, RESOLVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_SECONDS = 30.0
_MAX_PORT = 65_535
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
# Set before connecting, these would be lost with the socket's own description.
_KEPT_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", 4)),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", 5)),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", 6)),
)


class Desk:
    """Asks the host's network desk; safe to use from many threads.

    One of those that wait reads for all.
    """

    def __init__(self, descriptor: int) -> None:
        self._end = socket.socket(fileno=descriptor)
        self._end.settimeout(None)
        self._changed = threading.Condition()
        self._answers: dict[int, tuple[dict[str, Any], list[int]]] = {}
        self._waiting: set[int] = set()
        self._reading = False
        self._left = False
        self._last = 0

    def leave(self) -> None:
        """In a forked copy of the process: the answers there are for the original's questions."""
        self._left = True
        self._end.close()

    def ask(self, what: str, host: str, port: int, seconds: float) -> tuple[dict[str, Any], int]:
        """Return the answer, and the descriptor that came with it or -1.

        Raises:
            OSError: it was refused, or failed; PermissionError where it is not granted.
        """
        if self._left:
            text = "only the plugin's own process asks for connections, none that it has started"
            raise PermissionError(errno.EPERM, text)
        # What no program means would look like an attack to the host.
        if len(host) > MAX_HOST_LENGTH or not host.isprintable():
            raise OSError(errno.EINVAL, f"{host[:80]!r} is no host")
        if not 0 <= port <= _MAX_PORT:
            raise OverflowError("port must be 0-65535")
        with self._changed:
            self._last += 1
            number = self._last
            self._waiting.add(number)
        request = {"id": number, "ask": what, "host": host, "port": port, "seconds": seconds}
        try:
            self._end.send(pack(request))
            answer, passed = self._wait_for(number)
        finally:
            with self._changed:
                self._waiting.discard(number)
        if answer["error"]:
            # OSError makes itself a PermissionError, a TimeoutError and so on by the number.
            raise OSError(answer["errno"], answer["error"])
        if what == CONNECT and not passed:
            # The kernel dropped it (unix(7), MSG_CTRUNC): there is no number left for it here.
            raise OSError(errno.EMFILE, f"{os.strerror(errno.EMFILE)} for another connection")
        return answer, passed[0] if passed else -1

    def _wait_for(self, number: int) -> tuple[dict[str, Any], list[int]]:
        while True:
            with self._changed:
                while number not in self._answers and self._reading:
                    self._changed.wait()
                if number in self._answers:
                    return self._answers.pop(number)
                self._reading = True
            try:
                data, passed, _, _ = socket.recv_fds(self._end, MAX_ANSWER_BYTES, 1)
            finally:
                with self._changed:
                    self._reading = False
                    self._changed.notify_all()
            if not data:
                raise OSError(errno.ENETDOWN, "the host's network desk is closed")
            answer = unpack(data)
            with self._changed:
                if answer["id"] in self._waiting:
                    self._answers[answer["id"]] = answer, passed
                    passed = []
                self._changed.notify_all()
            for descriptor in passed:  # whoever asked was interrupted
                os.close(descriptor)


class Network:
    """`socket`'s functions and methods, by way of a desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._getaddrinfo = socket.getaddrinfo

    def connect(self, made: socket.socket, address: Any) -> None:
        """Put a connection that the host made in the place of a socket's own description."""
        if made.family not in _FAMILIES:
            raise PermissionError(errno.EPERM, "a plugin connects over TCP, and to nothing else")
        if _is_connected(made):
            raise OSError(errno.EISCONN, os.strerror(errno.EISCONN))
        host, port = _text(address[0]) or "127.0.0.1", int(address[1])
        timeout = made.gettimeout()
        seconds = DEFAULT_SECONDS if not timeout else float(timeout)
        _, given = self._desk.ask(CONNECT, host, port, seconds)
        try:
            for level, option in _KEPT_OPTIONS:
                _carry_over(made, given, level, option)
            os.set_blocking(given, timeout is None)
            os.dup2(given, made.fileno(), inheritable=False)
        finally:
            os.close(given)

    def getaddrinfo(
        self,
        host: Any,
        port: Any,
        family: int = 0,
        kind: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """Resolve a name, which the host does; an address needs nobody."""
        name = _text(host)
        if not name or _is_number(name):
            return self._getaddrinfo(host, port, family, kind, proto, flags)
        answer, _ = self._desk.ask(RESOLVE, name, _number_of(port), DEFAULT_SECONDS)
        found: list[Any] = []
        for address in answer["addresses"]:
            wanted = socket.AF_INET6 if ":" in address else socket.AF_INET
            if family in {0, wanted}:
                known = flags | socket.AI_NUMERICHOST
                found += self._getaddrinfo(address, port, wanted, kind, proto, known)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found


def install(descriptor: int) -> None:
    """Have `socket` ask the host's desk from now on.

    Args:
        descriptor: this end of the socket to it.
    """
    desk = Desk(descriptor)
    os.register_at_fork(after_in_child=desk.leave)
    network = Network(desk)

    def connect(self: socket.socket, address: Any) -> None:
        network.connect(self, address)

    def connect_ex(self: socket.socket, address: Any) -> int:
        try:
            network.connect(self, address)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    # Its arguments are named as the standard library's are: callers name them.
    def getaddrinfo(
        host: Any,
        port: Any,
        family: int = 0,
        type: int = 0,  # noqa: A002 - as above
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        return network.getaddrinfo(host, port, family, type, proto, flags)

    def gethostbyname(host: str) -> str:
        found = network.getaddrinfo(host, 0, socket.AF_INET, socket.SOCK_STREAM)
        return str(found[0][4][0])

    def gethostbyname_ex(host: str) -> tuple[str, list[str], list[str]]:
        found = network.getaddrinfo(host, 0, socket.AF_INET, socket.SOCK_STREAM)
        return host, [], [str(entry[4][0]) for entry in found]

    socket.socket.connect = connect  # type: ignore[method-assign,assignment]
    socket.socket.connect_ex = connect_ex  # type: ignore[method-assign,assignment]
    # asyncio and others look whether it is there, and do without.
    socket.socket.sendmsg = _Absent()  # type: ignore[method-assign,assignment]
    socket.getaddrinfo = getaddrinfo
    socket.gethostbyname = gethostbyname
    socket.gethostbyname_ex = gethostbyname_ex


def install_for_unix() -> None:
    """Have `socket` be without what a plugin that connects to Unix sockets may not do with them."""
    socket.socket.sendmsg = _Absent()  # type: ignore[method-assign,assignment]


class _Absent:
    """An attribute that is not there, although a base class has it."""

    def __get__(self, _instance: object, _owner: object = None) -> object:
        raise AttributeError("sendmsg")


def _text(host: Any) -> str:
    return host.decode("ascii") if isinstance(host, bytes | bytearray) else host or ""


def _is_connected(made: socket.socket) -> bool:
    try:
        made.getpeername()
    except OSError:
        return False
    return True


def _carry_over(old: socket.socket, given: int, level: int, option: int) -> None:
    try:
        value = old.getsockopt(level, option)
        new = socket.socket(fileno=os.dup(given))
    except OSError:
        return
    try:
        if new.getsockopt(level, option) != value:
            new.setsockopt(level, option, value)
    except OSError:
        pass  # an option is not worth the connection
    finally:
        new.close()


def _is_number(host: str) -> bool:
    for family in _FAMILIES:
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except OSError:
            continue
        return True
    return False


def _number_of(port: Any) -> int:
    try:
        return int(port or 0)
    except (TypeError, ValueError):
        try:
            return socket.getservbyname(str(port), "tcp")
        except OSError:
            return 0
