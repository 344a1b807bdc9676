"""Other processes and programs: started, traced, read, slowed down."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import struct
import subprocess

from .native import check, libc, syscall, text, zeros
from .registry import (
    HIDDEN,
    UNREACHABLE,
    Boundary,
    Target,
    against,
    counts_as_success,
    host,
)

attack = against(Boundary.PROCESSES)

_TRUE = "/bin/true"


# -- programs -------------------------------------------------------------------------------------


@attack("EPERM", *UNREACHABLE)
def execute(_: Target) -> None:
    os.execv(_TRUE, ["true"])


@attack("EPERM", *UNREACHABLE)
def run_subprocess(_: Target) -> None:
    subprocess.run([_TRUE], check=True)


@attack("EPERM")
def run_shell(_: Target) -> None:
    if os.system("true"):
        raise PermissionError(1, "the shell did not run")


@attack("EPERM", *UNREACHABLE)
def posix_spawn(_: Target) -> None:
    os.waitpid(os.posix_spawn(_TRUE, ["true"], {}), 0)


@attack("EPERM")
def fork(_: Target) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@attack("EPERM", *UNREACHABLE)
def vfork(_: Target) -> None:
    vars(subprocess).update(_USE_VFORK=True, _USE_POSIX_SPAWN=False)
    subprocess.run([_TRUE], check=True, close_fds=True)


@attack("EPERM")
def raw_clone(_: Target) -> None:
    pid = syscall("clone", int(signal.SIGCHLD), 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@attack("ENOSYS")
def raw_clone3(_: Target) -> None:
    arguments = struct.pack("8Q", 0, 0, 0, 0, int(signal.SIGCHLD), 0, 0, 0)
    pid = syscall("clone3", ctypes.c_char_p(arguments), len(arguments))
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@attack("EPERM", *UNREACHABLE)
def pseudo_terminal_fork(_: Target) -> None:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", ":"], {}, setsid=True)
    os.waitpid(pid, 0)


@attack("EPERM", *UNREACHABLE)
def execute_memory(_: Target) -> None:
    descriptor = os.memfd_create("program")
    with open(_TRUE, "rb") as program:
        os.write(descriptor, program.read())
    os.execve(descriptor, ["true"], {})


@attack("EPERM", *UNREACHABLE)
def execute_relative_to_a_descriptor(_: Target) -> None:
    arguments = (ctypes.c_char_p * 2)(b"true", None)
    syscall("execveat", -100, text(_TRUE), arguments, (ctypes.c_char_p * 1)(None), 0)


@attack("EPERM", *UNREACHABLE)
def execute_a_file_of_ones_own(target: Target) -> None:
    path = target["own"] + "/program"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o700)
    try:
        os.write(descriptor, b"#!/bin/true\n")
    finally:
        os.close(descriptor)
    os.execv(path, ["program"])


@attack("EPERM", *UNREACHABLE, optional=True)
def execute_by_the_dynamic_loader(_: Target) -> None:
    loader = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}
    os.execv(loader[os.uname().machine], ["ld.so", _TRUE])


@attack("EPERM")
def multiprocess(_: Target) -> None:
    import multiprocessing

    process = multiprocessing.get_context("fork").Process(target=os.getpid)
    process.start()
    process.join()


# -- the host's memory ----------------------------------------------------------------------------


@attack(*HIDDEN)
def trace_host(target: Target) -> None:
    seize, detach = 0x4206, 17
    pid = host(target)
    syscall("ptrace", seize, pid, 0, 0)
    libc.syscall(ctypes.c_long(0), detach, pid, 0, 0)


@attack("EPERM")
def be_traced_by_the_parent(_: Target) -> None:
    syscall("ptrace", 0, 0, 0, 0)


def _vector(address: int) -> ctypes.c_char_p:
    return ctypes.c_char_p(struct.pack("QQ", address, 16))


@attack(*HIDDEN)
def read_memory_of_host(target: Target) -> None:
    # A forked copy has the same addresses; in the sandbox the call is refused before it looks.
    here = zeros(16)
    local = _vector(ctypes.addressof(here))
    syscall("process_vm_readv", host(target), local, 1, _vector(id(None)), 1, 0)


@attack(*HIDDEN)
def write_memory_of_host(target: Target) -> None:
    # To an address where nothing is: only who may write hears that.
    with counts_as_success(errno.EFAULT):
        syscall("process_vm_writev", host(target), _vector(id(None)), 1, _vector(0), 1, 0)


@attack(*UNREACHABLE)
def open_memory_of_host(target: Target) -> None:
    os.close(os.open(f"/proc/{host(target)}/mem", os.O_RDWR))


@attack(*HIDDEN, optional=True)
def compare_with_host(target: Target) -> None:
    syscall("kcmp", os.getpid(), host(target), 0, 0, 0)


@attack(*HIDDEN, optional=True)
def advise_on_memory_of_host(target: Target) -> None:
    descriptor = syscall("pidfd_open", host(target), 0)
    syscall("process_madvise", descriptor, _vector(id(None) & ~4095), 1, 20, 0)  # MADV_COLD


@attack(*HIDDEN, root=True, optional=True)
def move_pages_of_host(target: Target) -> None:
    syscall("move_pages", host(target), 0, None, None, None, 0)


# -- the host's share of the machine --------------------------------------------------------------


@attack(*HIDDEN)
def limit_host(target: Target) -> None:
    resource.prlimit(host(target), resource.RLIMIT_CORE, (0, 0))


@attack(*HIDDEN)
def read_limits_of_host(target: Target) -> None:
    resource.prlimit(host(target), resource.RLIMIT_CORE)


@attack(*HIDDEN)
def slow_host_down(target: Target) -> None:
    os.setpriority(os.PRIO_PROCESS, host(target), 19)


@attack(*HIDDEN)
def pin_host_to_one_cpu(target: Target) -> None:
    os.sched_setaffinity(host(target), {min(os.sched_getaffinity(0))})


@attack(*HIDDEN)
def make_host_idle(target: Target) -> None:
    os.sched_setscheduler(host(target), os.SCHED_IDLE, os.sched_param(0))


@attack(*HIDDEN)
def starve_input_of_host(target: Target) -> None:
    idle = 3 << 13
    syscall("ioprio_set", 1, host(target), idle)


# -- rights ---------------------------------------------------------------------------------------


@attack("EPERM")
def become_traceable(_: Target) -> None:
    check(libc.prctl(4, *map(ctypes.c_ulong, (1, 0, 0, 0))))  # PR_SET_DUMPABLE


@attack("EPERM", root=True)
def become_another_user(_: Target) -> None:
    os.setresuid(1, 1, 1)


@attack("EPERM", root=True)
def change_groups(_: Target) -> None:
    os.setgroups([])


@attack("EPERM")
def set_capabilities(_: Target) -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    syscall("capset", header, (ctypes.c_uint32 * 6)())
