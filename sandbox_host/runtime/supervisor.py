"""Starts again what has ended by itself: later each time, and not for ever.

What may be decided without a clock is in `sandbox_host.supervision.restart`. Here are the thread
that waits for the time that was decided on, and the threads that load: one for each plugin, so that
one that is slow to start keeps none of the others waiting.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Final

from sandbox_host.errors import (
    AlreadyLoadedError,
    DataInUseError,
    PluginNotFoundError,
    SandboxHostError,
)
from sandbox_host.model import Cause, identity_of
from sandbox_host.supervision.lifecycle import Trigger
from sandbox_host.supervision.restart import Quarantine, RestartPolicy, Restarts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandbox_host.runtime.lives import Lives
    from sandbox_host.runtime.process import PluginProcess
    from sandbox_host.runtime.slot import Slot

_log = logging.getLogger("sandbox_host")

_ASKED_FOR: Final = frozenset({Cause.UNLOADED, Cause.HOST_SHUTDOWN})
_NOT_GONE_SECONDS: Final = 0.02
_LINGERING_SECONDS: Final = 10.0
_DOSSIER_SECONDS: Final = 2.0
"""For which the word of a quarantine waits, so that it can name the dossier of the last end."""


class _Entry:
    """A plugin that is looked after.

    Attributes:
        slot: its place.
        load: loads it again.
        restarts: decides when.
        due: reading of the monotonic clock at which it is to be loaded; None while it is not.
        quarantine: why it is not started any more; "" while it is.
        untold: of its last end, where the quarantine has not been told; None where it has.
        tell_by: reading of the monotonic clock at which it is told, whatever is missing.
        dossier: of the process that ended last of those that left one.
        examined: what the last start left was put down.
        begun: reading of the monotonic clock when that was begun.
    """

    def __init__(
        self, slot: Slot, load: Callable[[], PluginProcess], policy: RestartPolicy
    ) -> None:
        self.slot = slot
        self.load = load
        self.restarts = Restarts(policy)
        self.due: float | None = None
        self.quarantine = ""
        self.untold: str | None = None
        self.tell_by = 0.0
        self.dossier: Path | None = None
        self.examined = False
        self.begun = 0.0

    @property
    def why(self) -> str:
        """Why it is in quarantine, and where more about that stands; "" where it is not."""
        if not self.quarantine or self.dossier is None:
            return self.quarantine
        return f"{self.quarantine} Its last dossier is {self.dossier}."


class Supervisor:
    """Looks after the plugins that were loaded with a `RestartPolicy`.

    Args:
        lives: where they stand, and who is told of it.
        put_out: unloads a process.
    """

    def __init__(self, lives: Lives, put_out: Callable[[PluginProcess], object]) -> None:
        self._lives = lives
        self._put_out = put_out
        self._entries: dict[str, _Entry] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loading: set[threading.Thread] = set()
        self._closed = False
        self._random = random.Random()  # noqa: S311 - spreads restarts in time, and hides nothing

    # -- who is looked after ----------------------------------------------------------------

    def watch(self, slot: Slot, load: Callable[[], PluginProcess], policy: RestartPolicy) -> None:
        """Look after a plugin that has just been loaded."""
        entry = _Entry(slot, load, policy)
        with self._changed:
            self._entries[slot.identity] = entry
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="sandbox-host-supervisor", daemon=True
                )
                self._thread.start()
        entry.restarts.started(time.monotonic())
        slot.expect(lambda process: self._expects(entry, process))
        if slot.process.life.over:
            self.ended(slot.process)  # before it was looked after

    def renew(self, process: PluginProcess, load: Callable[[], PluginProcess]) -> None:
        """Another version has taken the place of one that is looked after: look after that."""
        with self._changed:
            entry = self._entries.get(process.identity)
            if entry is None:
                return
            self._tell_quarantine(entry)
            entry.load, entry.quarantine, entry.due = load, "", None
            entry.dossier, entry.examined, entry.begun = None, False, process.started_at
            entry.restarts.forget()
            entry.restarts.started(time.monotonic())
        if process.life.over:
            self.ended(process)  # before it was looked after

    def forget(self, identity: str) -> None:
        """Look after it no more: it is unloaded, or loaded anew."""
        with self._changed:
            entry = self._entries.pop(identity, None)
        if entry is not None:
            self._tell_quarantine(entry)
            entry.slot.expect(None)

    def watches(self, identity: str) -> bool:
        """Tell whether it would be started again, were it to end."""
        entry = self._entries.get(identity)
        return entry is not None and not entry.quarantine

    def quarantined(self, name: str) -> str:
        """Return why a plugin is not started any more; "" where it is."""
        entry = self._entries.get(identity_of(name))
        return entry.why if entry is not None else ""

    def release(self, name: str) -> None:
        """Start a plugin in quarantine again, now, and forget how often it has ended.

        Raises:
            PluginNotFoundError: none of that name is in quarantine.
        """
        with self._changed:
            entry = self._entries.get(identity_of(name))
            if entry is None or not entry.quarantine:
                text = f"No plugin named {name!r} is in quarantine."
                raise PluginNotFoundError(text, plugin=identity_of(name))
            self._tell_quarantine(entry)
            self._lives.step(entry.slot.identity, Trigger.RELEASE)
            entry.quarantine = ""
            entry.restarts.forget()
            entry.due = time.monotonic()
            self._changed.notify()

    # -- what becomes of it -----------------------------------------------------------------

    def _expects(self, entry: _Entry, process: PluginProcess) -> bool:
        """Tell whether another process takes the place of one that has ended."""
        if self._closed or entry.quarantine or process.cause in _ASKED_FOR:
            return False
        return self._entries.get(entry.slot.identity) is entry

    def ended(self, process: PluginProcess) -> None:
        """A process has ended; called by the keeper, from whatever cause."""
        entry = self._entries.get(process.identity)
        if entry is None or entry.slot.process is not process:
            return
        if process.cause in _ASKED_FOR:
            self.forget(process.identity)
            return
        self._decide(entry, process.cause_text)

    def _decide(self, entry: _Entry, why: str) -> None:
        identity, now = entry.slot.identity, time.monotonic()
        with self._changed:
            if entry.due is not None or entry.quarantine or self._closed:
                return
            decision = entry.restarts.decide(now, self._random.random())
            if isinstance(decision, Quarantine):
                entry.quarantine, entry.untold = decision.reason, why
                entry.tell_by = now + _DOSSIER_SECONDS
            else:
                entry.due = decision.at
            self._changed.notify()
        if isinstance(decision, Quarantine):
            entry.slot.changed()
            if entry.examined:
                self._tell_quarantine(entry)
        else:
            after = f"in {decision.at - now:.3g} s: {why}"
            self._lives.step(identity, Trigger.BACK_OFF, after)

    def examined(self, process: PluginProcess) -> None:
        """What is known of a process that ended was put down; called for each, in any thread."""
        with self._changed:
            entry = self._entries.get(process.identity)
            if entry is None:
                return
            entry.dossier = process.dossier_path or entry.dossier
            # Of a start before this one it may come late: that is not the last word.
            entry.examined = process.started_at >= entry.begun
            if not entry.examined:
                return
        self._tell_quarantine(entry)

    def _tell_quarantine(self, entry: _Entry) -> None:
        """Tell of a quarantine, once."""
        with self._changed:
            last, entry.untold = entry.untold, None
        if last is not None:
            identity = entry.slot.identity
            _log.error("%s is in quarantine: %s", identity, entry.why)
            self._lives.step(identity, Trigger.QUARANTINE, f"{entry.why} {last}")

    def _tell_late(self, entries: list[_Entry], now: float) -> list[float]:
        """Tell of quarantines whose time has come; return when it comes for the others."""
        untold = [one for one in entries if one.untold is not None]
        for entry in untold:
            if entry.tell_by <= now:
                self._tell_quarantine(entry)
        return [one.tell_by for one in untold if one.tell_by > now]

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                now = time.monotonic()
                entries = list(self._entries.values())
                due = [one for one in entries if one.due is not None and one.due <= now]
                times = self._tell_late(entries, now)
                if not due:
                    times += [one.due for one in entries if one.due is not None]
                    self._changed.wait(min(times) - now if times else None)
                    continue
                for entry in due:
                    entry.due = None
            for entry in due:
                self._begin(entry)

    def _begin(self, entry: _Entry) -> None:
        identity = entry.slot.identity
        entry.begun, entry.examined = time.monotonic(), False
        self._lives.step(identity, Trigger.RENEW)
        name = f"sandbox-host-restart-{identity}"[:64]
        thread = threading.Thread(target=self._load, args=(entry,), name=name, daemon=True)
        with self._changed:
            self._loading.add(thread)
        try:
            thread.start()
        except RuntimeError as error:  # no thread is to be had now
            with self._changed:
                self._loading.discard(thread)
            self._failed(entry, str(error))

    def _load(self, entry: _Entry) -> None:
        try:
            process = self._loaded(entry)
            if process is not None:
                entry.restarts.started(time.monotonic())
                if process.life.over:
                    self.ended(process)  # as soon as it had started
        except SandboxHostError as error:
            # Somebody else may have loaded it meanwhile: another version took its place.
            away = self._entries.get(entry.slot.identity) is entry and entry.slot.process.life.over
            if away and not self._closed:
                _log.warning("%s was not started again: %s", entry.slot.identity, error)
                self._failed(entry, error.message)
        except Exception as error:  # noqa: BLE001 - else its callers would wait for nobody
            _log.exception("%s was not started again", entry.slot.identity)
            self._failed(entry, f"{type(error).__name__}: {error}")
        finally:
            with self._changed:
                self._loading.discard(threading.current_thread())

    def _failed(self, entry: _Entry, why: str) -> None:
        # Where it did not even come to be verified, nobody has said so yet.
        self._lives.step(entry.slot.identity, Trigger.REFUSE, why, journalled=True)
        self._decide(entry, why)

    def _loaded(self, entry: _Entry) -> PluginProcess | None:
        """Load it, once nothing of its last process is left; None where that is not wanted."""
        until = time.monotonic() + _LINGERING_SECONDS
        while not self._closed and self._entries.get(entry.slot.identity) is entry:
            last = entry.slot.process
            if last.life.over and not last.gone and time.monotonic() < until:
                time.sleep(_NOT_GONE_SECONDS)  # else it is verified and admitted in vain
                continue
            try:
                process = entry.load()
                with self._changed:
                    wanted = self._entries.get(process.identity) is entry
                if not wanted:  # it was unloaded while it was being started
                    self._put_out(process)
                    return None
                return process
            except (AlreadyLoadedError, DataInUseError):
                if time.monotonic() >= until or not entry.slot.process.life.over:
                    raise
                time.sleep(_NOT_GONE_SECONDS)
        return None

    def stop(self) -> None:
        """Begin no start any more."""
        with self._changed:
            self._closed = True
            entries = list(self._entries.values())
            self._changed.notify_all()
        for entry in entries:
            self._tell_quarantine(entry)
            entry.slot.changed()

    def close(self) -> None:
        """Wait for what was being started, after `stop`: the host lets none of it go on."""
        self.stop()
        with self._changed:
            loading = list(self._loading)
        for thread in [*loading, *([self._thread] if self._thread is not None else [])]:
            thread.join()
