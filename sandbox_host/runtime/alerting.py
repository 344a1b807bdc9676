"""Tells an operator of trouble: what is to be told, by `health.alerts`, to every sink.

Whoever sees something says so from any thread, and waits for nobody: each sink has a bounded queue,
and a thread for as long as something is in it. What does not fit is counted; a sink that fails is
told of to the others, as an alert of the host's own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from sandbox_host.health.alerts import AlertPolicy, Alerts, Severity
from sandbox_host.health.sources import ENDS, FORGETS, SINK, trouble_in
from sandbox_host.reading import escaped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox_host.health.alerts import Alert
    from sandbox_host.monitoring_terms import AlertSettings
    from sandbox_host.observe.journal import JournalEntry

_log = logging.getLogger("sandbox_host")

MAX_WAITING: Final = 256
"""Alerts that may wait for one sink."""

LEAVING_SECONDS: Final = 1.0
"""What all sinks together get to tell what waits, when the host ends."""

_SOONEST_SECONDS: Final = 0.05
_MAX_REASON: Final = 300


@dataclass(frozen=True, slots=True)
class Message:
    """One alert, as sinks tell it: its times are by the clock on the wall, in UTC."""

    alert: Alert
    since: datetime
    at: datetime

    @classmethod
    def of(cls, alert: Alert, now: float) -> Message:
        """Return it; `now` is a reading of the clock that the alert's times are by."""
        wall = datetime.now(UTC)
        since, at = (wall - timedelta(seconds=now - t) for t in (alert.since, alert.at))
        return cls(alert, since, at)

    @property
    def line(self) -> str:
        """The alert in one line for people."""
        alert = self.alert
        who = alert.plugin or "the host"
        often = f" ({alert.times} times)" if alert.times > 1 else ""
        return f"{who}: {alert.rule} {alert.kind}: {alert.text}{often}"

    @property
    def document(self) -> dict[str, Any]:
        """The alert as plain values; what a webhook and a command get, as JSON."""
        alert = self.alert
        return {
            "plugin": alert.plugin,
            "rule": alert.rule,
            "kind": str(alert.kind),
            "severity": str(alert.severity),
            "message": alert.text,
            "since": self.since.isoformat(timespec="milliseconds"),
            "at": self.at.isoformat(timespec="milliseconds"),
            "times": alert.times,
        }


class Sink(Protocol):
    """Where alerts go."""

    @property
    def name(self) -> str:
        """One word."""

    def tell(self, message: Message) -> None:
        """Tell an alert; may take its time, and raises where it cannot.

        Raises:
            Exception: it could not be told; the message says why, without secrets.
        """

    def abandon(self) -> None:
        """Let go of what goes on, from another thread: the host ends."""


class Outlet:
    """A sink's queue and thread.

    Args:
        sink: where alerts go.
        desk: is told when it fails, and when it works again.

    Attributes:
        lost: so many alerts were not told, all in all: there was no room, or it failed.
    """

    def __init__(self, sink: Sink, desk: AlertDesk) -> None:
        self.lost = 0
        self._sink = sink
        self._desk = desk
        self._rule = f"{SINK}{sink.name}"
        self._waiting: deque[Message] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, message: Message) -> None:
        """Have it told, unless too much waits. Does not wait."""
        if message.alert.rule == self._rule:
            return  # it would be told of itself
        with self._changed:
            full = len(self._waiting) >= MAX_WAITING
            if full or self._closed:
                self.lost += 1
            else:
                self._waiting.append(message)
                if self._thread is None and not self._begin():
                    self._waiting.clear()
                    self.lost += 1
        if full:
            self._failed(f"{MAX_WAITING} alerts wait for it")

    def _begin(self) -> bool:
        name = f"sandbox-host-alert-{self._sink.name}"
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread is to be had now; the next alert tries again
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._thread = None
                    self._changed.notify_all()
                    return
                message = self._waiting.popleft()
            try:
                self._sink.tell(message)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next one is told
                with self._changed:
                    self.lost += 1
                self._failed(str(error) or type(error).__name__)
            else:
                self._desk.well("", self._rule, f"the sink {self._sink.name} works again")

    def _failed(self, why: str) -> None:
        told = escaped(why, _MAX_REASON)
        text = f"the sink {self._sink.name} failed: {told}; {self.lost} alerts were not told there"
        if self._sink.name == "log":
            return  # nobody would see that in the log
        self._desk.trouble("", self._rule, Severity.WARNING, text)

    def close(self, until: float) -> None:
        """Tell what waits until this monotonic time, and end; the thread may take longer."""
        with self._changed:
            self._closed = True
            while self._thread is not None and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            self.lost += len(self._waiting)
            self._waiting.clear()
            late = self._thread is not None
        if late:
            self._sink.abandon()


