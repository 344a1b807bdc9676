"""Other processes and programs: started, signalled, traced, slowed down, read."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import struct
import subprocess

from .registry import Target, attack, check, libc, syscall

F_SETOWN, F_SETSIG, F_SETOWN_EX = 8, 10, 15
FIOSETOWN = 0x8901


# -- programs -----------------------------------------------------------------------------------


@attack("EPERM")
def execute(_: Target) -> None:
    os.execv("/bin/true", ["true"])


@attack("EPERM")
def run_subprocess(_: Target) -> None:
    subprocess.run(["/bin/true"], check=True)


@attack("EPERM")
def run_shell(_: Target) -> None:
    if os.system("true"):
        raise PermissionError(1, "the shell did not run")


@attack("EPERM")
def posix_spawn(_: Target) -> None:
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


@attack("EPERM")
def fork(_: Target) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@attack("EPERM")
def vfork(_: Target) -> None:
    subprocess._USE_VFORK, subprocess._USE_POSIX_SPAWN = True, False
    subprocess.run(["/bin/true"], check=True, close_fds=True)


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


@attack("EPERM")
def execute_memory(_: Target) -> None:
    descriptor = os.memfd_create("program")
    with open("/bin/true", "rb") as program:
        os.write(descriptor, program.read())
    os.execve(descriptor, ["true"], {})


@attack("EPERM")
def multiprocess(_: Target) -> None:
    import multiprocessing

    process = multiprocessing.get_context("fork").Process(target=os.getpid)
    process.start()
    process.join()


# -- signals ------------------------------------------------------------------------------------


@attack("EPERM")
def probe_host(_: Target) -> None:
    os.kill(os.getppid(), 0)


@attack("EPERM", ends_parent=signal.SIGTERM)
def terminate_host(_: Target) -> None:
    os.kill(os.getppid(), signal.SIGTERM)


@attack("EPERM", ends_parent=signal.SIGTERM)
def terminate_thread_of_host(_: Target) -> None:
    syscall("tkill", os.getppid(), int(signal.SIGTERM))


@attack("EPERM", ends_parent=signal.SIGTERM)
def terminate_host_through_pidfd(_: Target) -> None:
    descriptor = syscall("pidfd_open", os.getppid(), 0)
    syscall("pidfd_send_signal", descriptor, int(signal.SIGTERM), ctypes.c_void_p(), 0)


@attack("EPERM", ends_parent=signal.SIGTERM)
def queue_signal_to_host(_: Target) -> None:
    # SI_QUEUE is the only si_code that an ordinary user may send to another process.
    info = struct.pack("iii", int(signal.SIGTERM), 0, -1) + bytes(116)
    syscall("rt_sigqueueinfo", os.getppid(), int(signal.SIGTERM), ctypes.c_char_p(info))


def _have_data_arrive(read_end: int, write_end: int) -> None:
    fcntl.fcntl(read_end, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(write_end, b"x")


@attack("EPERM", ends_parent=signal.SIGIO)
def signal_host_by_pipe_owner(_: Target) -> None:
    read_end, write_end = os.pipe()
    fcntl.fcntl(read_end, F_SETOWN, os.getppid())
    _have_data_arrive(read_end, write_end)


@attack("EPERM", ends_parent=signal.SIGTERM)
def signal_host_by_pipe_owner_ex(_: Target) -> None:
    read_end, write_end = os.pipe()
    fcntl.fcntl(read_end, F_SETOWN_EX, struct.pack("ii", 1, os.getppid()))
    fcntl.fcntl(read_end, F_SETSIG, int(signal.SIGTERM))
    _have_data_arrive(read_end, write_end)


@attack("ENOTTY", ends_parent=signal.SIGIO)
def signal_host_by_socket_owner(_: Target) -> None:
    import socket

    one, other = socket.socketpair()
    fcntl.ioctl(one.fileno(), FIOSETOWN, struct.pack("i", os.getppid()))
    _have_data_arrive(one.fileno(), other.fileno())


@attack("EPERM")
def signal_own_group(_: Target) -> None:
    os.killpg(0, 0)


@attack("EPERM")
def leave_the_session(_: Target) -> None:
    syscall("setsid")


# -- the host's memory, descriptors, environment --------------------------------------------------


@attack("EACCES")
def read_environment_of_host(_: Target) -> None:
    with open(f"/proc/{os.getppid()}/environ", "rb") as file:
        assert b"SANDBOX_TEST_SECRET" in file.read()


@attack("KeyError")
def read_environment(_: Target) -> None:
    assert os.environ["SANDBOX_TEST_SECRET"]


@attack("EACCES")
def list_descriptors_of_host(_: Target) -> None:
    assert os.listdir(f"/proc/{os.getppid()}/fd")


@attack("EACCES")
def open_descriptor_of_host(target: Target) -> None:
    with open(f"/proc/{os.getppid()}/fd/{target['secret_fd']}", "rb") as file:
        assert file.read(1)


@attack("EBADF")
def read_inherited_descriptor(target: Target) -> None:
    assert os.pread(target["secret_fd"], 1, 0)


@attack("EPERM")
def take_descriptor_of_host(target: Target) -> None:
    descriptor = syscall("pidfd_open", os.getppid(), 0)
    syscall("pidfd_getfd", descriptor, target["secret_fd"], 0)


@attack("EACCES")
def read_memory_map_of_host(_: Target) -> None:
    with open(f"/proc/{os.getppid()}/maps", "rb") as file:
        assert file.read(1)


@attack("EPERM")
def trace_host(_: Target) -> None:
    seize, detach = 0x4206, 17
    syscall("ptrace", seize, os.getppid(), 0, 0)
    libc.syscall(ctypes.c_long(0), detach, os.getppid(), 0, 0)


@attack("EPERM")
def read_memory_of_host(_: Target) -> None:
    # A forked copy has the same addresses; in the sandbox the call is refused before it looks.
    here = ctypes.create_string_buffer(b"x" * 16)
    local = struct.pack("QQ", ctypes.addressof(here), 16)
    remote = struct.pack("QQ", id(None), 16)
    syscall(
        "process_vm_readv",
        os.getppid(),
        ctypes.c_char_p(local),
        1,
        ctypes.c_char_p(remote),
        1,
        0,
    )


@attack("EPERM", optional=True)
def compare_with_host(_: Target) -> None:
    syscall("kcmp", os.getpid(), os.getppid(), 0, 0, 0)


# -- the host's share of the machine --------------------------------------------------------------


@attack("EPERM")
def limit_host(_: Target) -> None:
    resource.prlimit(os.getppid(), resource.RLIMIT_CORE, (0, 0))


@attack("EPERM")
def read_limits_of_host(_: Target) -> None:
    resource.prlimit(os.getppid(), resource.RLIMIT_CORE)


@attack("EPERM")
def slow_host_down(_: Target) -> None:
    os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)


@attack("EPERM")
def pin_host_to_one_cpu(_: Target) -> None:
    os.sched_setaffinity(os.getppid(), {min(os.sched_getaffinity(0))})


@attack("EPERM")
def make_host_idle(_: Target) -> None:
    os.sched_setscheduler(os.getppid(), os.SCHED_IDLE, os.sched_param(0))


@attack("EPERM")
def starve_input_of_host(_: Target) -> None:
    idle = 3 << 13
    syscall("ioprio_set", 1, os.getppid(), idle)


@attack("ValueError")  # what `resource` makes of EPERM
def raise_own_limits(_: Target) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft + 1, max(hard, soft + 1)))


@attack("EPERM")
def become_nice(_: Target) -> None:
    os.nice(1)


@attack("EPERM")
def survive_the_host(_: Target) -> None:
    check(libc.prctl(1, *[ctypes.c_ulong(0)] * 4))  # PR_SET_PDEATHSIG


@attack("EPERM")
def become_traceable(_: Target) -> None:
    check(libc.prctl(4, *map(ctypes.c_ulong, (1, 0, 0, 0))))  # PR_SET_DUMPABLE


@attack("EPERM")
def adopt_orphans(_: Target) -> None:
    check(libc.prctl(36, *map(ctypes.c_ulong, (1, 0, 0, 0))))  # PR_SET_CHILD_SUBREAPER


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


@attack("EACCES", optional=True)
def push_into_terminal(_: Target) -> None:
    _, terminal = os.openpty()
    os.setsid()
    fcntl.ioctl(terminal, 0x540E, 0)  # TIOCSCTTY
    fcntl.ioctl(terminal, 0x5412, b"x")  # TIOCSTI, CVE-2017-5226


@attack("EACCES")
def open_terminal(_: Target) -> None:
    for descriptor in os.openpty():
        os.close(descriptor)
