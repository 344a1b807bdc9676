"""What every backend promises: one suite over all of them, the fake one included."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.limits import READ_BYTES
from plugin_sdk.wire.messages import Call, Load, Ready, Result, Stop, Stopped
from sandbox_host.backends.base import Exit, Options, OutOfMemory
from sandbox_host.backends.select import select_backend
from sandbox_host.errors import ConfinementError
from sandbox_host.guarantees import standing
from sandbox_host.model import Layer, LayerStatus
from sandbox_host.runtime.launch import base_python
from sandbox_host.runtime.workspace import Workspace
from tests.support.fake_backend import FakeBackend, Peer, become_ready
from tests.support.plans import load_order, plan_and_places
from tests.support.traces import eventually

PATIENCE_MS = 20_000
PATIENCE = PATIENCE_MS / 1_000
SEGMENTATION_FAULT = 11
BACKENDS = {
    "nursery": Options(start="nursery"),
    "exec": Options(start="exec"),
    "pool": Options(pool=2),
}

MAIN = """
import ctypes
import os

from plugin_sdk import operation

@operation
def echo(value):
    return value

@operation
def leave(code):
    os._exit(code)

@operation
def crash():
    ctypes.string_at(0)
"""


def scripted(peer: Peer) -> None:
    """What `MAIN` does, as a script."""
    become_ready(peer, "echo", "leave", "crash")
    while (message := peer.receive()) is not None:
        if isinstance(message, Stop):
            peer.send(Stopped(payload=pack({"ok": True, "error": None})))
            return
        assert isinstance(message, Call)
        args, _ = unpack(message.payload)
        if message.operation == "echo":
            peer.send(Result(message.id, payload=pack(args[0])))
        elif message.operation == "leave":
            peer.finish(code=args[0])
            return
        else:
            peer.finish(signal=SEGMENTATION_FAULT)
            return


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    made = Workspace(tmp_path_factory.mktemp("workspace") / "state", Options().uids)
    yield made
    made.close()


EVERY = [
    *[pytest.param(name, marks=pytest.mark.needs("landlock", "seccomp")) for name in BACKENDS],
    "fake",
]


@contextmanager
def opened(name: str, workspace: Workspace) -> Iterator[Any]:
    if name == "fake":
        yield FakeBackend(scripted)
        return
    made = select_backend(BACKENDS[name], base_python(), workspace.sdk_dir)
    yield made
    made.close()


@pytest.fixture(scope="module", params=EVERY)
def backend(request: pytest.FixtureRequest, workspace: Workspace) -> Iterator[Any]:
    """One for all tests, as a host has one for all plugins."""
    with opened(request.param, workspace) as made:
        yield made


@pytest.fixture(params=EVERY)
def backend_of_its_own(request: pytest.FixtureRequest, workspace: Workspace) -> Iterator[Any]:
    with opened(request.param, workspace) as made:
        yield made


@pytest.fixture
def prepared(backend: Any, workspace: Workspace, tmp_path: Path) -> Iterator[Any]:
    layers = [offer.layer for offer in backend.offers() if offer.status is LayerStatus.ACTIVE]
    layers.append(Layer.WATCHDOG)
    with plan_and_places(tmp_path, layers=layers, main=MAIN, workspace=workspace) as made:
        yield made


@pytest.fixture
def child(backend: Any, prepared: Any) -> Iterator[Any]:
    started, _ = backend.start(*prepared, PATIENCE)
    yield started
    end(started)


@pytest.fixture
def loaded(child: Any, prepared: Any) -> Any:
    send(child, Load(payload=pack(load_order(*prepared))))
    assert isinstance(receive(child), Ready)
    return child


def end(child: Any) -> None:
    child.kill()
    assert child.wait(PATIENCE) is not None
    child.close()


def settled(backend: Any) -> int:
    """Return how many descriptors there are, once a pool is full again."""
    pool = getattr(backend, "_pool", None)
    assert pool is None or eventually(lambda: pool.waiting == BACKENDS["pool"].pool)
    return open_descriptors()


def receive(child: Any) -> Any:
    """Return the next message from the child, or None at the end of the stream."""
    poller = select.poll()
    poller.register(child.receive_fd, select.POLLIN)
    while True:
        assert poller.poll(PATIENCE_MS), "the child did not answer"
        data = os.read(child.receive_fd, READ_BYTES)
        if not data:
            return None
        child.connection.receive_data(data)
        messages = child.connection.events_received()
        if messages:
            return messages[0]


def send(child: Any, message: Any) -> None:
    child.connection.send(message)
    os.write(child.send_fd, child.connection.data_to_send())


def is_readable(descriptor: int, timeout: float = 0.0) -> bool:
    return bool(select.select([descriptor], [], [], timeout)[0])


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_offers_name_each_layer_once_and_in_order(backend: Any) -> None:
    offers = backend.offers()
    assert [offer.layer for offer in offers] == [x for x in Layer if x is not Layer.WATCHDOG]
    assert all(offer.detail for offer in offers)
    lacking = [offer for offer in offers if offer.status is not LayerStatus.ACTIVE]
    assert all(offer.remedy for offer in lacking)
    assert backend.offers() == offers
    assert backend.name


def test_receipt_is_about_this_plugin_and_every_planned_layer(backend: Any, prepared: Any) -> None:
    plan, places = prepared
    child, receipt = backend.start(plan, places, PATIENCE)
    try:
        assert (receipt.plugin, receipt.pid) == ("sample", child.pid)
        assert set(receipt.active) == set(plan.layers) - {Layer.WATCHDOG}
        assert {r.layer for r in receipt.layers} == set(Layer) - {Layer.WATCHDOG}
        assert all(report.detail for report in receipt.layers)
        # The watchdog is the host's, who completes the receipt.
        assert receipt.guarantees == standing(receipt.active)
        assert "descriptors" in {entry.name for entry in receipt.limits}
        assert "native_code" in {entry.name for entry in receipt.permissions}
    finally:
        end(child)


def test_descriptors_never_block(child: Any) -> None:
    for descriptor in (child.receive_fd, *child.log_fds, child.trace_fd):
        assert not os.get_blocking(descriptor)
        with pytest.raises(BlockingIOError):
            os.read(descriptor, 1)
    assert not os.get_blocking(child.send_fd)
    ends = (child.receive_fd, child.send_fd, *child.log_fds, child.trace_fd, child.exit_fd)
    assert not any(os.get_inheritable(descriptor) for descriptor in ends)
    assert len(set(ends)) == len(ends)
    assert not is_readable(child.exit_fd)


def test_load_call_stop(loaded: Any) -> None:
    send(loaded, Call(1, "echo", 0, payload=pack([["hello"], {}])))
    answer = receive(loaded)
    assert isinstance(answer, Result)
    assert unpack(answer.payload) == "hello"
    assert not is_readable(loaded.exit_fd)
    send(loaded, Stop())
    assert isinstance(receive(loaded), Stopped)
    assert receive(loaded) is None
    how = loaded.wait(PATIENCE)
    assert (how.code, how.signal, how.with_nursery) == (0, None, False)
    assert how.out_of_memory is OutOfMemory.NO


@pytest.mark.parametrize("code", [0, 1, 77, 255])
def test_exit_code(loaded: Any, code: int) -> None:
    send(loaded, Call(1, "leave", 0, payload=pack([[code], {}])))
    assert is_readable(loaded.exit_fd, PATIENCE)
    how = loaded.wait(PATIENCE)
    assert (how.code, how.signal) == (code, None)


def test_signal(loaded: Any) -> None:
    send(loaded, Call(1, "crash", 0, payload=pack([[], {}])))
    assert is_readable(loaded.exit_fd, PATIENCE)
    how = loaded.wait(PATIENCE)
    assert (how.code, how.signal, how.with_nursery) == (None, SEGMENTATION_FAULT, False)


def test_kill(child: Any) -> None:
    assert child.wait(0.0) is None
    child.kill()
    assert is_readable(child.exit_fd, PATIENCE)
    how = child.wait(PATIENCE)
    assert (how.code, how.signal, how.with_nursery) == (None, 9, False)
    assert child.wait(0.0) == how


def test_waiting_is_told_to_everybody_who_waits(child: Any) -> None:
    told: list[Exit | None] = []
    waiting = [threading.Thread(target=lambda: told.append(child.wait(PATIENCE))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    child.kill()
    for thread in waiting:
        thread.join()
    assert [how.signal for how in told if how] == [9, 9, 9]


def test_the_dead_stay_dead(child: Any) -> None:
    child.kill()
    assert child.wait(PATIENCE) is not None
    assert child.sample() is None
    before = child.cpu_seconds()
    child.kill()
    child.interrupt()
    child.ask_for_stacks()
    assert child.cpu_seconds() == before
    child.close()
    child.close()
    child.kill()


def test_closing_our_end_ends_it(child: Any) -> None:
    copy = os.open(os.devnull, os.O_WRONLY)
    os.dup2(copy, child.send_fd)
    os.close(copy)
    assert is_readable(child.exit_fd, PATIENCE)
    assert child.wait(PATIENCE).signal is None


def test_sample_of_a_living_child(loaded: Any) -> None:
    sample = loaded.sample()
    assert 0 < sample.resident_bytes <= sample.resident_peak_bytes + (1 << 20)
    assert sample.threads == 1
    assert sample.descriptors >= 6
    assert 0 <= sample.cpu_seconds <= loaded.cpu_seconds() + 1e-9


def test_stacks_and_interrupt_do_not_end_a_loaded_child(loaded: Any) -> None:
    loaded.ask_for_stacks()
    loaded.interrupt()
    send(loaded, Call(1, "echo", 0, payload=pack([[1], {}])))
    assert isinstance(receive(loaded), Result)


def test_no_time_to_start_is_an_error_and_leaves_nothing(backend: Any, prepared: Any) -> None:
    before = settled(backend)
    for _ in range(2):
        with pytest.raises(ConfinementError) as caught:
            backend.start(*prepared, 0.0)
        assert caught.value.layer == "process"
        assert settled(backend) == before


def test_starting_again_and_again_leaves_nothing(backend: Any, prepared: Any) -> None:
    counts = set()
    for _ in range(3):
        child, _ = backend.start(*prepared, PATIENCE)
        end(child)
        counts.add(settled(backend))
    assert len(counts) == 1


def test_two_children_at_once(
    backend: Any, prepared: Any, workspace: Workspace, tmp_path: Path
) -> None:
    layers, other = prepared[0].layers, tmp_path / "other"
    with plan_and_places(other, name="other", layers=layers, workspace=workspace) as second:
        one, _ = backend.start(*prepared, PATIENCE)
        two, _ = backend.start(*second, PATIENCE)
        assert one.pid != two.pid
        one.kill()
        assert one.wait(PATIENCE) is not None
        assert two.wait(0.0) is None
        end(two)
        one.close()


def test_children_started_from_several_threads(
    backend: Any, prepared: Any, workspace: Workspace, tmp_path: Path
) -> None:
    started: list[Any] = []
    layers = prepared[0].layers

    def start(number: int) -> None:
        root = tmp_path / str(number)
        with plan_and_places(
            root, name=f"other_{number}", layers=layers, workspace=workspace
        ) as made:
            started.append(backend.start(*made, PATIENCE)[0])

    threads = [threading.Thread(target=start, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The threads that asked for them have ended, and the children have not.
    assert [child.wait(0.0) for child in started] == [None] * 4
    assert len({child.pid for child in started}) == 4
    for child in started:
        end(child)


def test_closing_twice_leaves_nothing(backend_of_its_own: Any) -> None:
    before, children = open_descriptors(), psutil.Process().children()
    backend_of_its_own.offers()
    backend_of_its_own.close()
    backend_of_its_own.close()
    # A pool may have been about to be filled.
    assert open_descriptors() <= before
    assert set(psutil.Process().children()) <= set(children)
