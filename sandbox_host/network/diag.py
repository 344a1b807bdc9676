"""Asks the kernel what has passed through a TCP connection, whoever holds its descriptor now.

The host makes a plugin's connections and keeps none of them, because a second descriptor would
keep one open that the plugin has closed. The kernel tells of each all the same, by its cookie, to
every user: of one that is open when it is asked, of one that ends in a message of its own.

Source: sock_diag(7), ``linux/sock_diag.h``, ``linux/inet_diag.h``, ``linux/tcp.h`` (tcp_info).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_NETLINK_SOCK_DIAG: Final = 4
_SO_COOKIE: Final = 57

_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_REQUEST, _DUMP = 1, 0x300  # NLM_F_REQUEST, NLM_F_DUMP
_INFO: Final = 2  # INET_DIAG_INFO
_DESTROYED: Final = 1 << 0 | 1 << 2  # SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY
_ANY_STATE: Final = 0xFFFF_FFFF

_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST_HEAD: Final = struct.Struct("=BBBBI")  # struct inet_diag_req_v2, without its id
_PORTS: Final = struct.Struct(">HH")
_ADDRESS_BYTES: Final = 16
_BEHIND_ADDRESSES: Final = struct.Struct("=III")  # interface, and the two halves of the cookie
_COOKIE_AT: Final = 4 + 4 + 2 * _ADDRESS_BYTES + 4  # in struct inet_diag_msg
_MESSAGE_BYTES: Final = 72  # the same as a whole
_ATTRIBUTE: Final = struct.Struct("=HH")
_RECEIVED_AT, _SENT_AT = 128, 200  # tcpi_bytes_received; tcpi_bytes_sent, tcpi_bytes_retrans
_RECEIVED: Final = struct.Struct("=Q")
_SENT: Final = struct.Struct("=QQ")

_SO_ATTACH_FILTER: Final = 26
_INSTRUCTION: Final = struct.Struct("=HBBI")  # struct sock_filter
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_MAX_JUMP: Final = 255
_WHOLE: Final = 0xFFFF_FFFF

_MAX_PACKET: Final = 32_768
_ANSWER_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Passed:
    """Bytes of payload that have passed, by TCP's own count.

    Attributes:
        sent: by this side; what was sent again is counted once.
        received: in order; the other side's end of the stream counts as one.
    """

    sent: int = 0
    received: int = 0

    def __add__(self, other: Passed) -> Passed:
        return Passed(self.sent + other.sent, self.received + other.received)


@dataclass(frozen=True, slots=True)
class Identity:
    """By what the kernel finds a connection again.

    Attributes:
        cookie: never that of another, as long as the machine runs.
        id: the ``struct inet_diag_sockid``.
    """

    cookie: int
    family: int
    id: bytes


def identify(connection: socket.socket) -> Identity:
    """Return the identity of a connected TCP socket.

    Raises:
        OSError: it is none, or the kernel has no cookies.
    """
    (cookie,) = struct.unpack("=Q", connection.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8))
    ends = connection.getsockname(), connection.getpeername()
    packed = [
        socket.inet_pton(connection.family, end[0]).ljust(_ADDRESS_BYTES, b"\0") for end in ends
    ]
    behind = _BEHIND_ADDRESSES.pack(0, cookie & 0xFFFF_FFFF, cookie >> 32)
    ports = _PORTS.pack(*(end[1] for end in ends))
    return Identity(cookie, connection.family, ports + b"".join(packed) + behind)


class Asker:
    """Asks about connections. Not for two threads at once.

    Raises:
        OSError: the kernel does not tell of connections.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        try:
            self._socket.settimeout(_ANSWER_SECONDS)
            # Of connections in no state at all: costs nothing, and tells whether it is answered.
            id_ = bytes(_PORTS.size + 2 * _ADDRESS_BYTES + _BEHIND_ADDRESSES.size)
            list(self._ask(socket.AF_INET, id_, flags=_REQUEST | _DUMP, states=0))
        except BaseException:
            self._socket.close()
            raise

    def passed(self, identity: Identity) -> Passed | None:
        """Return what has passed so far; None once the connection has ended on this side.

        Raises:
            OSError: the kernel does not answer.
        """
        try:
            told = dict(self._ask(identity.family, identity.id))
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ESTALE}:
                return None
            raise
        return told.get(identity.cookie)

    def close(self) -> None:
        """Ask no more."""
        self._socket.close()

    def _ask(
        self, family: int, id_: bytes, flags: int = _REQUEST, states: int = _ANY_STATE
    ) -> list[tuple[int, Passed]]:
        head = _REQUEST_HEAD.pack(family, socket.IPPROTO_TCP, 1 << (_INFO - 1), 0, states)
        size = _HEADER.size + len(head) + len(id_)
        self._socket.send(_HEADER.pack(size, _BY_FAMILY, flags, 0, 0) + head + id_)
        return list(parse(self._socket.recv(_MAX_PACKET)))


