"""What is Linux's own about the backend: nurseries, groups, user ids, and their ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.messages import Call, Load, Ready, Result
from sandbox_host.backends.base import Options
from sandbox_host.backends.linux.backend import LinuxBackend
from sandbox_host.backends.linux.process import LinuxChild
from sandbox_host.errors import AttestationError, ConfinementError
from sandbox_host.model import Layer, LayerStatus
from sandbox_host.runtime.launch import base_python
from sandbox_host.runtime.workspace import Workspace
from tests.support.child_session import HostEnd
from tests.support.plans import load_order, plan_and_places
from tests.support.traces import eventually

pytestmark = pytest.mark.needs("landlock", "seccomp")

PATIENCE = 20.0
LAYOUT = """
import ctypes
from plugin_sdk import operation

@operation
def layout():
    # Of the C library: the interpreter itself may be built for a fixed address.
    address = ctypes.cast(ctypes.CDLL(None).printf, ctypes.c_void_p).value
    return [hash("a word"), address]
"""

Make = Callable[..., LinuxBackend]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    made = Workspace(tmp_path / "state", Options().uids)
    yield made
    made.close()


@pytest.fixture
def make(workspace: Workspace) -> Iterator[Make]:
    """Return a function that makes backends, which are closed afterwards."""
    with ExitStack() as stack:

        def made(options: Options | None = None, python: Path | None = None) -> LinuxBackend:
            backend = LinuxBackend(options or Options(), python or base_python(), workspace.sdk_dir)
            stack.callback(backend.close)
            return backend

        yield made


@pytest.fixture
def prepare(workspace: Workspace, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Return a function of a backend that makes plans of what it offers, and places."""
    with ExitStack() as stack:

        def prepared(backend: LinuxBackend, name: str = "sample") -> Any:
            offers = backend.offers()
            layers = [o.layer for o in offers if o.status is LayerStatus.ACTIVE]
            layers.append(Layer.WATCHDOG)
            return stack.enter_context(
                plan_and_places(
                    tmp_path, name=name, layers=layers, main=LAYOUT, workspace=workspace
                )
            )

        yield prepared


def put_away(child: Any) -> Any:
    child.kill()
    how = child.wait(PATIENCE)
    child.close()
    return how


def nursery_of(child: Any) -> int:
    return psutil.Process(child.pid).ppid()


def layout(child: Any, prepared: Any) -> Any:
    host = HostEnd(child.receive_fd, child.send_fd)
    host.connection = child.connection
    host.send(Load(payload=pack(load_order(*prepared))))
    assert isinstance(host.receive(), Ready)
    host.send(Call(1, "layout", 0, payload=pack([[], {}])))
    answer = host.receive()
    assert isinstance(answer, Result)
    return unpack(answer.payload)


def test_plugins_of_one_nursery_are_its_copies(make: Make, prepare: Any) -> None:
    backend = make()
    plans = [prepare(backend, name) for name in ("one", "two")]
    children = [backend.start(*plan, PATIENCE)[0] for plan in plans]
    assert len({nursery_of(child) for child in children}) == 1
    one, two = (layout(child, plan) for child, plan in zip(children, plans, strict=True))
    assert one == two
    for child in children:
        put_away(child)


def test_plugins_that_are_exec_ed_share_neither_layout_nor_hash_seed(
    make: Make, prepare: Any
) -> None:
    backend = make(Options(start="exec"))
    plans = [prepare(backend, name) for name in ("one", "two")]
    children = [backend.start(*plan, PATIENCE)[0] for plan in plans]
    nurseries = {nursery_of(child) for child in children}
    assert len(nurseries) == 2
    one, two = (layout(child, plan) for child, plan in zip(children, plans, strict=True))
    assert one[0] != two[0]
    assert one[1] != two[1]
    # The nursery of one ends with it, and leaves the other alone.
    put_away(children[0])
    alive = {pid for pid in nurseries if psutil.pid_exists(pid)}
    assert alive == {nursery_of(children[1])}
    put_away(children[1])
    assert not any(psutil.pid_exists(pid) for pid in nurseries)


