"""Each step of a plugin's life is an event and a line in the journal, in the order of the table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox_host import BlockingHost, PluginState, RestartPolicy, SandboxHost
from sandbox_host.bundle import ENVELOPE_NAME
from sandbox_host.errors import PluginError, RefusedError, ReloadError, StartError
from sandbox_host.observe.journal import last_entries
from sandbox_host.supervision.lifecycle import FIRST, JOURNAL, TABLE, Trigger
from sandbox_host.supervision.rollout import JOURNAL as UPDATES
from tests.support.host import Workshop
from tests.support.traces import eventually

SOURCE = """
@operation
def die():
    os._exit(3)
"""
AT_ONCE = RestartPolicy(first_delay_seconds=0.0, most_ends=2)
LINES = {  # by which more is told than by the table's word
    Trigger.READY: {"started", "restarted"},
    Trigger.FAIL: {"ended", "killed", "start_failed"},
}


@pytest.fixture
def host(workshop: Workshop) -> Iterator[BlockingHost]:
    with SandboxHost.blocking(workshop.config()) as opened:
        yield opened


def state(host: BlockingHost, name: str = "sample") -> PluginState | None:
    return next((life.state for life in host.lives() if life.plugin == name), None)


def test_every_step_is_an_event_and_a_line(host: BlockingHost, workshop: Workshop) -> None:
    with host.subscribe("plugin_state") as events:
        plugin = host.load(workshop.write(SOURCE), restart=AT_ONCE)
        assert state(host) is PluginState.RUNNING
        for _ in range(2):
            with pytest.raises(PluginError):
                plugin.call("die", deadline=20.0)
        assert eventually(lambda: state(host) is PluginState.QUARANTINED)
        host.release("sample")
        assert plugin.call("echo", 1, deadline=20.0) == 1
        host.unload("sample")
        assert eventually(lambda: state(host) is PluginState.STOPPED)
        told = []
        while not told or told[-1].data["after"] != "stopped":
            event = events.get(20.0)
            assert (event.source, event.data["plugin"]) == ("host", "sample")
            told.append(event)
    at = FIRST
    written = [one.event for one in last_entries(workshop.config().journal_path, plugin="sample")]
    for event in told:
        assert event.data["before"] == at
        trigger = Trigger(event.data["step"])
        at = TABLE[at][trigger]
        assert event.data["after"] == at
        assert written.pop(0) in LINES.get(trigger, {JOURNAL[trigger]})
    assert written == []
    steps = [event.data["step"] for event in told]
    assert [steps.count(one) for one in ("fail", "back-off", "quarantine", "release")] == [
        *(2, 1, 1, 1)
    ]


def test_what_is_refused_or_does_not_start(host: BlockingHost, workshop: Workshop) -> None:
    with pytest.raises(StartError):
        host.load(workshop.write("raise RuntimeError('no')"))
    (life,) = host.lives()
    assert (life.state, life.plugin) == (PluginState.FAILED, "sample")
    assert "no" in life.reason
    unsigned = workshop.write(name="other")
    (unsigned / ENVELOPE_NAME).unlink()
    with pytest.raises(RefusedError):
        host.load(unsigned)
    assert state(host, "other") is None  # nobody vouches for the name


def test_an_update_is_written_down(host: BlockingHost, workshop: Workshop) -> None:
    host.load(workshop.write())
    host.reload("sample", workshop.write(SOURCE, version="1.1.0"))
    bad = workshop.write("raise RuntimeError('no')", version="1.2.0")
    with pytest.raises((StartError, ReloadError)):
        host.reload("sample", bad)
    assert state(host) is PluginState.RUNNING
    entries = last_entries(workshop.config().journal_path, plugin="sample")
    updates = [one for one in entries if one.event in UPDATES.values()]
    assert [one.event for one in updates] == [
        *("update_starting", "update_started", "update_swapped", "update_done"),
        *("update_starting", "update_abandoned"),
    ]
    assert updates[0].detail == "version 1.1.0"
    assert "no" in updates[-1].detail
