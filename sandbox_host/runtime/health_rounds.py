"""Looks at the health of all plugins of a host, again and again, in one thread.

Each plugin has its time in the interval, so that questions of a thousand are spread over it. Those
that are due are asked without waiting for one another; answers are collected several times a
second, until the one deadline of each, and nobody who hangs delays another. A plugin that has not
answered is not asked a second time before it has: it is looked at again, and did not answer still.

A plugin without ``health_check()``, and one that takes no calls now, is not woken.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.errors import BackpressureError, PluginEndedError, PluginError
from sandbox_host.health.hysteresis import Hysteresis, HysteresisPolicy
from sandbox_host.health.record import NOBODY_LOOKS, NOT_YET, PluginHealth
from sandbox_host.health.verdict import Facts, HealthStatus, verdict
from sandbox_host.ipc.calls import Pending
from sandbox_host.runtime.health_facts import Observer, thresholds_of
from sandbox_host.runtime.healthcheck import HEALTH_CHECK, failed_report, work_of
from sandbox_host.runtime.party import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sandbox_host.config import HostConfig
    from sandbox_host.health.hysteresis import StatusChange
    from sandbox_host.health.verdict import Verdict
    from sandbox_host.runtime.process import PluginProcess

_log = logging.getLogger("sandbox_host")

POLICY: Final = HysteresisPolicy()
DOUBT: Final = 3
"""In doubt a plugin is looked at so many times as often."""

_LONGEST_TICK: Final = 0.25
_SHORTEST_TICK: Final = 0.005
_GOLDEN: Final = 0.618_033_988_749_895
"""Its multiples, without what stands before the point, are spread evenly, however many they are."""

_TOO_LARGE: Final = "its health report is larger than 16 KiB"


class _Patient:
    """One process that is looked at. Everything but `process` is the thread's own."""

    def __init__(self, process: PluginProcess, due: float, now: float, turn: int) -> None:
        self.process = process
        self.turn = turn
        self.due = due
        self.observer = Observer(process, now)
        self.hysteresis = Hysteresis(POLICY)
        self.asked: Pending | None = None
        self.until = 0.0
        self.silent = 0


