"""From spawn to ready, with children that do anything but that."""

from __future__ import annotations

import json
from typing import Any

import pytest

from plugin_sdk.wire.codec import pack
from plugin_sdk.wire.messages import Failed, Ready
from sandbox_host import SandboxHost
from sandbox_host.backends.base import Exit
from sandbox_host.errors import (
    AttestationError,
    ConfinementError,
    DeadlineExceededError,
    MetadataMismatchError,
    PluginEndedError,
    PluginError,
    StartError,
)
from sandbox_host.guarantees import missing, standing
from sandbox_host.model import FIXED_LAYERS, Cause, Layer, LayerStatus
from tests.support.fake_backend import SIGKILL, FakeBackend, Peer, ordinary, ready
from tests.support.host import Workshop


def load(workshop: Workshop, open_host: Any, script: Any, **options: Any) -> PluginError:
    """Load a plugin that must not start, then an ordinary one in its place."""
    scripts = iter([script, ordinary])

    def next_script(peer: Peer) -> None:
        next(scripts)(peer)

    host = open_host(next_script, **options)
    bundle = workshop.write()
    with pytest.raises(PluginError) as caught:
        host.load(bundle)
    assert host.plugins == {}
    (child,) = host._core._backend.children
    assert child.peer.exit is not None
    assert host.load(bundle).call("echo", 1) == 1
    return caught.value


def test_ordinary(workshop: Workshop, open_host: Any) -> None:
    host = open_host(ordinary)
    plugin = host.load(workshop.write())
    assert plugin.call("echo", [1, "a"]) == [1, "a"]
    host.unload("sample")
    assert plugin.cause is Cause.UNLOADED


@pytest.mark.parametrize("code", [0, 1, 73])
def test_exit_before_ready(workshop: Workshop, open_host: Any, code: int) -> None:
    error = load(workshop, open_host, lambda peer: peer.finish(code=code))
    assert isinstance(error, PluginEndedError)
    assert str(code) in str(error)


def test_crash_before_ready(workshop: Workshop, open_host: Any) -> None:
    error = load(workshop, open_host, lambda peer: peer.finish(signal=11))
    assert isinstance(error, PluginEndedError)
    assert error.cause == Cause.CRASHED


def test_never_ready(workshop: Workshop, open_host: Any) -> None:
    host = open_host(Peer.sleep, start_timeout_seconds=0.1)
    with pytest.raises(DeadlineExceededError):
        host.load(workshop.write())
    assert host.plugins == {}
    assert host._core._backend.children[0].peer.exit == Exit(None, SIGKILL, 0.0, 1 << 20)


def test_garbage_instead_of_ready(workshop: Workshop, open_host: Any) -> None:
    def script(peer: Peer) -> None:
        peer.receive()
        peer.write(b"\x00\x00\x00\x02\x00\x00\x00\x00garbage")
        peer.sleep()

    error = load(workshop, open_host, script)
    assert isinstance(error, PluginEndedError)
    assert error.cause == Cause.PROTOCOL_VIOLATION


def test_end_of_stream_inside_a_frame(workshop: Workshop, open_host: Any) -> None:
    def script(peer: Peer) -> None:
        peer.receive()
        peer.write(b"\x00\x00\x00\x02\x00")

    assert isinstance(load(workshop, open_host, script), PluginEndedError)


def test_failed_says_why(workshop: Workshop, open_host: Any) -> None:
    told = {"message": "no \x1b[2Jluck", "traceback": "line\nline\x00", "place": "main.py:3"}

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(Failed("import", payload=pack(told)))

    error = load(workshop, open_host, script)
    assert isinstance(error, StartError)
    assert str(error) == "sample did not start (main.py:3): no \\x1b[2Jluck."
    assert error.traceback_text == "line\nline\\x00"


@pytest.mark.parametrize("payload", [b"\xc1", b"", pack(None), pack([1]), pack({"message": 3})])
def test_failed_with_a_payload_of_any_kind(
    workshop: Workshop, open_host: Any, payload: bytes
) -> None:
    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(Failed("x", payload=payload))

    assert isinstance(load(workshop, open_host, script), StartError)


@pytest.mark.parametrize(
    "message",
    [
        Ready(payload=b"\xc1"),
        Ready(payload=pack(None)),
        Ready(payload=pack([])),
        Ready(payload=pack({})),
        ready(metadata=[]),
        ready(operations=[{"name": 3}]),
        ready(operations=["echo"]),
        ready("a\x1bb"),
        ready("x" * 300),
        ready(*(f"o{n}" for n in range(1_001))),
        ready(handles=("data_processed",)),
        ready(metadata={"name": "x" * 10_000}),
    ],
)
def test_ready_that_is_none(workshop: Workshop, open_host: Any, message: Ready) -> None:
    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(message)
        peer.sleep()

    error = load(workshop, open_host, script)
    assert isinstance(error, StartError)
    assert len(str(error)) < 1_000


