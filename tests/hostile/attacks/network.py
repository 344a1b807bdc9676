"""Sockets of every family, and the ways to send without one of one's own."""

from __future__ import annotations

import os
import socket

from .registry import Target, attack, syscall


@attack("EPERM")
def tcp_connect(target: Target) -> None:
    socket.create_connection(("127.0.0.1", target["tcp_port"]), timeout=5).close()


@attack("EPERM")
def tcp_socket_ipv6(_: Target) -> None:
    socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()


@attack("EPERM")
def tcp_listen(_: Target) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()


@attack("EPERM")
def udp_send(target: Target) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("127.0.0.1", target["tcp_port"]))


@attack("EPERM")
def unix_connect(target: Target) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(target["unix_path"])


@attack("EPERM")
def unix_listen(target: Target) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(target["own"] + "/s")
        server.listen()


@attack("EPERM")
def abstract_connect(target: Target) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect("\0" + target["abstract_name"])


@attack("EPERM")
def datagram_to_path_through_a_pair(target: Target) -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        one.sendto(b"x", target["datagram_path"])


@attack("EPERM")
def pass_a_descriptor(_: Target) -> None:
    one, other = socket.socketpair()
    with one, other:
        socket.send_fds(one, [b"x"], [0])


@attack("EPERM")
def enlarge_buffers(_: Target) -> None:
    one, other = socket.socketpair()
    with one, other:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)


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
    import ctypes
    import struct

    instruction = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0xFFFF))
    program = struct.pack("HL", 1, ctypes.addressof(instruction))
    one, other = socket.socketpair()
    with one, other:
        one.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER


@attack("gaierror", optional=True)
def resolve_a_name(_: Target) -> None:
    assert socket.getaddrinfo("localhost", 80)


@attack("EPERM", optional=True)
def posix_message_queue(_: Target) -> None:
    import ctypes

    name = ctypes.c_char_p(b"sandbox-host-test")
    os.close(syscall("mq_open", name, os.O_CREAT | os.O_RDWR, 0o600, ctypes.c_void_p()))
