"""What tells of the host, its users and its machine, although nothing of theirs is changed."""

from __future__ import annotations

import ctypes
import os
import pwd
import socket

from .native import NULL, syscall
from .registry import (
    ATTACKS,
    UNREACHABLE,
    Attack,
    Boundary,
    NothingThereError,
    Target,
    against,
    host,
    read_some,
)

attack = against(Boundary.INFORMATION_LEAKS)

SECRET = "SANDBOX_HOST_SELFTEST_SECRET"
"""A variable of the host's environment, made for the attacks."""


def _secret_in(path: str, target: Target) -> None:
    with open(path, "rb") as file:
        if target["secret"].encode() not in file.read():
            raise NothingThereError(path)


# -- the host -------------------------------------------------------------------------------------


@attack("KeyError")
def read_environment(_: Target) -> None:
    assert os.environ[SECRET]


@attack(*UNREACHABLE, "NothingThereError")
def read_environment_from_kernel(target: Target) -> None:
    _secret_in("/proc/self/environ", target)


@attack("NothingThereError")
def read_environment_from_own_stack(target: Target) -> None:
    # Below argv and environ, as the kernel laid them down at exec: `unsetenv` does not reach it.
    environ = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
    position = 0
    while entry := environ[position]:
        if target["secret"].encode() in entry:
            return
        position += 1
    raise NothingThereError("environ")


@attack(*UNREACHABLE)
def read_environment_of_host(target: Target) -> None:
    _secret_in(f"/proc/{host(target)}/environ", target)


@attack(*UNREACHABLE)
def read_command_line_of_host(target: Target) -> None:
    read_some(f"/proc/{host(target)}/cmdline")


@attack(*UNREACHABLE)
def read_memory_map_of_host(target: Target) -> None:
    read_some(f"/proc/{host(target)}/maps")


@attack(*UNREACHABLE)
def read_status_of_host(target: Target) -> None:
    read_some(f"/proc/{host(target)}/status")


@attack(*UNREACHABLE)
def read_mounts_of_host(target: Target) -> None:
    read_some(f"/proc/{host(target)}/mountinfo")


@attack(*UNREACHABLE)
def learn_working_directory_of_host(target: Target) -> None:
    os.readlink(f"/proc/{host(target)}/cwd")


@attack(*UNREACHABLE)
def learn_program_of_host(target: Target) -> None:
    os.readlink(f"/proc/{host(target)}/exe")


@attack(*UNREACHABLE)
def learn_namespaces_of_host(target: Target) -> None:
    os.readlink(f"/proc/{host(target)}/ns/net")


@attack("NothingThereError", needs=("pid-namespace",))
def learn_number_of_host(_: Target) -> None:
    # 0 is a parent outside the namespace, 1 a reaper of our own.
    if os.getppid() <= 1:
        raise NothingThereError("a parent that cannot be named")


@attack("EPERM", "ESRCH", needs=("pid-namespace",))
def learn_session_of_host(target: Target) -> None:
    os.getsid(host(target))


@attack("ESRCH", "EPERM", needs=("pid-namespace",))
def learn_priority_of_host(target: Target) -> None:
    os.getpriority(os.PRIO_PROCESS, host(target))


@attack("ESRCH", "EPERM", needs=("pid-namespace",))
def learn_scheduler_of_host(target: Target) -> None:
    os.sched_getaffinity(host(target))


# -- its users and their processes ----------------------------------------------------------------


@attack("EACCES", "ENOENT", "NothingThereError")
def list_processes(_: Target) -> None:
    # Number 1 may be the root of our own namespace of processes.
    if {n for n in os.listdir("/proc") if n.isdigit()} <= {"1", str(os.getpid())}:
        raise NothingThereError("nobody else")


@attack(*UNREACHABLE)
def read_command_line_of_another_plugin(target: Target) -> None:
    read_some(f"/proc/{target['neighbour_pid']}/cmdline")


@attack(*UNREACHABLE, "NothingThereError")
def read_command_line_of_first_process(target: Target) -> None:
    with open("/proc/1/comm", encoding="utf-8") as file:
        if target["first_process"] != file.read():
            raise NothingThereError("the first process of another namespace")