class HealthRounds:
    """See the module. Methods may be called from any thread.

    Args:
        config: the operator's.
        turned: told of each change of a status. Called by the thread; may take a moment.
        unresponsive: told, with a sentence, of a process that is unhealthy because it does not
            answer, and works on nothing whose deadline would end it. The same.
        served: tells whether a service is being done for a process.
    """

    def __init__(
        self,
        config: HostConfig,
        turned: Callable[[PluginProcess, StatusChange], object],
        unresponsive: Callable[[PluginProcess, str], object],
        served: Callable[[PluginProcess], bool] = lambda _: False,
    ) -> None:
        self._turned = turned
        self._unresponsive = unresponsive
        self._served = served
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._numbers = itertools.count()
        self._turn = 0
        self._due: list[tuple[float, int, _Patient]] = []
        self._waiting: list[_Patient] = []
        self._set(config)

    def _set(self, config: HostConfig) -> None:
        self._config = config
        self._interval = config.health_check_interval / 1_000
        self._timeout = config.health_check_timeout / 1_000
        self._tick = min(_LONGEST_TICK, max(_SHORTEST_TICK, self._interval / 4))
        self._thresholds = thresholds_of(config)

    # -- who is looked at -------------------------------------------------------------------

    def add(self, process: PluginProcess) -> None:
        """Look at a process that is ready from now on, for the first time within an interval."""
        looks = self._config.enable_monitoring
        process.health = PluginHealth(
            process.identity,
            HealthStatus.HEALTHY,
            NOT_YET if looks else NOBODY_LOOKS,
            datetime.now(UTC),
        )
        if looks:
            self._enlist(process)

    def _enlist(self, process: PluginProcess) -> None:
        with self._changed:
            if self._closed:
                return
            number, now = next(self._numbers), time.monotonic()
            # Not at once: it has just started, and may be asked for what it was started for.
            due = now + self._interval * (0.5 + number * _GOLDEN % 1.0)
            heapq.heappush(self._due, (due, number, _Patient(process, due, now, self._turn)))
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="sandbox-host-health", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # no thread is to be had; the next plugin asks again
                    _log.error("nobody looks at the health of plugins now: %s", error)
                else:
                    self._thread = thread
            self._changed.notify()

    def ended(self, process: PluginProcess) -> None:
        """A process has ended: so does its health. Nothing of it is kept until its next turn."""
        with self._changed:
            kept = [one for one in self._due if one[2].process is not process]
            heapq.heapify(kept)
            self._due = kept
        if process.health is not None:
            process.health = process.health.ended(process.cause_text, datetime.now(UTC))

    def reconfigure(self, config: HostConfig, processes: Iterable[PluginProcess]) -> None:
        """Look from now on by another configuration.

        Args:
            config: the operator's.
            processes: all that run.
        """
        timing = ("enable_monitoring", "health_check_interval")
        same = all(getattr(config, name) == getattr(self._config, name) for name in timing)
        with self._changed:
            self._set(config)
            if same:
                return
            self._turn += 1  # what the thread has in its hands now is not looked at again
            self._due.clear()
            self._waiting.clear()
        for process in processes:
            if not process.life.over:
                self.add(process)

    def close(self) -> None:
        """Ask nobody any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    # -- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                self._changed.wait(self._pause(time.monotonic()))
                now = time.monotonic()
                waiting, self._waiting = self._waiting, []
                due = []
                while self._due and self._due[0][0] <= now:
                    due.append(heapq.heappop(self._due)[2])
            for patient in waiting:
                self._attempt(self._collect, patient, now)
            for patient in due:
                self._attempt(self._begin, patient, now)

    def _pause(self, now: float) -> float | None:
        if self._waiting:
            return self._tick
        # At least a tick: several that are due soon are taken together.
        return max(self._tick, self._due[0][0] - now) if self._due else None

    def _attempt(
        self, step: Callable[[_Patient, float], None], patient: _Patient, now: float
    ) -> None:
        """Take a step; what goes wrong with one plugin must not keep the others from theirs."""
        process = patient.process
        if process.life.over or patient.turn != self._turn:
            return
        try:
            step(patient, now)
        except PluginEndedError:
            self._later(patient, now, self._interval)  # it ends, and is forgotten when it has
        except Exception:  # noqa: BLE001 - a fault of the host's
            _log.exception("%s: its health could not be looked at", process.identity)
            self._later(patient, now, self._interval)

    def _later(self, patient: _Patient, now: float, seconds: float) -> None:
        """Look at it again so long after it was due; what is late does not catch up."""
        patient.due = patient.due + seconds if patient.due + seconds > now else now + seconds
        with self._changed:
            heapq.heappush(self._due, (patient.due, next(self._numbers), patient))

    def _begin(self, patient: _Patient, now: float) -> None:
        """Ask it, unless it has not answered the last time."""
        process = patient.process
        if not process.takes_calls:
            self._later(patient, now, self._interval)
            return
        if patient.asked is not None and process.channel.has(patient.asked):
            self._did_not_answer(patient, now)
            return
        patient.asked = None
        if HEALTH_CHECK not in process.operations:
            self._judge(patient, now, None, 0.0)
            return
        patient.observer.asked()
        try:
            wall = process.plan.limits.wall_seconds
            patient.asked = process.talk.begin(Request(HEALTH_CHECK, (), {}, wall))
        except BackpressureError:
            self._did_not_answer(patient, now)
            return
        process.channel.attend()
        patient.until = now + self._timeout
        with self._changed:
            self._waiting.append(patient)

    def _collect(self, patient: _Patient, now: float) -> None:
        """Take its answer, if it has come, or give up on that at the deadline."""
        asked = patient.asked
        if asked is not None and asked.done():
            if isinstance(asked.answer, Exception):  # the host's word: it was too late, or ended
                self._did_not_answer(patient, now)
                return
            patient.asked, patient.silent = None, 0
            self._judge(patient, now, _report(patient.process, asked), _seconds(asked))
        elif now < patient.until:
            with self._changed:
                self._waiting.append(patient)
        else:
            if asked is not None:
                # Once, and without a threat: budgets end what hangs, not the question of how it is.
                patient.process.talk.cancel(asked, late=True, hard=False)
            self._did_not_answer(patient, now)

    def _did_not_answer(self, patient: _Patient, now: float) -> None:
        process = patient.process
        if process.life.ending is not None:
            return  # it is being ended, and forgotten with that
        work = work_of(process, patient.asked, served=self._served(process))
        busy = patient.observer.busy(work, now)
        # What it worked on meanwhile has a deadline, which is its end already; and who has just
        # done with it gets the time to answer.
        patient.silent = 0 if busy or work.is_bounded else patient.silent + 1
        self._judge(patient, now, None, None, busy=busy)
        unhealthy = patient.hysteresis.status is HealthStatus.UNHEALTHY
        if unhealthy and patient.silent >= POLICY.bad:
            times = f"{patient.silent} health checks in a row"
            text = f"{process.identity} did not answer {times}, and works on nothing else."
            self._unresponsive(process, text)

    def _judge(
        self,
        patient: _Patient,
        now: float,
        report: Any,
        response: float | None,
        *,
        busy: bool = False,
    ) -> None:
        process, hysteresis = patient.process, patient.hysteresis
        found = verdict(report, self._facts(patient, now, response, busy=busy), self._thresholds)
        change = hysteresis.see(found)
        before = process.health
        if before is not None and not process.life.over:
            process.health = before.after(found, hysteresis.status, datetime.now(UTC))
        self._later(patient, now, self._pause_after(found, hysteresis))
        if change is not None:
            self._turned(process, change)

    def _pause_after(self, found: Verdict, hysteresis: Hysteresis) -> float:
        doubt = found.status is not hysteresis.status and not found.busy
        return self._interval / DOUBT if doubt else self._interval

    def _facts(self, patient: _Patient, now: float, response: float | None, *, busy: bool) -> Facts:
        config = self._config
        if not config.metrics_collection:
            return Facts(response_seconds=response, busy=busy)
        return patient.observer.look(
            now,
            work_of(patient.process, patient.asked),
            response=response,
            busy=busy,
            timed=self._thresholds.degraded_operation_seconds < math.inf,
        )


def _seconds(asked: Pending) -> float:
    return max(0.0, asked.finished_at - asked.sent_at)


def _report(process: PluginProcess, asked: Pending) -> Any:
    """Return what it answered, as a report; never more than is decoded in no time."""
    if process.talk.is_bulky(asked):
        return failed_report(_TOO_LARGE)
    try:
        return process.talk.result(asked)
    except PluginEndedError:
        raise
    except PluginError as error:
        return failed_report(error.message)
