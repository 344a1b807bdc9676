"""Which layers work here is found out in processes that end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.alone import alone, has_user_namespaces

own_user = pytest.mark.usefixtures("_own_user")
TRIAL = """
from plugin_sdk.nursery.trial import PassingError, try_layers
directory, *names = sys.argv[1:]
def fork(own_pid):
    return os.fork()
def attempt(fork=fork, uid=1):
    return try_layers(fork, {"own_pid": False, "uid": uid, "tries": names}, directory)
"""
NAMESPACES = ("network-namespace", "ipc-namespace", "uts-namespace", "cgroup-namespace")


@pytest.fixture
def _own_user() -> None:
    if not has_user_namespaces():
        pytest.skip("no user namespaces here")


def attempt(code: str, directory: Path, *names: str) -> Any:
    return alone(TRIAL + code, directory, *names)


@own_user
def test_what_works_has_no_reason_against_it(tmp_path: Path) -> None:
    names = (*NAMESPACES, "pid-namespace", "own-root", "user-namespace", "capabilities")
    found = attempt("\nown_user()\nresult = attempt()", tmp_path, *names)
    assert found == dict.fromkeys(names, "")
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused_has_the_kernels_reason(tmp_path: Path) -> None:
    code = """
if os.geteuid() == 0:
    os.setresuid(61_184, 61_184, 61_184)
result = attempt()
"""
    found = attempt(code, tmp_path, *NAMESPACES, "own-root", "own-uid")
    assert set(found) == {*NAMESPACES, "own-root", "own-uid"}
    assert all("Operation not permitted" in reason for reason in found.values()), found


@own_user
def test_proc_needs_a_pid_namespace_of_the_same_owner(tmp_path: Path) -> None:
    found = attempt("\nown_user()\nresult = attempt()", tmp_path, "own-root", "proc")
    assert found["own-root"] == ""
    assert "proc" in found["proc"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_user_id(tmp_path: Path) -> None:
    code = "\nresult = [attempt(uid=61_184), os.getuid()]"
    assert attempt(code, tmp_path, "own-uid") == [{"own-uid": ""}, 0]


def test_nothing_is_tried_that_was_not_asked_for(tmp_path: Path) -> None:
    code = "\ndef never(own_pid):\n    raise AssertionError\nresult = attempt(never)"
    assert attempt(code, tmp_path) == {}


def test_process_that_cannot_be_made(tmp_path: Path) -> None:
    code = """
def refuse(own_pid):
    raise OSError(errno.EPERM, "no process")
before = os.listdir("/proc/self/fd")
result = [attempt(refuse), os.listdir("/proc/self/fd") == before]
"""
    reasons, same = attempt(code, tmp_path, "uts-namespace", "own-root")
    assert set(reasons) == {"uts-namespace", "own-root"}
    assert all("no process" in reason for reason in reasons.values())
    assert same


def test_process_that_is_killed_while_it_tries(tmp_path: Path) -> None:
    code = """
def killed(own_pid):
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return child
try:
    result = attempt(killed)
except PassingError as error:
    result = str(error)
"""
    found = attempt(code, tmp_path, "uts-namespace")
    assert found == "the process that tried a layer was killed"


def test_who_ends_it_may_be_a_filter(tmp_path: Path) -> None:
    """Of a unit with SystemCallFilter=: the layer is not offered, and the host goes on."""
    code = """
def filtered(own_pid):
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGSYS)
    return child
result = attempt(filtered)
"""
    found = attempt(code, tmp_path, "uts-namespace", "own-root")
    assert set(found.values()) == {"a system call filter ends whoever tries it (SIGSYS)"}


@own_user
def test_a_name_that_cannot_be_taken_is_seen(tmp_path: Path) -> None:
    """ProtectHostname= of a systemd unit allows the namespace, and refuses sethostname."""
    code = """
from plugin_sdk.nursery import trial
def refused(name):
    raise PermissionError(errno.EPERM, "sethostname")
trial.set_hostname = refused
own_user()
result = attempt()
"""
    found = attempt(code, tmp_path, "uts-namespace", "ipc-namespace")
    assert "sethostname" in found["uts-namespace"]
    assert found["ipc-namespace"] == ""


@pytest.mark.parametrize("where", ["fork", "action"])
def test_a_shortage_says_nothing_about_the_machine(tmp_path: Path, where: str) -> None:
    code = f"""
from plugin_sdk.nursery import trial
def short(*_, **__):
    raise OSError(errno.EAGAIN, "short of it")
trial.become = short
try:
    result = attempt(short if {where!r} == "fork" else fork)
except PassingError as error:
    result = str(error)
"""
    assert "short of it" in attempt(code, tmp_path, "own-uid")


def test_reason_is_short_and_no_zombie_is_left(tmp_path: Path) -> None:
    code = """
from plugin_sdk.nursery import trial
def fail(_):
    raise RuntimeError("x" * 10_000)
trial.become = fail
found = attempt()["own-uid"]
result = [len(found), set(found) == {"x"}, met(os.wait)]
"""
    assert attempt(code, tmp_path, "own-uid") == [999, True, "ECHILD"]