def listen() -> socket.socket:
    """Return a socket on which the kernel tells of each TCP connection that ends, for `parse`.

    Of all of the host's network namespace; those who do not read in time miss some (ENOBUFS).

    Raises:
        OSError: the kernel does not tell.
    """
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        made.bind((0, _DESTROYED))
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def attend(listener: socket.socket, cookies: Collection[int]) -> None:
    """Have the kernel tell a listener of the ends of these connections alone.

    A machine may end thousands in a second; others are dropped before they wake anybody. With more
    than fit into the filter's jumps, all are told.

    Raises:
        OSError: the kernel takes no filter.
    """
    # Classic BPF, whose loads are big-endian: the cookie's lower half, then one jump for each.
    wanted = sorted({cookie & 0xFFFF_FFFF for cookie in cookies})
    instructions = [(_RETURN, 0, 0, _WHOLE)]
    if len(wanted) <= _MAX_JUMP:
        jumps = [
            (_JUMP_EQUAL, len(wanted) - number, 0, _swapped(low))
            for number, low in enumerate(wanted)
        ]
        load = (_LOAD, 0, 0, _HEADER.size + _COOKIE_AT)
        instructions = [load, *jumps, (_RETURN, 0, 0, 0), *instructions]
    program = b"".join(_INSTRUCTION.pack(*one) for one in instructions)
    held = ctypes.create_string_buffer(program, len(program))
    count = len(program) // _INSTRUCTION.size
    listener.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", count, ctypes.addressof(held))
    )


def _swapped(word: int) -> int:
    return int.from_bytes(word.to_bytes(4, "little"), "big")


def parse(packet: bytes) -> Iterator[tuple[int, Passed]]:
    """Yield the cookie of each connection that a packet tells of, and what has passed through it.

    A connection of which only the remains are known (TIME_WAIT) is left out. What is no such
    message, or cut short, ends it: it is the kernel's word, and nothing is decided by its form.

    Raises:
        OSError: the packet is the kernel's refusal.
    """
    at = 0
    while at + _HEADER.size <= len(packet):
        size, kind, *_ = _HEADER.unpack_from(packet, at)
        body = packet[at + _HEADER.size : at + size]
        if size < _HEADER.size or kind == _DONE:
            return
        if kind == _ERROR:
            number = -int.from_bytes(body[:4], "little", signed=True)
            if number:
                raise OSError(number, os.strerror(number))
            return
        if len(body) >= _MESSAGE_BYTES:
            passed = _passed(body[_MESSAGE_BYTES:])
            if passed is not None:
                yield int.from_bytes(body[_COOKIE_AT : _COOKIE_AT + 8], "little"), passed
        at += _aligned(size)


def _passed(attributes: bytes) -> Passed | None:
    at = 0
    while at + _ATTRIBUTE.size <= len(attributes):
        size, kind = _ATTRIBUTE.unpack_from(attributes, at)
        if size < _ATTRIBUTE.size:
            return None
        info = attributes[at + _ATTRIBUTE.size : at + size]
        if kind == _INFO and len(info) >= _SENT_AT + _SENT.size:
            sent, again = _SENT.unpack_from(info, _SENT_AT)
            return Passed(max(0, sent - again), _RECEIVED.unpack_from(info, _RECEIVED_AT)[0])
        at += _aligned(size)
    return None


def _aligned(size: int) -> int:
    return size + 3 & ~3
