"""Kernel surface that Python work does not need, and code made in memory."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct

from .registry import ATTACKS, Attack, Target, attack, check, libc, syscall

PAGE = 4_096
READ, WRITE, EXECUTE = 1, 2, 4
PRIVATE, ANONYMOUS = 2, 0x20
_NULL = ctypes.c_void_p()


def _zeros(size: int) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(size)


def _io_uring() -> int:
    return syscall("io_uring_setup", 1, _zeros(120))


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
    text = ctypes.c_char_p(b"user"), ctypes.c_char_p(b"sandbox-host-test"), ctypes.c_char_p(b"x")
    return syscall("add_key", *text, 1, -2)  # KEY_SPEC_PROCESS_KEYRING


def _remount() -> int:
    # In a mount namespace of its own, so that the control leaves nothing behind.
    syscall("unshare", 0x20000)
    what = ctypes.c_char_p(b"none"), ctypes.c_char_p(b"/tmp"), ctypes.c_char_p(b"tmpfs")
    return syscall("mount", *what, 0, _NULL)


_RAW = {
    "io_uring": (_io_uring, {"optional": True}),
    "bpf_map": (_bpf_map, {"root": True, "optional": True}),
    "perf_event": (_perf_event, {"optional": True}),
    "inspect_seccomp": (_seccomp, {}),
    "add_key": (_add_key, {"optional": True}),
    "mount_file_system": (_remount, {"root": True}),
    "memory_file": (lambda: os.memfd_create("x"), {}),
    "secret_memory": (lambda: syscall("memfd_secret", 0), {"optional": True}),
    "userfaultfd": (lambda: syscall("userfaultfd", 1), {"optional": True}),
    "session_keyring": (lambda: syscall("keyctl", 0, -3, 1), {"optional": True}),
    "user_namespace": (lambda: syscall("unshare", 0x10000000), {"optional": True}),
    "mount_namespace": (lambda: syscall("unshare", 0x20000), {"root": True}),
    "network_namespace": (lambda: syscall("unshare", 0x40000000), {"root": True}),
    "share_less": (lambda: syscall("unshare", 0x400), {}),
    "change_root": (lambda: os.chroot("/"), {"root": True}),
    "inotify": (lambda: syscall("inotify_init1", 0), {}),
    "fanotify": (lambda: syscall("fanotify_init", 0, 0), {"root": True, "optional": True}),
    "personality": (lambda: syscall("personality", 0xFFFFFFFF), {}),
    "new_landlock": (lambda: syscall("landlock_create_ruleset", _NULL, 0, 1), {}),
    "shared_memory": (lambda: syscall("shmget", 0, PAGE, 0o600), {"optional": True}),
    "semaphores": (lambda: syscall("semget", 0, 1, 0o600), {"optional": True}),
    "message_queue": (lambda: syscall("msgget", 0, 0o600), {"optional": True}),
    "kernel_log": (lambda: syscall("syslog", 10, _NULL, 0), {"root": True}),
    "accounting": (lambda: syscall("acct", _NULL), {"root": True, "optional": True}),
    "lock_memory": (lambda: syscall("mlock", ctypes.byref(ctypes.c_long()), 8), {}),
}


def _register(name: str, call: object, options: dict[str, bool]) -> None:
    ATTACKS[name] = Attack(lambda _: call(), ("EPERM",), **options)  # type: ignore[operator]


for _name, (_call, _options) in _RAW.items():
    assert _name not in ATTACKS
    _register(_name, _call, _options)


@attack("EACCES", root=True)
def enter_namespace(_: Target) -> None:
    descriptor = os.open(f"/proc/{os.getppid()}/ns/uts", os.O_RDONLY)
    try:
        syscall("setns", descriptor, 0x04000000)
    finally:
        os.close(descriptor)


@attack("EPERM", root=True)
def change_host_name(_: Target) -> None:
    name = os.uname().nodename.encode()
    syscall("sethostname", ctypes.c_char_p(name), len(name))


@attack("EPERM")
def splice_pipes(_: Target) -> None:
    read_end, write_end = os.pipe()
    _, other = os.pipe()
    os.write(write_end, b"x")
    syscall("splice", read_end, _NULL, other, _NULL, 1, 0)


@attack("EPERM")
def shared_memory_that_nobody_counts(_: Target) -> None:
    mmap.mmap(-1, PAGE).close()


@attack("EACCES")
def shared_zero_device(_: Target) -> None:
    os.close(os.open("/dev/zero", os.O_RDWR))


@attack("EPERM")
def executable_memory(_: Target) -> None:
    check(libc.mmap(None, ctypes.c_size_t(PAGE), 7, PRIVATE | ANONYMOUS, -1, ctypes.c_long(0)))


@attack("EPERM")
def executable_memory_from_python(_: Target) -> None:
    mmap.mmap(-1, PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


@attack("EPERM")
def memory_made_executable(_: Target) -> None:
    size = ctypes.c_size_t(PAGE)
    start = check(libc.mmap(None, size, READ | WRITE, PRIVATE | ANONYMOUS, -1, ctypes.c_long(0)))
    ctypes.memset(start, 0xC3, 1)
    check(libc.mprotect(ctypes.c_void_p(start), size, READ | EXECUTE))


@attack("EPERM")
def writable_executable_file_map(target: Target) -> None:
    path = target["own"] + "/code"
    with open(path, "wb") as file:
        file.write(bytes(PAGE))
    descriptor = os.open(path, os.O_RDWR)
    try:
        check(libc.mmap(None, ctypes.c_size_t(PAGE), 7, 1, descriptor, ctypes.c_long(0)))
    finally:
        os.close(descriptor)


@attack("EPERM")
def grow_pipe(_: Target) -> None:
    import fcntl

    read_end, _write_end = os.pipe()
    fcntl.fcntl(read_end, 1031, 1 << 17)  # F_SETPIPE_SZ pins kernel memory


@attack("EPERM")
def watch_directory_by_signal(target: Target) -> None:
    import fcntl

    descriptor = os.open(target["own"], os.O_RDONLY)
    try:
        fcntl.fcntl(descriptor, 1026, 1)  # F_NOTIFY
    finally:
        os.close(descriptor)