class AlertDesk:
    """The alerts of one host. Methods may be called from any thread, and do not wait.

    Args:
        settings: the operator's.
        sinks: where alerts go.
    """

    def __init__(self, settings: AlertSettings, sinks: Iterable[Sink] = ()) -> None:
        policy = AlertPolicy(settings.pause_seconds, settings.repeat_seconds)
        self._alerts = Alerts(policy)
        self._outlets = [Outlet(sink, self) for sink in sinks]
        self._changed = threading.Condition(threading.RLock())
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sandbox-host-alerts", daemon=True)
        self._thread.start()

    # -- what is said -----------------------------------------------------------------------

    def trouble(self, plugin: str, rule: str, severity: Severity, text: str) -> None:
        """Something is wrong; see `Alerts.trouble`."""
        with self._changed:
            now = time.monotonic()
            self._send(self._alerts.trouble(plugin, rule, severity, text, now), now)

    def well(self, plugin: str, rule: str, text: str) -> None:
        """Nothing is wrong by this rule; see `Alerts.well`."""
        with self._changed:
            now = time.monotonic()
            self._send(self._alerts.well(plugin, rule, text, now), now)

    def heard(self, entry: JournalEntry) -> None:
        """A line was written to the journal: it may be trouble, or the end of some."""
        event, plugin = entry.event, entry.plugin
        if not plugin:
            return
        if (raises := trouble_in(event, entry.detail)) is not None:
            self.trouble(plugin, raises.rule, raises.severity, entry.detail)
        for rule in ENDS.get(event, ()):
            self.well(plugin, rule, _over(event))
        if event in FORGETS:
            with self._changed:
                now = time.monotonic()
                self._send(self._alerts.forget(plugin, _over(event), now), now)

    @property
    def open(self) -> list[tuple[str, str]]:
        """Plugin and rule of all trouble that goes on, in the order in which it began."""
        with self._changed:
            return self._alerts.open

    @property
    def lost(self) -> int:
        """How many alerts some sink has not told, all in all."""
        return sum(outlet.lost for outlet in self._outlets)

    # -- what becomes of it -----------------------------------------------------------------

    def _send(self, alerts: list[Alert], now: float) -> None:
        """Give to the sinks what is to be told now, and see to what is later; locked."""
        if self._closed:
            return
        for alert in alerts:
            message = Message.of(alert, now)
            for outlet in self._outlets:
                outlet.put(message)
        if alerts:
            self._changed.notify_all()

    def _run(self) -> None:
        """Tell what waited for its time."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                self._send(self._alerts.due(now), now)
                at = self._alerts.next_due()
                pause = None if at is None else max(_SOONEST_SECONDS, at - time.monotonic())
                self._changed.wait(None if pause is None else min(pause, threading.TIMEOUT_MAX))

    def close(self) -> None:
        """Tell what waits, within a second; a sink that takes longer is left alone."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        until = time.monotonic() + LEAVING_SECONDS
        for outlet in self._outlets:
            outlet.close(until)
        if self.lost:
            _log.warning("%d alerts were not told to one of their sinks", self.lost)


def _over(event: str) -> str:
    return {
        "started": "it runs",
        "restarted": "it runs again",
        "released": "an operator released it",
    }.get(event, f"it is {event.replace('_', ' ')}")
