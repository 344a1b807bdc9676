"""What would outlive the plugin, or run for it later: processes, start-up files, poisoned code.

What is the machine's own is opened for writing, and nothing is written. The files of a user stand
in a home that was made for it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import subprocess
import sys

from .native import check, libc, syscall
from .registry import (
    ATTACKS,
    UNWRITABLE,
    Attack,
    Boundary,
    Run,
    Target,
    against,
    can_add_to,
    can_change,
)

attack = against(Boundary.PERSISTENCE)


# -- processes ------------------------------------------------------------------------------------


@attack("EPERM")
def double_fork(_: Target) -> None:
    # The classic daemon; this one leaves at once.
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(pid, 0)


@attack("EPERM")
def leave_the_session(_: Target) -> None:
    syscall("setsid")


@attack("EPERM")
def lead_a_group(_: Target) -> None:
    os.setpgid(0, 0)


@attack("EPERM", "EACCES", "ENOENT")
def start_detached(_: Target) -> None:
    subprocess.run(["/bin/true"], check=True, start_new_session=True, stdin=subprocess.DEVNULL)


@attack("EPERM")
def ignore_the_hangup(_: Target) -> None:
    # nohup: a child that ignores the signal that would end it.
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os._exit(0)
    os.waitpid(pid, 0)


@attack("EPERM")
def survive_the_host(_: Target) -> None:
    check(libc.prctl(1, *[ctypes.c_ulong(0)] * 4))  # PR_SET_PDEATHSIG


@attack("EPERM")
def adopt_orphans(_: Target) -> None:
    check(libc.prctl(36, *map(ctypes.c_ulong, (1, 0, 0, 0))))  # PR_SET_CHILD_SUBREAPER


@attack("EPERM")
def fork_when_it_is_ended(_: Target) -> None:
    # A handler of its own end that leaves a copy behind; called by hand, as the interpreter would.
    import weakref

    class Holder:
        pass

    failures: list[OSError] = []

    def leave_a_copy() -> None:
        try:
            pid = os.fork()
        except OSError as error:
            failures.append(error)
            return
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)

    weakref.finalize(Holder(), leave_a_copy)
    for failure in failures:
        raise failure


# -- start-up files of the user -------------------------------------------------------------------


def _appends(relative: str) -> Run:
    def append(target: Target) -> None:
        with open(f"{target['outside']}/home/{relative}", "ab") as file:
            file.write(b"# planted\n")

    return append


def _adds(relative: str) -> Run:
    def add(target: Target) -> None:
        with open(f"{target['outside']}/home/{relative}", "xb") as file:
            file.write(b"# planted\n")

    return add


_HOME: dict[str, Run] = {
    "append_to_profile": _appends(".profile"),
    "append_to_shell_start": _appends(".bashrc"),
    "append_to_authorized_keys": _appends(".ssh/authorized_keys"),
    "plant_session_start": _adds(".config/autostart/planted.desktop"),
    "plant_user_service": _adds(".config/systemd/user/planted.service"),
    "plant_user_customisation": _adds(".local/lib/python/usercustomize.py"),
}


# -- start-up files of the machine ----------------------------------------------------------------


def _can_add(directory: str) -> Run:
    return lambda _: can_add_to(directory)


def _can_change(path: str) -> Run:
    return lambda _: can_change(path)


_MACHINE: dict[str, Run] = {
    "plant_cron_job": _can_add("/etc/cron.d"),
    "plant_crontab": _can_add("/var/spool/cron/crontabs"),
    "plant_at_job": _can_add("/var/spool/cron/atjobs"),
    "plant_service": _can_add("/etc/systemd/system"),
    "plant_init_script": _can_add("/etc/init.d"),
    "plant_profile_of_all": _can_add("/etc/profile.d"),
    "plant_loader_preload": _can_add("/etc"),
    "plant_program": _can_add("/usr/local/bin"),
    "change_users": _can_change("/etc/passwd"),
    "change_core_handler": _can_change("/proc/sys/kernel/core_pattern"),
    "change_module_loader": _can_change("/proc/sys/kernel/modprobe"),
    "change_event_helper": _can_change("/sys/kernel/uevent_helper"),
    "register_program_format": _can_change("/proc/sys/fs/binfmt_misc/register"),
    "plant_release_agent": _can_change("/sys/fs/cgroup/memory/release_agent"),
}


# -- the interpreter, and what plugins share ------------------------------------------------------


def _plant(room: str, name: str) -> Run:
    def plant(target: Target) -> None:
        path = f"{target[room]}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"# planted\n")

    return plant


def _cached(module: str) -> str:
    return importlib.util.cache_from_source(module)


_CODE: dict[str, Run] = {
    "plant_in_own_code": _plant("own_code", "planted.py"),
    "replace_own_code": _plant("own_code", "network.py"),
    "poison_cache_of_own_code": _plant("own_code", _cached("network.py")),
    "plant_in_sdk": _plant("sdk", "sitecustomize.py"),
    "poison_cache_of_sdk": _plant("sdk", _cached("plugin_sdk/planted.py")),
    "plant_path_file_in_environment": _plant("environment", "planted.pth"),
    "plant_customisation_in_environment": _plant("environment", "sitecustomize.py"),
    "poison_package_in_environment": _plant("environment", _cached("selftest_marker.py")),
    "plant_data_for_another_plugin": lambda t: can_change(t["other_data"]),
    "grant_trust_to_a_key": lambda t: can_change(t["trust_store"]),
    "rewrite_journal": lambda t: can_change(t["journal"]),
}

_INTERPRETER: dict[str, Run] = {
    "change_code_of_another_plugin": lambda t: can_change(t["other_code"]),
    "plant_in_standard_library": lambda _: can_add_to(os.path.dirname(os.__file__)),
    "poison_cache_of_standard_library": lambda _: can_add_to(os.path.dirname(_cached(os.__file__))),
    "plant_in_site_packages": lambda t: can_add_to(t["site_packages"]),
    "replace_interpreter": lambda _: can_add_to(os.path.dirname(os.path.realpath(sys.executable))),
}

for _table, _of_root in ((_HOME, False), (_CODE, False), (_MACHINE, True), (_INTERPRETER, True)):
    for _name, _run in _table.items():
        assert _name not in ATTACKS
        ATTACKS[_name] = Attack(
            _run, Boundary.PERSISTENCE, UNWRITABLE, root=_of_root, optional=_of_root
        )


@attack(*UNWRITABLE, "EXDEV")
def move_own_file_over_own_code(target: Target) -> None:
    path = target["own"] + "/prepared.py"
    with open(path, "wb"):
        pass
    os.replace(path, target["own_code"] + "/signals.py")


@attack(*UNWRITABLE, "EXDEV", "EBUSY")
def move_own_code_away(target: Target) -> None:
    os.rename(target["own_code"] + "/__init__.py", target["own_code"] + "/moved.py")