def test_nursery_that_died_is_replaced_at_the_next_start(make: Make, prepare: Any) -> None:
    backend = make()
    prepared = prepare(backend)
    offers = backend.offers()
    lost, _ = backend.start(*prepared, PATIENCE)
    first = nursery_of(lost)
    os.kill(first, signal.SIGKILL)
    how = lost.wait(PATIENCE)
    assert how is not None
    assert (how.code, how.signal, how.with_nursery) == (None, None, True)
    lost.close()
    child, _ = backend.start(*prepared, PATIENCE)
    assert nursery_of(child) != first
    assert not psutil.pid_exists(first)
    assert backend.offers() == offers
    put_away(child)


def test_nothing_starts_after_closing(make: Make, prepare: Any) -> None:
    backend = make()
    prepared = prepare(backend)
    child, _ = backend.start(*prepared, PATIENCE)
    nursery = nursery_of(child)
    put_away(child)
    backend.close()
    assert not psutil.pid_exists(nursery)
    with pytest.raises(ConfinementError, match="closing") as caught:
        backend.start(*prepared, PATIENCE)
    assert caught.value.layer == "process"


def test_interpreter_that_does_not_run(make: Make, tmp_path: Path) -> None:
    for python in (tmp_path / "missing", Path("/bin/false")):
        backend = make(python=python)
        with pytest.raises(ConfinementError, match="nursery") as caught:
            backend.offers()
        assert str(python) in caught.value.remedy
        assert caught.value.layer == "process"


@pytest.mark.needs("own-uid")
def test_user_id_is_given_back(make: Make, prepare: Any) -> None:
    backend = make()
    prepared = prepare(backend)
    child, receipt = backend.start(*prepared, PATIENCE)
    (uid,) = backend._uids._leased
    assert psutil.Process(child.pid).uids().real == uid
    assert prepared[1].data_dir.stat().st_uid == uid
    assert Layer.OWN_UID in receipt.active
    put_away(child)
    assert not backend._uids._leased


@pytest.mark.needs("cgroup")
def test_control_group_is_removed(make: Make, prepare: Any) -> None:
    backend = make()
    child, receipt = backend.start(*prepare(backend), PATIENCE)
    assert Layer.CGROUP in receipt.active
    lines = Path(f"/proc/{child.pid}/cgroup").read_text()
    assert isinstance(child, LinuxChild)
    assert child.group is not None
    name = child.group.paths[0].name
    assert name.startswith("sandbox-sample-")
    assert name in lines
    assert all(path.exists() for path in child.group.paths)
    put_away(child)
    assert not [path for path in child.group.paths if path.exists()]


@pytest.mark.parametrize("start", ["nursery", "exec"])
def test_start_that_fails_gives_everything_back(
    make: Make, prepare: Any, monkeypatch: pytest.MonkeyPatch, start: Any
) -> None:
    """At each step after the process was made."""
    from sandbox_host.backends.linux import backend as module

    backend = make(Options(start=start))
    prepared = prepare(backend)
    put_away(backend.start(*prepared, PATIENCE)[0])
    before = len(os.listdir("/proc/self/fd"))
    mine = {child.pid for child in psutil.Process().children(recursive=True)}

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(5, "Input/output error")

    for step, error in (("compile_plan", OSError), ("gather", AttestationError)):
        with monkeypatch.context() as patched:
            patched.setattr(module, step, fail)
            with pytest.raises(error):
                backend.start(*prepared, PATIENCE)
        assert len(os.listdir("/proc/self/fd")) == before
        assert eventually(
            lambda: {child.pid for child in psutil.Process().children(recursive=True)} == mine
        )
        assert not backend._uids._leased
