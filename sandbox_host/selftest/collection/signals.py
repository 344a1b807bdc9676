"""Signals to others: by every call that sends one, and by what makes the kernel send one."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import threading

from .native import syscall
from .registry import HIDDEN, Boundary, Target, against, host

attack = against(Boundary.SIGNALS)

_F_SETOWN, _F_SETSIG, _F_SETOWN_EX, _F_NOTIFY = 8, 10, 15, 1026
_FIOSETOWN = 0x8901
_TERM = int(signal.SIGTERM)


@attack(*HIDDEN)
def probe_host(target: Target) -> None:
    os.kill(host(target), 0)


@attack(*HIDDEN)
def probe_another_plugin(target: Target) -> None:
    os.kill(target["neighbour_pid"], 0)


@attack(*HIDDEN)
def probe_everybody(_: Target) -> None:
    os.kill(-1, 0)


@attack(*HIDDEN, ends_parent=_TERM)
def terminate_host(target: Target) -> None:
    os.kill(host(target), signal.SIGTERM)


@attack(*HIDDEN, ends_parent=_TERM)
def terminate_thread_of_host(target: Target) -> None:
    syscall("tkill", host(target), _TERM)


@attack(*HIDDEN, ends_parent=_TERM)
def terminate_host_through_pidfd(target: Target) -> None:
    descriptor = syscall("pidfd_open", host(target), 0)
    syscall("pidfd_send_signal", descriptor, _TERM, ctypes.c_void_p(), 0)


def _queued() -> ctypes.c_char_p:
    # SI_QUEUE is the only si_code that an ordinary user may send to another process.
    return ctypes.c_char_p(struct.pack("iii", _TERM, 0, -1) + bytes(116))


@attack(*HIDDEN, ends_parent=_TERM)
def queue_signal_to_host(target: Target) -> None:
    syscall("rt_sigqueueinfo", host(target), _TERM, _queued())


@attack(*HIDDEN, ends_parent=_TERM)
def queue_signal_to_thread_of_host(target: Target) -> None:
    syscall("rt_tgsigqueueinfo", host(target), host(target), _TERM, _queued())


def _have_data_arrive(read_end: int, write_end: int) -> None:
    fcntl.fcntl(read_end, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(write_end, b"x")


@attack(*HIDDEN, ends_parent=int(signal.SIGIO))
def signal_host_by_pipe_owner(target: Target) -> None:
    read_end, write_end = os.pipe()
    fcntl.fcntl(read_end, _F_SETOWN, host(target))
    _have_data_arrive(read_end, write_end)


@attack(*HIDDEN, ends_parent=_TERM)
def signal_host_by_pipe_owner_ex(target: Target) -> None:
    read_end, write_end = os.pipe()
    fcntl.fcntl(read_end, _F_SETOWN_EX, struct.pack("ii", 1, host(target)))
    fcntl.fcntl(read_end, _F_SETSIG, _TERM)
    _have_data_arrive(read_end, write_end)


@attack("ENOTTY", "ESRCH", ends_parent=int(signal.SIGIO))
def signal_host_by_socket_owner(target: Target) -> None:
    one, other = socket.socketpair()
    with one, other:
        fcntl.ioctl(one.fileno(), _FIOSETOWN, struct.pack("i", host(target)))
        _have_data_arrive(one.fileno(), other.fileno())


@attack("EPERM")
def signal_own_group(_: Target) -> None:
    os.killpg(0, 0)


@attack("EPERM")
def stop_with_a_cause_that_is_not_true(_: Target) -> None:
    # The host would tell of a CPU limit. The attacker ignores it, so that the control lives on.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    os.kill(os.getpid(), signal.SIGXCPU)


@attack("EPERM")
def timer_that_signals(_: Target) -> None:
    timer = ctypes.c_int()
    syscall("timer_create", 1, ctypes.c_void_p(), ctypes.byref(timer))
    syscall("timer_delete", timer.value)


@attack("EPERM")
def watch_directory_by_signal(target: Target) -> None:
    descriptor = os.open(target["own"], os.O_RDONLY)
    try:
        fcntl.fcntl(descriptor, _F_NOTIFY, 1)
    finally:
        os.close(descriptor)
