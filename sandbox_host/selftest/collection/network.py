"""Sockets of every family, and the ways to send without one of one's own."""

from __future__ import annotations

import ctypes
import socket
import struct

from .registry import UNREACHABLE, Boundary, Target, against

attack = against(Boundary.NETWORK)

_NO_SERVICE = ("EACCES", "ECONNREFUSED", "ENETUNREACH")
"""Landlock's answer, and those of a network of one's own, where nobody listens."""


@attack("EPERM", *_NO_SERVICE)
def tcp_connect(target: Target) -> None:
    socket.create_connection(("127.0.0.1", target["tcp_port"]), timeout=5).close()


@attack("EPERM")
def tcp_socket_ipv6(_: Target) -> None:
    socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()


@attack("EPERM", "EACCES")
def tcp_listen(_: Target) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()


@attack("EPERM", *_NO_SERVICE)
def udp_send(target: Target) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("127.0.0.1", target["tcp_port"]))


@attack("EPERM", *UNREACHABLE)
def unix_connect(target: Target) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(target["unix_path"])


@attack("EPERM", "EACCES")
def unix_listen(target: Target) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(target["own"] + "/s")
        server.listen()


@attack("EPERM", *_NO_SERVICE)
def abstract_connect(target: Target) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect("\0" + target["abstract_name"])


@attack("EPERM", *UNREACHABLE)
def datagram_to_path_through_a_pair(target: Target) -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        one.sendto(b"x", target["datagram_path"])


@attack("EPERM")
def netlink(_: Target) -> None:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()


@attack("EPERM", root=True)
def raw_socket(_: Target) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


@attack("EPERM", root=True)
def packet_socket(_: Target) -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()


@attack("EPERM", optional=True)
def vsock(_: Target) -> None:
    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()


@attack("EPERM", optional=True)
def kernel_crypto_socket(_: Target) -> None:
    socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET).close()


@attack("EPERM")
def attach_filter_to_a_pair(_: Target) -> None:
    instruction = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0xFFFF))
    program = struct.pack("HL", 1, ctypes.addressof(instruction))
    one, other = socket.socketpair()
    with one, other:
        one.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER


@attack("gaierror", optional=True)
def resolve_a_name(_: Target) -> None:
    assert socket.getaddrinfo("localhost", 80)


@attack("EPERM")
def udp_broadcast(_: Target) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)


@attack("EPERM", *_NO_SERVICE, optional=True)
def tcp_fast_open(target: Target) -> None:
    # Connects without connect(), which rules on connect() alone do not see.
    with socket.socket() as client:
        client.sendto(b"x", socket.MSG_FASTOPEN, ("127.0.0.1", target["tcp_port"]))


@attack("EPERM", *_NO_SERVICE, optional=True)
def multipath_tcp(target: Target) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as client:
        client.connect(("127.0.0.1", target["tcp_port"]))


@attack("EPERM")
def listen_without_bind(_: Target) -> None:
    with socket.socket() as server:
        server.listen()


@attack("EPERM")
def abstract_listen(target: Target) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind("\0" + target["abstract_name"] + "-of-the-attacker")
        server.listen()


@attack("EPERM", "OSError")
def list_interfaces(_: Target) -> None:
    assert socket.if_nameindex()


@attack("EPERM", optional=True)
def bluetooth(_: Target) -> None:
    socket.socket(31, socket.SOCK_RAW, 1).close()


@attack("EPERM", optional=True)
def stream_control_transmission(_: Target) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132).close()
