"""Serves one plugin's requests for connections: checks, connects, hands the descriptor over.

A few threads wait for requests; more wait in the kernel's queue, and the plugin with them. What a
plugin resolved is remembered, so that it may connect to the address it was told.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import select
import socket
import threading
import time
from array import array
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.network import (
    CONNECT,
    MAX_ADDRESSES,
    MAX_HOST_LENGTH,
    MAX_REQUEST_BYTES,
    RESOLVE,
)
from sandbox_host.budget.rate import Bucket
from sandbox_host.network import dial, meter
from sandbox_host.network.allowlist import LOCALHOST, literal, normalized
from sandbox_host.network.diag import Passed
from sandbox_host.reading import quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox_host.network.allowlist import Allowlist

_log = logging.getLogger("sandbox_host")

SERVERS: Final = 4
"""So many requests of one plugin are worked on at a time."""

REQUESTS_PER_SECOND: Final = 20.0
BURST: Final = 200.0

_MAX_PINNED: Final = 256
_SEND_BUFFER_BYTES: Final = 2_048
_PATIENCE_SECONDS: Final = 30.0
_SLICE_SECONDS: Final = 0.25
_MAX_PORT: Final = 65_535


class BadRequestError(Exception):
    """It is not what the SDK inside sends: the plugin is to be ended."""


class _DeniedError(Exception):
    """It may not; the text says why, and what would open it."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for, checked.

    Attributes:
        seconds: how long connecting may take.
    """

    id: int
    ask: str
    host: str
    port: int
    seconds: float


def parse_request(data: bytes) -> Request:
    """Return the request in a packet.

    Raises:
        BadRequestError: it is none.
    """
    try:
        fields = codec.unpack(data)
    except PayloadError as error:
        raise BadRequestError(str(error)) from None
    if not isinstance(fields, dict) or set(fields) != {"id", "ask", "host", "port", "seconds"}:
        text = "a request for the network has not the fields it must have"
        raise BadRequestError(text)
    number, ask, host, port = (fields[name] for name in ("id", "ask", "host", "port"))
    seconds = fields["seconds"]
    if (
        type(number) is not int
        or not (isinstance(ask, str) and ask in {CONNECT, RESOLVE})
        or not (isinstance(host, str) and 0 < len(host) <= MAX_HOST_LENGTH and host.isprintable())
        or not (type(port) is int and 0 <= port <= _MAX_PORT)
        or not (isinstance(seconds, float) and math.isfinite(seconds))
    ):
        text = "a request for the network has a field that cannot be"
        raise BadRequestError(text)
    return Request(number, ask, host, port, seconds)


class NetworkDesk:
    """One plugin's.

    Args:
        end: the host's end of a packet socket; belongs to the desk from now on.
        allowlist: where the plugin may connect to.
        on_denied: is told of what was refused, in a sentence.
        on_violation: is told of what is no request, which ends the plugin.
        on_fault: takes a fault of the host's, which ends it too.
        on_connected: is told where a connection leads that was handed over, as ``host:port``.
        on_passed: is told, twice a second and at each end, how many bytes have passed in all.

    Attributes:
        connections: how many were handed over.
        denied: how many requests were refused.
    """

    def __init__(
        self,
        end: socket.socket,
        allowlist: Allowlist,
        *,
        on_denied: Callable[[str], None],
        on_violation: Callable[[str], None],
        on_fault: Callable[[BaseException], None],
        on_passed: Callable[[int], None],
        on_connected: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._on_connected = on_connected
        self._end = end
        self._account = _account(on_passed, on_fault)
        self._allowlist = allowlist
        self._on_denied = on_denied
        self._on_violation = on_violation
        self._on_fault = on_fault
        self._lock = threading.Lock()
        self._rate = Bucket(REQUESTS_PER_SECOND, BURST)
        self._pinned: OrderedDict[str, set[str]] = OrderedDict()
        self._closed = False
        self.connections = 0
        self.denied = 0
        end.setblocking(True)
        # A descriptor that the plugin has not taken yet is one of the host's, and of all processes
        # of its user (unix(7), ETOOMANYREFS): so few are on their way that a thread soon waits.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._serving = SERVERS
        for number in range(SERVERS):
            name = f"sandbox-host-network-{number}"
            threading.Thread(target=self._serve, name=name, daemon=True).start()

    def close(self) -> None:
        """Serve no more; what is being connected is closed when it is."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)  # wakes who waits for requests; close would not
        if self._account is not None:
            self._account.close()

    def passed(self) -> Passed:
        """Return the bytes that have passed through all connections; 0 where nobody tells."""
        return self._account.passed() if self._account is not None else Passed()

    def _serve(self) -> None:
        try:
            while not self._closed and (data := self._receive()):
                self._wait_for_turn()
                self._answer(data)
        except BadRequestError as error:
            self._on_violation(str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, it must be known
            if not self._closed:
                self._on_fault(error)
        finally:
            with self._lock:
                self._serving -= 1
                last = not self._serving
            if last:
                # Not before: the number might be another plugin's when a thread uses it.
                self._end.close()

    def _receive(self) -> bytes:
        """Return the next packet, or b"" when there will be none."""
        try:
            data = self._end.recv(MAX_REQUEST_BYTES + 1)
        except OSError:
            return b""
        if not data and not self._closed and not self._hung_up():
            text = "a request for the network is empty"
            raise BadRequestError(text)
        return data

    def _hung_up(self) -> bool:
        """An empty packet looks like the end of the stream; the kernel knows the difference."""
        poller = select.poll()
        poller.register(self._end, 0)
        return bool(poller.poll(0))

    def _wait_for_turn(self) -> None:
        with self._lock:
            self._rate.take(1.0, time.monotonic())
            pause = self._rate.wait(time.monotonic())
        time.sleep(min(pause, 1.0))

    def _answer(self, data: bytes) -> None:
        if len(data) > MAX_REQUEST_BYTES:
            text = "a request for the network is too large"
            raise BadRequestError(text)
        request = parse_request(data)
        answer: dict[str, Any] = {"id": request.id, "error": "", "errno": 0}
        passed: list[int] = []
        try:
            if request.ask == RESOLVE:
                answer["addresses"] = self._resolve(request)
            else:
                passed.append(self._connect(request))
        except _DeniedError as error:
            self.denied += 1
            answer |= {"error": str(error), "errno": errno.EPERM}
            self._on_denied(str(error))
        except OSError as error:
            told = f"{_shown(request)}: {error.strerror or error}"
            answer |= {"error": told, "errno": _errno_of(error)}
        # Counted before it is there: who has it may tell of it before this thread goes on.
        self._count(len(passed))
        sent = False
        try:
            sent = self._send(answer, passed)
            if sent:
                self._on_connected(_address(request))
        finally:
            if not sent:
                self._count(-len(passed))
            for descriptor in passed:
                os.close(descriptor)

    def _send(self, answer: dict[str, Any], passed: list[int]) -> bool:
        """Hand an answer over, waiting a while for a plugin that does not read.

        Returns:
            Whether it has a connection now.
        """
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", passed))] if passed else []
        until = time.monotonic() + _PATIENCE_SECONDS
        while not self._closed:
            try:
                # Not `socket.send_fds`, which ignores the flags.
                self._end.sendmsg([codec.pack(answer)], rights, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if time.monotonic() > until:
                    return False  # it has asked, and does not want to know
                self._await_room()
            except OSError as error:
                if not rights:
                    return False  # it is gone
                told = f"the host cannot hand it over now: {error.strerror}"
                answer, rights = {**answer, "error": told, "errno": errno.EAGAIN}, []
            else:
                return bool(rights)
        return False

    def _count(self, more: int) -> None:
        with self._lock:
            self.connections += more

    def _await_room(self) -> None:
        poller = select.poll()
        poller.register(self._end, select.POLLOUT)
        poller.poll(_SLICE_SECONDS * 1_000)

    def _resolve(self, request: Request) -> list[str]:
        host = request.host
        if not self._allowlist.knows(host):
            raise _DeniedError(_not_granted(f"resolving {quoted(host)}", host, request.port))
        addresses = dial.resolve(normalized(host))[:MAX_ADDRESSES]
        with self._lock:
            for address in addresses:
                self._pinned.setdefault(address, set()).add(normalized(host))
                self._pinned.move_to_end(address)
            while len(self._pinned) > _MAX_PINNED:
                self._pinned.popitem(last=False)
        return addresses

    def _connect(self, request: Request) -> int:
        host, port = normalized(request.host), request.port
        until = time.monotonic() + min(request.seconds, dial.MAX_SECONDS)
        failed: OSError | None = None
        for name, address in self._ways(host, port):
            if fault := self._allowlist.address_fault(name, address, port):
                raise _DeniedError(fault)
            try:
                left = until - time.monotonic()
                return self._counted(dial.connect(address, port, left, lambda: self._closed))
            except OSError as error:
                failed = error
        raise failed or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))

    def _counted(self, connection: socket.socket) -> int:
        """Return the descriptor of a connection, whose bytes are counted from its first on."""
        try:
            if self._account is not None:
                self._account.add(connection)
        except BaseException:
            connection.close()
            raise
        return connection.detach()

    def _ways(self, host: str, port: int) -> list[tuple[str, str]]:
        """Return each granted name with an address that it leads to.

        Raises:
            _DeniedError: nothing of the kind is granted.
            OSError: the name cannot be resolved now.
        """
        if literal(host) is None:
            if not self._allowlist.permits(host, port):
                raise _DeniedError(_not_granted(f"connecting to {quoted(host)}", host, port))
            return [(host, address) for address in dial.resolve(host)]
        if self._allowlist.permits(host, port):
            return [(host, host)]
        with self._lock:
            names = set(self._pinned.get(host, ()))
        granted = sorted(name for name in names if self._allowlist.permits(name, port))
        if not granted:
            raise _DeniedError(_not_granted(f"connecting to {host}", host, port))
        return [(granted[0], host)]


def _account(
    on_passed: Callable[[int], None], on_fault: Callable[[BaseException], None]
) -> meter.Account | None:
    try:
        return meter.open_account(lambda it: on_passed(it.sent + it.received), on_fault)
    except OSError as error:
        _log.warning("the bytes of plugins' connections are not counted here: %s", error)
        return None


def _address(request: Request) -> str:
    host = normalized(request.host)
    return f"[{host}]:{request.port}" if ":" in host else f"{host}:{request.port}"


def _not_granted(what: str, host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    entry = f"{shown}:{port}" if port else f"{shown}:<port>"
    loopback = " (the host's own machine)" if normalized(host) == LOCALHOST else ""
    return (
        f"{what}{loopback}, port {port}, is not granted to this plugin; in plugin.json it would be "
        f'"permissions": {{"network": [{quoted(entry)}]}}, and the operator grants it'
    )


def _shown(request: Request) -> str:
    return f"{request.ask} {quoted(request.host)}, port {request.port}"


def _errno_of(error: OSError) -> int:
    if isinstance(error, socket.gaierror):
        return errno.EHOSTUNREACH
    if isinstance(error, TimeoutError):
        return errno.ETIMEDOUT
    return error.errno or errno.EIO