def test_metadata_that_differs(workshop: Workshop, open_host: Any) -> None:
    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(ready(metadata={"name": "sample", "version": "9.9.9"}))
        peer.sleep()

    error = load(workshop, open_host, script)
    assert isinstance(error, MetadataMismatchError)
    assert "'version'" in str(error)


def test_child_that_cannot_be_confined(workshop: Workshop) -> None:
    backend = FakeBackend(ordinary, refuses=True)
    with (
        SandboxHost.blocking(workshop.config(), backend=backend) as host,
        pytest.raises(ConfinementError),
    ):
        host.load(workshop.write())
    assert backend.children == []
    assert list((workshop.state_dir / "run").iterdir()) == []


_ALL = frozenset(Layer)
_SWITCHES = [layer for layer in Layer if layer not in FIXED_LAYERS]


@pytest.mark.parametrize("layer", _SWITCHES)
def test_missing_layer_refuses_only_where_a_guarantee_goes_with_it(
    workshop: Workshop, layer: Layer
) -> None:
    lost = missing(_ALL - {layer})
    backend = FakeBackend(ordinary, missing=(layer,))
    bundle = workshop.write()
    with SandboxHost.blocking(workshop.config(), backend=backend) as host:
        if lost:
            with pytest.raises(ConfinementError) as caught:
                host.load(bundle)
            assert caught.value.layer == lost[0]
            assert backend.children == []
        else:
            assert layer not in host.load(bundle).receipt.active
    accepting = workshop.config(accept_missing=set(lost))
    with SandboxHost.blocking(accepting, backend=backend) as host:
        plugin = host.load(bundle)
        assert (plugin.plan.disabled, plugin.plan.accepted_missing) == ((), lost)
        assert layer not in plugin.receipt.active


@pytest.mark.parametrize("layer", _SWITCHES)
def test_layer_switched_off_is_refused_or_told_everywhere(
    workshop: Workshop, layer: Layer, caplog: pytest.LogCaptureFixture
) -> None:
    lost = missing(_ALL - {layer})
    backend = FakeBackend(ordinary, disabled=(layer,))
    bundle = workshop.write()
    with (
        SandboxHost.blocking(workshop.config(disable_layers={layer}), backend=backend) as host,
        pytest.raises(ConfinementError) as caught,
    ):
        host.load(bundle)
    assert caught.value.layer == layer
    assert backend.children == []
    caplog.clear()
    accepting = workshop.config(disable_layers={layer}, accept_missing={layer, *lost})
    with SandboxHost.blocking(accepting, backend=backend) as host:
        plugin = host.load(bundle)
        assert (plugin.plan.disabled, plugin.plan.accepted_missing) == ((layer,), lost)
        status = {report.layer: report.status for report in plugin.receipt.layers}
        assert status[layer] is LayerStatus.DISABLED
        assert plugin.receipt.guarantees == standing(_ALL - {layer})
    for name in (layer, *lost):
        assert f"{name} " in caplog.text
    journal = [json.loads(line) for line in accepting.journal_path.read_text().splitlines()]
    told = [(line["event"], line["detail"]) for line in journal]
    expected = [("layer_disabled", layer), *(("guarantee_missing", one) for one in lost)]
    kinds = {"layer_disabled", "guarantee_missing"}
    assert [one for one in told if one[0] in kinds] == expected


def test_receipt_is_of_the_layers_that_are_in_force(workshop: Workshop, open_host: Any) -> None:
    receipt = open_host(ordinary).load(workshop.write()).receipt
    assert receipt.active == tuple(Layer)
    assert receipt.guarantees == standing(tuple(Layer))
    assert [entry.name for entry in receipt.limits] == [
        *("memory_bytes", "cpu_seconds", "wall_seconds", "descriptors", "threads"),
        *("data_bytes", "data_files", "store_bytes", "cpu_seconds_per_minute"),
        *("messages_per_second", "message_bytes_per_second", "log_bytes_per_second"),
    ]


def test_plugin_that_is_confined_by_less_than_planned_is_not_imported(workshop: Workshop) -> None:
    backend = FakeBackend(ordinary, unapplied=(Layer.SECCOMP,))
    with SandboxHost.blocking(workshop.config(), backend=backend) as host:
        with pytest.raises(AttestationError, match="programs, kernel-surface, cpu would not"):
            host.load(workshop.write())
        assert host.plugins == {}
    (child,) = backend.children
    assert child.peer.exit == Exit(None, SIGKILL, 0.0, child.peer.resident)
    assert list((workshop.state_dir / "run").iterdir()) == []
    assert '"event":"start_failed"' in workshop.config().journal_path.read_text()
