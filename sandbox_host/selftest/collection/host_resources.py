"""More of the machine than its share: memory, disk, processes, CPU, and what the kernel pins.

Bounded, each: enough to be over the limits that `selftest.arena` sets, nothing to a machine.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import resource
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from .native import NULL, syscall, text, zeros
from .registry import UNREACHABLE, UNWRITABLE, Boundary, Target, against

attack = against(Boundary.HOST_RESOURCES)

_MIB = 1024 * 1024
_PAGE = 4_096
_HELD_SECONDS = 0.5
"""How long more than allowed is held: the host looks fifty times a second."""

_SIZED = ("own-root",)
"""Its scratch directory is a file system of a size; elsewhere only each file is bounded."""


# -- memory ---------------------------------------------------------------------------------------


def _fill(memory: mmap.mmap, size: int) -> None:
    for offset in range(0, size, _PAGE):
        memory[offset] = 1


@attack("MemoryError", "ENOMEM", "ended:memory")
def hold_memory(target: Target) -> None:
    size = target["limits"]["memory_bytes"] * 3 // 2
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        _fill(memory, size)
        time.sleep(_HELD_SECONDS)


@attack("MemoryError", "ENOMEM", "ended:memory")
def hold_memory_in_objects(target: Target) -> None:
    held = [bytearray(_MIB) for _ in range(target["limits"]["memory_bytes"] * 3 // 2 // _MIB)]
    for block in held:
        block[::_PAGE] = b"\1" * (_MIB // _PAGE)
    time.sleep(_HELD_SECONDS)
    held.clear()


@attack("MemoryError", "ENOMEM")
def reserve_address_space(target: Target) -> None:
    size = target["limits"]["memory_bytes"] * 64
    mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000).close()


@attack("EPERM")
def shared_memory_that_nobody_counts(_: Target) -> None:
    mmap.mmap(-1, _PAGE).close()


@attack(*UNWRITABLE, optional=True)
def shared_memory_by_file(_: Target) -> None:
    os.close(os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR, 0o600))


@attack("EPERM", *UNREACHABLE)
def shared_zero_device(_: Target) -> None:
    descriptor = os.open("/dev/zero", os.O_RDWR)
    try:
        mmap.mmap(descriptor, _PAGE).close()
    finally:
        os.close(descriptor)


@attack("EPERM")
def memory_in_a_memory_file(_: Target) -> None:
    descriptor = os.memfd_create("hoard")
    try:
        os.ftruncate(descriptor, 4 * _MIB)
    finally:
        os.close(descriptor)


@attack("EPERM")
def lock_memory(_: Target) -> None:
    syscall("mlock", ctypes.byref(ctypes.c_long()), 8)


# -- what the kernel holds for it -----------------------------------------------------------------


@attack("EPERM", optional=True)
def shared_memory_segment(_: Target) -> None:
    syscall("shmctl", syscall("shmget", 0, _PAGE, 0o600), 0, NULL)  # and removed again


@attack("EPERM", optional=True)
def semaphores(_: Target) -> None:
    syscall("semctl", syscall("semget", 0, 1, 0o600), 0, 0, 0)


@attack("EPERM", optional=True)
def message_queue(_: Target) -> None:
    syscall("msgctl", syscall("msgget", 0, 0o600), 0, NULL)


@attack("EPERM", optional=True)
def posix_message_queue(target: Target) -> None:
    name = text(target["abstract_name"])
    os.close(syscall("mq_open", name, os.O_CREAT | os.O_RDWR, 0o600, NULL))
    syscall("mq_unlink", name)


@attack("EPERM", optional=True)
def many_keys(_: Target) -> None:
    for number in range(32):
        # In the keyring of the process, which ends with it.
        syscall("add_key", text("user"), text(f"sandbox-host-{number}"), zeros(64), 64, -2)


@attack("EPERM")
def grow_pipe(_: Target) -> None:
    read_end, write_end = os.pipe()
    try:
        fcntl.fcntl(read_end, 1031, 1 << 17)  # F_SETPIPE_SZ pins kernel memory
    finally:
        os.close(read_end)
        os.close(write_end)


@attack("EPERM")
def enlarge_buffers(_: Target) -> None:
    one, other = socket.socketpair()
    with one, other:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)


@attack("EPERM")
def many_watches(_: Target) -> None:
    with ExitStack() as stack:
        for _number in range(16):
            stack.callback(os.close, syscall("inotify_init1", 0))


@attack("EPERM")
def many_timers(_: Target) -> None:
    timers = []
    for _number in range(64):
        timer = ctypes.c_int()
        syscall("timer_create", 1, NULL, ctypes.byref(timer))
        timers.append(timer.value)
    for value in timers:
        syscall("timer_delete", value)


@attack("EPERM")
def many_waiting_signals(_: Target) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN + 3})
    for _number in range(1_000):
        os.kill(os.getpid(), signal.SIGRTMIN + 3)


# -- processes, threads, descriptors --------------------------------------------------------------


@attack("EPERM")
def many_processes(_: Target) -> None:
    children = []
    try:
        for _number in range(32):
            pid = os.fork()
            if pid == 0:
                time.sleep(_HELD_SECONDS)
                os._exit(0)
            children.append(pid)
    finally:
        for pid in children:
            os.waitpid(pid, 0)


@attack("RuntimeError", "ended:threads")
def many_threads(target: Target) -> None:
    enough = threading.Event()
    threads = []
    try:
        for _number in range(target["limits"]["threads"] * 2):
            thread = threading.Thread(target=enough.wait, daemon=True)
            thread.start()
            threads.append(thread)
        time.sleep(_HELD_SECONDS)
    finally:
        enough.set()
        for thread in threads:
            thread.join()


@attack("EMFILE")
def many_descriptors(target: Target) -> None:
    with ExitStack() as stack:
        for _number in range(target["limits"]["descriptors"] + 1):
            stack.callback(os.close, os.dup(0))


# -- disk -----------------------------------------------------------------------------------------


@contextmanager
def _own_directory(target: Target) -> Iterator[str]:
    path = target["own"] + "/hoard"
    os.mkdir(path)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@attack("EFBIG")
def big_file(target: Target) -> None:
    with _own_directory(target) as path, open(path + "/big", "wb") as file:
        left = target["limits"]["file_bytes"] + _MIB
        while left > 0:
            left -= file.write(bytes(_MIB))


@attack("EFBIG")
def sparse_file(target: Target) -> None:
    with _own_directory(target) as path, open(path + "/sparse", "wb") as file:
        file.truncate(target["limits"]["file_bytes"] + 1)


@attack("EFBIG", "ENOSPC")
def reserved_file(target: Target) -> None:
    with _own_directory(target) as path, open(path + "/reserved", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, target["limits"]["file_bytes"] + 1)


@attack("EPERM", optional=True)
def reserve_beyond_the_size_limit(target: Target) -> None:
    # FALLOC_FL_KEEP_SIZE is not held against RLIMIT_FSIZE (fallocate(2)).
    with _own_directory(target) as path, open(path + "/reserved", "wb") as file:
        syscall("fallocate", file.fileno(), 1, 0, _MIB)


@attack("ENOSPC", "EDQUOT", "ended:memory", needs=_SIZED)
def many_big_files(target: Target) -> None:
    size = target["limits"]["file_bytes"] // 2
    with _own_directory(target) as path:
        for number in range(target["limits"]["scratch_bytes"] // size + 1):
            with open(f"{path}/{number}", "wb") as file:
                file.write(bytes(size))


@attack("ENOSPC", "EDQUOT", needs=_SIZED)
def many_files(target: Target) -> None:
    with _own_directory(target) as path:
        for number in range(target["many_files"]):
            os.close(os.open(f"{path}/{number}", os.O_CREAT | os.O_WRONLY))


# -- its share ------------------------------------------------------------------------------------


@attack("ended:cpu")
def burn_processor_time(target: Target) -> None:
    until = time.thread_time() + target["limits"]["cpu_seconds"] * 2
    while time.thread_time() < until:
        pass


@attack("ValueError")  # what `resource` makes of EPERM
def raise_own_limits(_: Target) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft + 1, max(hard, soft + 1)))


@attack("ValueError")
def change_own_limit_of_memory(_: Target) -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


@attack("EPERM")
def become_nice(_: Target) -> None:
    os.nice(1)


@attack("EPERM", root=True)
def become_important(_: Target) -> None:
    os.nice(-1)


@attack("EPERM", root=True, optional=True)
def become_realtime(_: Target) -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


@attack("EPERM", optional=True)
def change_own_scheduling(_: Target) -> None:
    # struct sched_attr with SCHED_BATCH, which anybody may choose.
    attributes = (48).to_bytes(4, "little") + (3).to_bytes(4, "little") + bytes(40)
    syscall("sched_setattr", 0, attributes, 0)


@attack("EPERM")
def choose_own_processors(_: Target) -> None:
    os.sched_setaffinity(0, os.sched_getaffinity(0))


@attack("EPERM", root=True)
def come_first_at_the_disk(_: Target) -> None:
    syscall("ioprio_set", 1, 0, 1 << 13)
