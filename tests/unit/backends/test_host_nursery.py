"""The host's end of a nursery: a real one boots, forks, dies and is put away."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from plugin_sdk.wire.nursery import EXIT_RECORD, PASSED_DESCRIPTORS
from sandbox_host.backends.linux import nursery as module
from sandbox_host.backends.linux.environment import base_environment
from sandbox_host.backends.linux.nursery import Ground, Nursery
from sandbox_host.backends.linux.process import LinuxChild, pid_of, spawn
from sandbox_host.model import Layer
from sandbox_host.runtime.launch import base_python
from sandbox_host.runtime.workspace import Workspace
from tests.support.traces import eventually

PATIENCE = 20.0
NOT_CONFINED = 70
UIDS = (61_184, 4_000)
namespaces = pytest.mark.needs("user-namespace", "pid-namespace")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    made = Workspace(tmp_path_factory.mktemp("host") / "state")
    yield made
    made.close()


@pytest.fixture
def ground(workspace: Workspace) -> Ground:
    return Ground(base_python(), workspace.sdk_dir, base_environment(), frozenset(), UIDS)


@pytest.fixture
def nursery(ground: Ground) -> Iterator[Nursery]:
    made = Nursery(ground)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """No descriptor and no process, zombies included, whatever a test did."""
    before, children = os.listdir("/proc/self/fd"), children_of(os.getpid())
    yield
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert children_of(os.getpid()) == children


def children_of(pid: int) -> set[int]:
    return {child.pid for child in psutil.Process(pid).children(recursive=True)}


def ended(pid: int) -> bool:
    """Wait until a process is gone, or only waits for its parent."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], PATIENCE)[0])
    finally:
        os.close(descriptor)


def put_away(child: LinuxChild) -> Any:
    child.kill()
    how = child.wait(PATIENCE)
    child.close()
    return how


# -- booting -------------------------------------------------------------------------------------


def test_it_lives_and_has_tried_what_works(nursery: Nursery) -> None:
    assert nursery.alive
    assert os.path.exists(f"/proc/{nursery.pid}")
    tried = {"network-namespace", "ipc-namespace", "uts-namespace", "own-root", "proc"}
    assert tried <= set(nursery.reasons)
    assert all(isinstance(reason, str) for reason in nursery.reasons.values())


@namespaces
def test_it_is_process_1_in_namespaces_of_its_own(nursery: Nursery) -> None:
    assert nursery.user_namespace
    assert nursery.own_pid
    fields = psutil.Process(nursery.pid)
    assert fields.ppid() == os.getpid()
    for name, same in (("user", False), ("pid", False), ("mnt", False)):
        mine, its = (os.stat(f"/proc/{p}/ns/{name}").st_ino for p in (os.getpid(), nursery.pid))
        assert (mine == its) is same
    status = Path(f"/proc/{nursery.pid}/status").read_text()
    (numbers,) = [line for line in status.splitlines() if line.startswith("NSpid")]
    assert numbers.split()[-1] == "1"


@namespaces
def test_it_maps_the_plugins_users_where_the_host_is_root(nursery: Nursery) -> None:
    lines = [x.split() for x in Path(f"/proc/{nursery.pid}/uid_map").read_text().splitlines()]
    assert lines[0] == ["0", str(os.geteuid()), "1"]
    assert nursery.has_range == (os.geteuid() == 0)
    assert lines[1:] == ([["1", str(UIDS[0]), str(UIDS[1])]] if nursery.has_range else [])


def _held_by(pid: int) -> set[str]:
    """Return the kinds of what a process has open."""
    held = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # of a trial that has just ended
            held.add(os.readlink(f"/proc/{pid}/fd/{number}").partition(":")[0])
    return held


