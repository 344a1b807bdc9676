"""What every backend promises: one suite over all of them, the fake one included."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.limits import READ_BYTES
from plugin_sdk.wire.messages import Call, Load, Ready, Result, Stop, Stopped
from sandbox_host.backends.select import select_backend
from sandbox_host.errors import ConfinementError
from sandbox_host.model import Layer, LayerStatus
from tests.support.fake_backend import FakeBackend, ordinary
from tests.support.plans import load_order, plan_and_places

PATIENCE_MS = 20_000


@pytest.fixture(
    params=[
        pytest.param("system", marks=pytest.mark.needs("landlock", "seccomp")),
        "fake",
    ]
)
def backend(request: pytest.FixtureRequest) -> Any:
    return select_backend() if request.param == "system" else FakeBackend(ordinary)


@pytest.fixture
def prepared(tmp_path: Path) -> Iterator[Any]:
    with plan_and_places(tmp_path) as made:
        yield made


@pytest.fixture
def child(backend: Any, prepared: Any) -> Iterator[Any]:
    started, _ = backend.start(*prepared, 20.0)
    yield started
    started.kill()
    assert started.wait(20.0) is not None
    started.close()


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


def test_offers_name_each_layer_once(backend: Any) -> None:
    offers = backend.offers()
    layers = [offer.layer for offer in offers]
    assert len(layers) == len(set(layers))
    assert set(layers) == set(Layer) - {Layer.WATCHDOG}
    assert all(offer.detail for offer in offers)
    lacking = [offer for offer in offers if offer.status is not LayerStatus.ACTIVE]
    assert all(offer.remedy for offer in lacking)


def test_receipt_is_about_this_plugin_and_every_planned_layer(backend: Any, prepared: Any) -> None:
    plan, places = prepared
    child, receipt = backend.start(plan, places, 20.0)
    try:
        assert (receipt.plugin, receipt.pid) == ("sample", child.pid)
        assert set(receipt.active) == set(plan.layers) - {Layer.WATCHDOG}
        assert backend.name
    finally:
        child.kill()
        assert child.wait(20.0) is not None
        child.close()


def test_descriptors_never_block(child: Any) -> None:
    for descriptor in (child.receive_fd, *child.log_fds, child.trace_fd):
        assert not os.get_blocking(descriptor)
        with pytest.raises(BlockingIOError):
            os.read(descriptor, 1)
    assert not os.get_blocking(child.send_fd)
    assert not os.get_inheritable(child.send_fd)
    assert not is_readable(child.exit_fd)


def test_load_call_stop(child: Any, prepared: Any) -> None:
    send(child, Load(payload=pack(load_order(*prepared))))
    assert isinstance(receive(child), Ready)
    send(child, Call(1, "echo", 0, payload=pack([["hello"], {}])))
    answer = receive(child)
    assert isinstance(answer, Result)
    assert unpack(answer.payload) == "hello"
    assert not is_readable(child.exit_fd)
    send(child, Stop())
    assert isinstance(receive(child), Stopped)
    assert receive(child) is None
    how = child.wait(20.0)
    assert (how.code, how.signal) == (0, None)


def test_kill(child: Any) -> None:
    assert child.wait(0.0) is None
    child.kill()
    assert is_readable(child.exit_fd, 20.0)
    how = child.wait(20.0)
    assert (how.code, how.signal) == (None, 9)
    assert child.wait(0.0) == how


def test_the_dead_stay_dead(child: Any) -> None:
    child.kill()
    assert child.wait(20.0) is not None
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
    assert is_readable(child.exit_fd, 20.0)
    assert child.wait(20.0).signal is None


def test_sample_of_a_living_child(child: Any, prepared: Any) -> None:
    send(child, Load(payload=pack(load_order(*prepared))))
    assert isinstance(receive(child), Ready)
    sample = child.sample()
    assert 0 < sample.resident_bytes <= sample.resident_peak_bytes + (1 << 20)
    assert sample.threads == 1
    assert sample.descriptors >= 6
    assert 0 <= sample.cpu_seconds <= child.cpu_seconds() + 1e-9


def test_stacks_and_interrupt_do_not_end_a_loaded_child(child: Any, prepared: Any) -> None:
    send(child, Load(payload=pack(load_order(*prepared))))
    assert isinstance(receive(child), Ready)
    child.ask_for_stacks()
    child.interrupt()
    send(child, Call(1, "echo", 0, payload=pack([[1], {}])))
    assert isinstance(receive(child), Result)


def test_no_time_to_start_is_an_error_and_leaves_nothing(backend: Any, prepared: Any) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfinementError):
        backend.start(*prepared, 0.0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_two_children_at_once(backend: Any, prepared: Any, tmp_path: Path) -> None:
    with plan_and_places(tmp_path / "other", name="other") as other:
        one, _ = backend.start(*prepared, 20.0)
        two, _ = backend.start(*other, 20.0)
        assert one.pid != two.pid
        one.kill()
        assert one.wait(20.0) is not None
        assert two.wait(0.0) is None
        two.kill()
        assert two.wait(20.0) is not None
        one.close()
        two.close()
