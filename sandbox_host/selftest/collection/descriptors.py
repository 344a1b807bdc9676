"""Open files of others: inherited, found, taken, passed on."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat

from .native import syscall
from .registry import (
    HIDDEN,
    UNREACHABLE,
    Boundary,
    NothingThereError,
    Target,
    against,
    counts_as_success,
    host,
    read_some,
)

attack = against(Boundary.DESCRIPTORS)

_MOST = 4_096
"""Where the search ends; the limit of today says nothing of what was opened before it."""


@attack("EBADF")
def read_inherited_descriptor(target: Target) -> None:
    assert os.pread(target["secret_fd"], 1, 0)


@attack("EBADF", *UNREACHABLE)
def reopen_inherited_descriptor(target: Target) -> None:
    read_some(f"/proc/self/fd/{target['secret_fd']}")


@attack("NothingThereError")
def find_a_file_that_was_left_open(_: Target) -> None:
    for descriptor in range(3, _MOST):
        try:
            mode = os.fstat(descriptor).st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISBLK(mode):
            return
    raise NothingThereError("only pipes and devices")


@attack("NothingThereError")
def find_a_socket_that_was_left_open(_: Target) -> None:
    for descriptor in range(3, _MOST):
        try:
            mode = os.fstat(descriptor).st_mode
        except OSError:
            continue
        if stat.S_ISSOCK(mode):
            return
    raise NothingThereError("no socket")


@attack(*HIDDEN)
def take_descriptor_of_host(target: Target) -> None:
    descriptor = syscall("pidfd_open", host(target), 0)
    syscall("pidfd_getfd", descriptor, target["secret_fd"], 0)


@attack(*UNREACHABLE)
def list_descriptors_of_host(target: Target) -> None:
    assert os.listdir(f"/proc/{host(target)}/fd")


@attack(*UNREACHABLE)
def open_descriptor_of_host(target: Target) -> None:
    read_some(f"/proc/{host(target)}/fd/{target['secret_fd']}")


@attack("EPERM")
def pass_a_descriptor(_: Target) -> None:
    one, other = socket.socketpair()
    with one, other:
        socket.send_fds(one, [b"x"], [0])


@attack("EPERM")
def receive_a_descriptor(_: Target) -> None:
    one, other = socket.socketpair()
    with one, other:
        one.send(b"x")
        socket.recv_fds(other, 1, 1)


@attack("EPERM", root=True)
def open_by_file_handle(target: Target) -> None:
    # Shocker: a guessed handle opens any file of a file system (CVE-2014-5277 and others). Here the
    # handle is senseless, and only somebody with the capability hears that it is.
    handle = (8).to_bytes(4, "little") + (1).to_bytes(4, "little") + bytes(8)
    descriptor = os.open(target["own"], os.O_RDONLY)
    try:
        with counts_as_success(errno.ESTALE, errno.EINVAL):
            syscall("open_by_handle_at", descriptor, handle, os.O_RDONLY)
    finally:
        os.close(descriptor)


@attack("EPERM", optional=True)
def lease_on_a_file(target: Target) -> None:
    path = target["own"] + "/leased"
    with open(path, "wb"):
        pass
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    finally:
        os.close(descriptor)