@attack("NothingThereError", "PermissionError", "KeyError")
def list_users(_: Target) -> None:
    if not pwd.getpwall():
        raise NothingThereError("users")


@attack(*UNREACHABLE, optional=True)
def see_who_is_logged_in(_: Target) -> None:
    read_some("/var/run/utmp")


# -- names and numbers of the machine -------------------------------------------------------------


@attack("NothingThereError", needs=("uts-namespace",))
def learn_host_name(target: Target) -> None:
    if os.uname().nodename != target["hostname"]:
        raise NothingThereError("a name of its own")


@attack("NothingThereError", needs=("uts-namespace",))
def learn_host_name_by_socket_library(target: Target) -> None:
    if socket.gethostname() != target["hostname"]:
        raise NothingThereError("a name of its own")


@attack("EPERM", root=True)
def size_of_kernel_log(_: Target) -> None:
    syscall("syslog", 10, NULL, 0)


@attack(*UNREACHABLE, "NothingThereError", needs=("network-namespace",))
def list_network_devices(_: Target) -> None:
    # /proc/net is a link into /proc/self; an own namespace has the loopback alone.
    with open("/proc/self/net/dev", encoding="utf-8") as file:
        names = {line.split(":")[0].strip() for line in file if ":" in line}
    if names <= {"lo"}:
        raise NothingThereError("loopback alone")


@attack(*UNREACHABLE, "NothingThereError", needs=("network-namespace",))
def list_unix_sockets(target: Target) -> None:
    with open("/proc/self/net/unix", encoding="utf-8") as file:
        if target["abstract_name"] not in file.read():
            raise NothingThereError("no socket of the host")


@attack(*UNREACHABLE, "NothingThereError", needs=("network-namespace",))
def list_connections(_: Target) -> None:
    with open("/proc/self/net/tcp", encoding="utf-8") as file:
        if not file.readlines()[1:]:  # below the heading
            raise NothingThereError("no connection")


@attack("EACCES", "ENOENT", "NothingThereError")
def learn_mounts_of_host(target: Target) -> None:
    # In a namespace of its own a process sees its own mounts, and not those of the machine.
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        points = {line.split()[4] for line in file}
    if not set(target["mount_points"]) <= points:
        raise NothingThereError("its own mounts")


@attack(*UNREACHABLE, "NothingThereError", needs=("cgroup-namespace",), optional=True)
def learn_own_control_group(_: Target) -> None:
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        if all(line.rstrip("\n").endswith(":/") for line in file):
            raise NothingThereError("the root of its own")


_FILES: dict[str, tuple[str, bool]] = {
    "read_boot_identity": ("/proc/sys/kernel/random/boot_id", False),
    "read_machine_identity": ("/etc/machine-id", True),
    "read_kernel_version": ("/proc/version", False),
    "read_kernel_command_line": ("/proc/cmdline", False),
    "read_processor_model": ("/proc/cpuinfo", False),
    "read_memory_of_machine": ("/proc/meminfo", False),
    "read_load_of_machine": ("/proc/loadavg", False),
    "read_disks_of_machine": ("/proc/partitions", False),
    "read_modules_of_kernel": ("/proc/modules", True),
    "read_symbols_of_kernel": ("/proc/kallsyms", True),
    "read_interrupts_of_machine": ("/proc/interrupts", False),
    "read_resolver": ("/etc/resolv.conf", True),
    "read_host_table": ("/etc/hosts", True),
    "read_product_of_machine": ("/sys/class/dmi/id/sys_vendor", True),
    "read_kernel_messages": ("/dev/kmsg", True),
}


def _file_attack(path: str, *, optional: bool) -> Attack:
    def read(_: Target) -> None:
        # Without waiting: the log of the kernel would have us wait for the next message.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if not os.read(descriptor, 8_192):
                raise NothingThereError(path)
        finally:
            os.close(descriptor)

    return Attack(read, Boundary.INFORMATION_LEAKS, UNREACHABLE, optional=optional)


for _name, (_path, _optional) in _FILES.items():
    assert _name not in ATTACKS
    ATTACKS[_name] = _file_attack(_path, optional=_optional)


@attack(*UNREACHABLE, optional=True)
def list_devices_of_machine(_: Target) -> None:
    assert os.listdir("/sys/class/net")