def test_it_holds_nothing_of_the_hosts(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the host")
    secret = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(secret, True)
    nursery = Nursery(ground)
    try:
        environ = Path(f"/proc/{nursery.pid}/environ").read_bytes()
        variables = dict(pair.split(b"=", 1) for pair in environ.split(b"\0") if pair)
        assert variables == {k.encode(): v.encode() for k, v in base_environment().items()}
        assert b"of the host" not in Path(f"/proc/{nursery.pid}/cmdline").read_bytes()
        # A module that it is importing just now is open for that moment.
        kinds = {"/dev/null", "pipe", "socket", "anon_inode", "pid"}
        assert eventually(lambda: _held_by(nursery.pid) <= kinds)
    finally:
        nursery.close()
        os.close(secret)


def test_without_a_trial_nothing_is_tried(ground: Ground) -> None:
    nursery = Nursery(ground, with_trial=False)
    assert nursery.reasons == {}
    assert nursery.alive
    nursery.close()


@namespaces
@pytest.mark.parametrize("layer", ["user-namespace", "pid-namespace"])
def test_layer_that_is_switched_off_is_not_made(ground: Ground, layer: str) -> None:
    nursery = Nursery(replace(ground, disabled=frozenset({Layer(layer)})))
    try:
        assert nursery.user_namespace == (layer != "user-namespace")
        if layer == "pid-namespace":
            assert not nursery.own_pid
            assert layer not in nursery.reasons
        child = spawn(nursery)
        assert child.wait(0.0) is None
        assert put_away(child).signal == signal.SIGKILL
    finally:
        nursery.close()


@namespaces
def test_ids_that_cannot_be_mapped(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is nobody in its namespace: another one is started without."""
    told = "writing uid_map: Operation not permitted"

    def refuse(*_: object) -> None:
        raise module._NoMapError(told)

    monkeypatch.setattr(Nursery, "_write_maps", refuse)
    nursery = Nursery(ground)
    assert (nursery.user_namespace, nursery.reasons[Layer.USER_NAMESPACE]) == (False, told)
    assert nursery.alive
    nursery.close()


def fake_python(path: Path, code: str) -> Path:
    """Write a program that is started as a nursery is, and does something else."""
    script = path.with_suffix(".py")
    script.write_text(f"import os, socket, sys\n{code}\n")
    # Not as the first line of the script itself: the path of an interpreter may hold a space.
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    path.chmod(0o700)
    return path


CONTROL = "control = socket.socket(fileno=int(sys.argv[10]))\n"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        pytest.param("sys.exit(3)", "ended while it was started", id="ends"),
        pytest.param("sys.exit('no such module')", "it said: no such module", id="says why"),
        pytest.param(
            "os.kill(os.getpid(), 11)", "ended while it was started, by SIGSEGV", id="crashes"
        ),
        pytest.param(
            "os.kill(os.getpid(), 31)", "ended while it was started, by SIGSYS", id="filtered"
        ),
        pytest.param(CONTROL + "control.send(b'\\xc1')", "nonsense", id="answers with nonsense"),
        pytest.param(CONTROL + "control.send(b'\\x05')", "ended while", id="answers a number"),
    ],
)
def test_nursery_that_does_not_come_up(
    ground: Ground, tmp_path: Path, code: str, told: str
) -> None:
    python = fake_python(tmp_path / "python", code)
    with pytest.raises(OSError, match=told):
        Nursery(replace(ground, python=python))


def test_silent_nursery_is_ended(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_DYING_SECONDS", 0.1)
    python = fake_python(tmp_path / "python", "import time; time.sleep(1000)")
    with pytest.raises(OSError, match="did not answer"):
        Nursery(replace(ground, python=python), timeout=0.2)


def test_no_interpreter_and_no_code(ground: Ground, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Nursery(replace(ground, python=tmp_path / "python"))
    with pytest.raises(OSError, match="No module named 'plugin_sdk'"):
        Nursery(replace(ground, sdk_dir=tmp_path))


def test_thread_that_asked_for_it_may_end(ground: Ground) -> None:
    """PR_SET_PDEATHSIG goes by the thread that forked."""
    made: list[Nursery] = []
    thread = threading.Thread(target=lambda: made.append(Nursery(ground, with_trial=False)))
    thread.start()
    thread.join()
    (nursery,) = made
    child = spawn(nursery)
    assert nursery.alive
    assert child.wait(0.0) is None
    put_away(child)
    nursery.close()


# -- children ------------------------------------------------------------------------------------


def test_child_waits_for_its_lock_down_and_ends_without_one(nursery: Nursery) -> None:
    child = spawn(nursery)
    assert psutil.Process(child.pid).ppid() == nursery.pid
    assert child.wait(0.0) is None
    os.close(child.send_fd)
    child.send_fd = os.open("/dev/null", os.O_WRONLY)
    how = child.wait(PATIENCE)
    assert how is not None
    assert (how.code, how.signal) == (NOT_CONFINED, None)
    assert how.resident_peak_bytes > 1 << 20
    child.close()


@namespaces
def test_children_are_process_1_each(nursery: Nursery) -> None:
    one, two = spawn(nursery), spawn(nursery)
    links = {os.stat(f"/proc/{pid}/ns/pid").st_ino for pid in (one.pid, two.pid, nursery.pid)}
    assert len(links) == 3
    for child in (one, two):
        put_away(child)


def test_child_has_its_ends_of_the_pipes_and_nothing_else(nursery: Nursery) -> None:
    other, child = spawn(nursery), spawn(nursery)
    until = time.monotonic() + PATIENCE
    names: list[int] = []
    # It closes the others before it reads its first message.
    while len(names) != 6 and time.monotonic() < until:
        names = sorted(map(int, os.listdir(f"/proc/{child.pid}/fd")))
    assert names == [0, 1, 2, 3, 4, 5]
    targets = [os.readlink(f"/proc/{child.pid}/fd/{name}") for name in names]
    assert targets[0] == "/dev/null"
    assert all(target.startswith("pipe:") for target in targets[1:])
    assert len(set(targets)) == 6
    for one in (other, child):
        put_away(one)


def test_exit_record_is_a_status_and_what_was_used() -> None:
    assert EXIT_RECORD.size == len(EXIT_RECORD.pack(-1, 1, 2))
    assert PASSED_DESCRIPTORS == 8


def test_many_children_leave_nothing_in_the_nursery(nursery: Nursery) -> None:
    def held() -> int:
        return len(os.listdir(f"/proc/{nursery.pid}/fd"))

    before = held()
    children = [spawn(nursery) for _ in range(10)]
    assert held() > before
    for child in children:
        assert put_away(child).signal == signal.SIGKILL
    # It reaps before it tells, and tells before it closes.
    last = spawn(nursery)
    put_away(last)
    assert children_of(nursery.pid) == set()
    assert held() <= before + 1


def test_child_that_nobody_waits_for_is_reaped(nursery: Nursery) -> None:
    child = spawn(nursery)
    pid = child.pid
    child.kill()
    child.close()
    assert ended(pid)
    other = spawn(nursery)
    put_away(other)
    assert children_of(nursery.pid) == set()


def test_ended_process_has_no_number_any_more(nursery: Nursery) -> None:
    child = spawn(nursery)
    copy = os.dup(child._pidfd)
    put_away(child)
    other = spawn(nursery)  # by now the nursery has reaped the first
    with pytest.raises(ProcessLookupError):
        pid_of(copy)
    os.close(copy)
    put_away(other)


# -- the end -------------------------------------------------------------------------------------


def test_nursery_that_is_killed_takes_its_children_along(ground: Ground) -> None:
    nursery = Nursery(ground, with_trial=False)
    children = [spawn(nursery) for _ in range(3)]
    os.kill(nursery.pid, signal.SIGKILL)
    for child in children:
        how = child.wait(PATIENCE)
        assert how is not None
        assert (how.code, how.signal, how.with_nursery) == (None, None, True)
        assert ended(child.pid)
    assert ended(nursery.pid)
    assert not nursery.alive
    with pytest.raises(OSError, match=r"nursery has ended|Broken pipe|reset by peer"):
        spawn(nursery)
    for child in children:
        child.close()
    nursery.close()


@namespaces
@pytest.mark.parametrize("disabled", [(), ("pid-namespace",)], ids=["process 1", "no namespace"])
def test_closing_ends_the_children(ground: Ground, disabled: tuple[str, ...]) -> None:
    off = frozenset(map(Layer, disabled))
    nursery = Nursery(replace(ground, disabled=off), with_trial=False)
    children = [spawn(nursery) for _ in range(3)]
    nursery.close()
    for child in children:
        assert ended(child.pid)
        assert child.wait(PATIENCE) is not None
        child.close()
    assert not nursery.alive
    nursery.close()
    with pytest.raises(OSError, match="the nursery has ended"):
        spawn(nursery)


def test_closing_from_many_threads_at_once(ground: Ground) -> None:
    nursery = Nursery(ground, with_trial=False)
    threads = [threading.Thread(target=nursery.close) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not nursery.alive
