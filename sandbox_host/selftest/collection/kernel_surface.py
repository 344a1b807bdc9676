"""Kernel surface that Python work does not need: each call is a way in for its own bugs."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable
from typing import Any

from .native import NULL, syscall, text, zeros
from .registry import (
    UNREACHABLE,
    Boundary,
    Target,
    against,
    counts_as_success,
    host,
    named,
)

attack = against(Boundary.KERNEL_SURFACE)

_NEW_USER, _NEW_NET, _NEW_MOUNTS, _NEW_UTS = 0x10000000, 0x40000000, 0x20000, 0x04000000
_PRIVATE_RECURSIVE = 0x44000
_PAGE = 4_096


def _bpf_map() -> int:
    # BPF_MAP_CREATE of an array: type, key size, value size, entries.
    return syscall("bpf", 0, ctypes.c_char_p(struct.pack("4I", 2, 4, 4, 1) + bytes(56)), 72)


def _perf_event() -> int:
    # A software event of this process, kernel and hypervisor excluded: what paranoid = 2 allows.
    attributes = struct.pack("IIQQQQQ", 1, 112, 0, 0, 0, 0, 0b1100000)
    return syscall("perf_event_open", ctypes.c_char_p(attributes.ljust(112, b"\0")), 0, -1, -1, 0)


def _seccomp() -> int:
    action = ctypes.c_uint32(0x7FFF0000)
    return syscall("seccomp", 2, 0, ctypes.byref(action))


def _add_key() -> int:
    return syscall("add_key", text("user"), text("sandbox-host"), text("x"), 1, -2)


def _accounting() -> None:
    # A path that is not there: with a good one, or none, the machine's accounting would change.
    with counts_as_success(errno.ENOENT):
        syscall("acct", text("/nonexistent/accounting"))


def _load_module() -> None:
    with counts_as_success(errno.ENOEXEC, errno.EFAULT, errno.EINVAL):
        syscall("init_module", NULL, 0, text(""))


def _unload_module() -> None:
    with counts_as_success(errno.ENOENT):
        syscall("delete_module", text("sandbox_host_has_no_module"), 0)


def _pivot_root() -> None:
    with counts_as_success(errno.ENOENT):
        syscall("pivot_root", text("/nonexistent/root"), text("/nonexistent/root"))


def _splice() -> None:
    read_end, write_end = os.pipe()
    _, other = os.pipe()
    os.write(write_end, b"x")
    syscall("splice", read_end, NULL, other, NULL, 1, 0)


def _vmsplice() -> None:
    page = zeros(_PAGE)
    _, write_end = os.pipe()
    vector = ctypes.c_char_p(struct.pack("QQ", ctypes.addressof(page), _PAGE))
    syscall("vmsplice", write_end, vector, 1, 0)


def _quota() -> None:
    with counts_as_success(errno.ENOENT, errno.ENODEV, errno.ENOTBLK, errno.ESRCH):
        syscall("quotactl", 0x80000100, text("/nonexistent/device"), 0, zeros(256))


def _unmount() -> None:
    with counts_as_success(errno.ENOENT):
        syscall("umount2", text("/nonexistent/mount"), 0)


_CALLS: dict[str, tuple[Callable[[], object], dict[str, Any]]] = {
    "io_uring": (lambda: syscall("io_uring_setup", 1, zeros(120)), {"optional": True}),
    "asynchronous_input": (
        lambda: syscall("io_setup", 1, ctypes.byref(ctypes.c_ulong(0))),
        {"optional": True},
    ),
    "bpf_map": (_bpf_map, {"root": True, "optional": True}),
    "perf_event": (_perf_event, {"optional": True}),
    "inspect_seccomp": (_seccomp, {}),
    "add_key": (_add_key, {"optional": True}),
    "session_keyring": (lambda: syscall("keyctl", 0, -3, 1), {"optional": True}),
    "memory_file": (lambda: os.memfd_create("x"), {}),
    "secret_memory": (lambda: syscall("memfd_secret", 0), {"optional": True}),
    "userfaultfd": (lambda: syscall("userfaultfd", 1), {"optional": True}),
    "user_namespace": (lambda: syscall("unshare", _NEW_USER), {"optional": True}),
    "mount_namespace": (lambda: syscall("unshare", _NEW_MOUNTS), {"root": True}),
    "network_namespace": (lambda: syscall("unshare", _NEW_NET), {"root": True}),
    "share_less": (lambda: syscall("unshare", 0x400), {}),
    "change_root": (lambda: os.chroot("/"), {"root": True}),
    "pivot_root": (_pivot_root, {"root": True}),
    "new_file_system": (
        lambda: syscall("fsopen", text("tmpfs"), 1),
        {"root": True, "optional": True},
    ),
    "clone_mount": (
        lambda: syscall("open_tree", -100, text("/"), 1),
        {"root": True, "optional": True},
    ),
    "unmount": (_unmount, {"root": True}),
    "quota": (_quota, {"root": True, "optional": True}),
    "inotify": (lambda: syscall("inotify_init1", 0), {}),
    "fanotify": (lambda: syscall("fanotify_init", 0, 0), {"root": True, "optional": True}),
    "personality": (lambda: syscall("personality", 0xFFFFFFFF), {}),
    "new_landlock": (
        lambda: syscall("landlock_create_ruleset", NULL, 0, 1),
        {"optional": True},
    ),
    "accounting": (_accounting, {"root": True, "optional": True}),
    "load_module": (_load_module, {"root": True, "optional": True}),
    "unload_module": (_unload_module, {"root": True, "optional": True}),
    "read_clock_discipline": (lambda: syscall("adjtimex", zeros(208)), {"optional": True}),
    "set_time_zone_of_kernel": (lambda: syscall("settimeofday", NULL, NULL), {"root": True}),
    "splice_pipes": (_splice, {}),
    "lend_memory_to_a_pipe": (_vmsplice, {}),
}

for _name, (_call, _options) in _CALLS.items():
    attack("EPERM", **_options)(named(_name, _call))


@attack("EPERM", root=True)
def mount_file_system(target: Target) -> None:
    # In a namespace of its own that passes nothing on, so that the control leaves nothing behind.
    syscall("unshare", _NEW_MOUNTS)
    syscall("mount", text("none"), text("/"), NULL, _PRIVATE_RECURSIVE, NULL)
    syscall("mount", text("none"), text(target["own"]), text("tmpfs"), 0, NULL)


@attack(*UNREACHABLE, root=True)
def enter_namespace(target: Target) -> None:
    descriptor = os.open(f"/proc/{host(target)}/ns/uts", os.O_RDONLY)
    try:
        syscall("setns", descriptor, _NEW_UTS)
    finally:
        os.close(descriptor)


@attack("EPERM", root=True)
def change_host_name(_: Target) -> None:
    name = os.uname().nodename  # to what it is already
    syscall("sethostname", text(name), len(os.fsencode(name)))


@attack("EACCES", "ENOENT", optional=True)
def push_into_terminal(_: Target) -> None:
    _other, terminal = os.openpty()
    os.setsid()
    fcntl.ioctl(terminal, 0x540E, 0)  # TIOCSCTTY
    fcntl.ioctl(terminal, 0x5412, b"x")  # TIOCSTI, CVE-2017-5226


@attack("EACCES", "ENOENT", "ENXIO", optional=True)
def open_terminal_of_the_session(_: Target) -> None:
    os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))


@attack("EACCES", "ENOENT", optional=True)
def open_terminal(_: Target) -> None:
    for descriptor in os.openpty():
        os.close(descriptor)


@attack("ENOTTY")
def unknown_device_call(target: Target) -> None:
    with open(target["own"] + "/flags", "wb") as file:
        flags = ctypes.c_long()
        try:
            fcntl.ioctl(
                file.fileno(), 0x80086601, flags
            )  # FS_IOC_GETFLAGS: to a file system's code
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
