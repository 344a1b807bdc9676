"""Alerts come to every sink, once; sinks that hang, fail or are flooded harm nobody but them."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from sandbox_host.health.alerts import Severity
from sandbox_host.monitoring_terms import AlertSettings
from sandbox_host.runtime.alerting import MAX_WAITING, AlertDesk
from tests.support.traces import eventually


class Kept:
    """A sink that keeps what it is told."""

    def __init__(self, name="kept"):
        self.name = name
        self.told = []

    def tell(self, message):
        self.told.append(message)

    def abandon(self):
        pass

    @property
    def short(self):
        return [(one.alert.plugin, one.alert.rule, str(one.alert.kind)) for one in self.told]


class Broken(Kept):
    """One that fails as long as it is broken."""

    broken = True

    def tell(self, message):
        if self.broken:
            raise RuntimeError("no \x1b[2J way")
        super().tell(message)


class Slow(Kept):
    """One that does not return before it is let go."""

    def __init__(self):
        super().__init__("slow")
        self.go = threading.Event()
        self.abandoned = False

    def tell(self, message):
        self.go.wait(20)
        super().tell(message)

    def abandon(self):
        self.abandoned = True
        self.go.set()


@pytest.fixture
def desk_of():
    desks = []

    def make(*sinks, **settings):
        desks.append(AlertDesk(AlertSettings(**settings), sinks))
        return desks[-1]

    yield make
    for desk in desks:
        desk.close()


def entry(event, plugin="sample", detail="why"):
    return SimpleNamespace(event=event, plugin=plugin, detail=detail)


def test_raised_once_and_recovered(desk_of):
    sink = Kept()
    desk = desk_of(sink, pause_seconds=0)
    for _ in range(100):
        desk.trouble("sample", "health", Severity.ERROR, "dead\n\x1b[2J" + "x" * 1_000)
    desk.well("sample", "health", "fine")
    assert eventually(lambda: len(sink.told) >= 2)
    assert sink.short == [("sample", "health", "raised"), ("sample", "health", "recovered")]
    text = sink.told[0].document["message"]
    assert text.isprintable()
    assert len(text) <= 500
    assert "\x1b" not in sink.told[0].line
    assert desk.open == []


def test_what_waits_for_its_time_is_told_then(desk_of):
    sink = Kept()
    desk = desk_of(sink, pause_seconds=0.1, repeat_seconds=0.1)
    desk.trouble("sample", "health", Severity.ERROR, "dead")
    desk.well("sample", "health", "fine")
    assert sink.short in ([], [("sample", "health", "raised")])
    assert eventually(lambda: len(sink.told) == 2)
    assert sink.told[1].document["kind"] == "recovered"


def test_lines_of_the_journal(desk_of):
    sink = Kept()
    desk = desk_of(sink, pause_seconds=0)
    for event in ("host_started", "admitted", "started", "killed", "restart_due", "restarted"):
        desk.heard(entry(event))
    desk.heard(entry("quarantined"))
    desk.heard(entry("killed", plugin=""))
    desk.heard(entry("ended", plugin="other"))
    desk.heard(entry("unloaded", plugin="other"))
    assert eventually(lambda: len(sink.told) == 5)
    assert sink.short == [
        ("sample", "ended", "raised"),
        ("sample", "ended", "recovered"),
        ("sample", "quarantine", "raised"),
        ("other", "ended", "raised"),
        ("other", "ended", "recovered"),
    ]
    assert desk.open == [("sample", "quarantine")]


def test_held_updates(desk_of):
    sink = Kept()
    desk = desk_of(sink, pause_seconds=0)
    desk.heard(entry("update_held"))
    assert eventually(lambda: sink.short == [("sample", "held", "raised")])
    desk.heard(entry("approved"))
    assert eventually(lambda: sink.short[1:] == [("sample", "held", "recovered")])


def test_a_broken_sink_is_told_of_to_the_others(desk_of):
    broken, sink = Broken("broken"), Kept()
    desk = desk_of(broken, sink, pause_seconds=0)
    desk.trouble("sample", "health", Severity.ERROR, "dead")
    assert eventually(lambda: ("", "sink-broken", "raised") in sink.short)
    assert ("sample", "health", "raised") in sink.short
    told = next(one.alert.text for one in sink.told if one.alert.rule == "sink-broken")
    assert "1 alerts were not told" in told
    assert "\x1b" not in told
    assert desk.lost == 1
    broken.broken = False
    desk.well("sample", "health", "fine")
    assert eventually(lambda: ("", "sink-broken", "recovered") in sink.short)
    assert broken.short == [("sample", "health", "recovered")]  # never told of itself


def test_a_slow_sink_holds_up_nobody_and_is_bounded(desk_of):
    slow, sink = Slow(), Kept()
    desk = desk_of(slow, sink)
    for number in range(MAX_WAITING + 50):
        desk.trouble(f"p{number}", "health", Severity.ERROR, "dead")
        if number % 100 == 0:  # the other one keeps up with that
            assert eventually(lambda n=number: (f"p{n}", "health", "raised") in sink.short)
    assert eventually(lambda: len(sink.told) == MAX_WAITING + 51)
    assert ("", "sink-slow", "raised") in sink.short
    assert 48 <= desk.lost <= 50
    desk.close()
    assert slow.abandoned
    assert desk.lost >= MAX_WAITING


def test_nothing_is_told_after_the_end_and_threads_are_gone(desk_of):
    sink = Kept("final")
    desk = desk_of(sink)
    desk.trouble("sample", "health", Severity.ERROR, "dead")
    desk.close()
    assert sink.short == [("sample", "health", "raised")]
    desk.trouble("other", "health", Severity.ERROR, "dead")
    assert len(sink.told) == 1
    names = {thread.name for thread in threading.enumerate()}
    assert not {"sandbox-host-alerts", "sandbox-host-alert-final"} & names


def test_without_trouble_there_is_no_thread(desk_of):
    desk = desk_of(Kept("quiet"))
    desk.well("sample", "health", "fine")
    desk.heard(entry("started"))
    assert "sandbox-host-alert-quiet" not in {thread.name for thread in threading.enumerate()}
