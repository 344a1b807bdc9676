"""One thread looks at all: nobody waits for another, nobody is asked twice at a time."""

from __future__ import annotations

import itertools
import threading
import time
from types import SimpleNamespace

import pytest

from sandbox_host.config import HostConfig
from sandbox_host.errors import BackpressureError
from sandbox_host.health.verdict import HealthStatus
from sandbox_host.ipc.calls import Pending
from sandbox_host.model import Limits
from sandbox_host.observe.metrics import OperationMetrics
from sandbox_host.runtime.health_facts import Observer, thresholds_of
from sandbox_host.runtime.health_rounds import POLICY, HealthRounds
from sandbox_host.runtime.healthcheck import Work, work_of
from tests.support.traces import eventually

NUMBERS = itertools.count(1)


def call(operation="work", *, deadline=None, started=True):
    now = time.monotonic()
    made = Pending(next(NUMBERS), operation, now + 600 if deadline is None else deadline, now)
    made.started_at = now if started else 0.0
    return made


class Fake:
    """A plugin's process, as far as looking at its health goes.

    Args:
        answer: what `health_check` returns; None never answers; an exception is raised by `begin`.
    """

    def __init__(self, answer=None, *, name="fake", operations=("health_check",)):
        self.identity = name
        self.answer = answer
        self.operations = operations
        self.takes_calls = True
        self.life = SimpleNamespace(over=False, ending=None)
        self.cause_text = "it crashed"
        self.plan = SimpleNamespace(limits=Limits())
        self.ledger = SimpleNamespace(operations=dict, excused=0)
        self.max_outstanding = 10
        self.health = None
        self.cpu = 0.0
        self.computes = False
        self.sampled = 0
        self.asked = 0
        self.cancelled = []
        self.waiting: list[Pending] = []
        self.bulky = False
        self.talk = self.channel = self

    # -- conversation and channel
    def begin(self, request):
        assert request.operation == "health_check"
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        pending = call("health_check", started=not self.waiting)
        if self.answer is None:
            self.waiting.append(pending)
        else:
            pending.finish(SimpleNamespace(), pending.sent_at + 0.001)
        return pending

    def cancel(self, pending, *, late, hard):
        self.cancelled.append((pending, late, hard))

    def is_bulky(self, _pending):
        return self.bulky

    def result(self, _pending):
        assert not self.bulky
        return self.answer

    def has(self, pending):
        return pending in self.waiting

    def outstanding(self):
        return list(self.waiting)

    def attend(self):
        """Nothing is to be read."""

    @property
    def idle(self):
        return not self.waiting

    # -- process
    def at_work(self):
        return self.waiting[:1]

    def cpu_seconds(self):
        self.cpu += 0.01 * self.computes
        return self.cpu

    def resident_bytes(self):
        self.sampled += 1
        return 1 << 20


FINE = {"status": "healthy"}


class Told:
    """What rounds told."""

    def __init__(self):
        self.turns = []
        self.silent = []

    def turned(self, process, change):
        self.turns.append((process.identity, str(change.after)))

    def unresponsive(self, process, why):
        self.silent.append((process.identity, why))


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def rounds_of(told):
    made = []

    def make(**options):
        quick = {"health_check_interval": 20.0, "health_check_timeout": 30.0}
        config = HostConfig(**quick | options)
        made.append(HealthRounds(config, told.turned, told.unresponsive))
        return made[-1]

    yield make
    for rounds in made:
        rounds.close()


def test_a_thousand_are_spread_over_the_interval(rounds_of):
    rounds = rounds_of(health_check_interval=60_000.0)
    began = time.monotonic()
    for number in range(1_000):
        rounds.add(Fake(FINE, name=f"p{number}"))
    ended = time.monotonic()
    times = sorted(due for due, _, _ in rounds._due)
    assert began + 30 <= times[0]
    assert times[-1] <= ended + 90
    # As even as can be, but for the time that it took to add them.
    assert max(b - a for a, b in itertools.pairwise(times)) < 0.2 + (ended - began)
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("sandbox-host-health") == 1


def test_those_that_hang_delay_nobody_and_are_asked_once(rounds_of, told):
    hung = [Fake(name=f"hung{number}") for number in range(20)]
    fine = Fake(FINE)
    rounds = rounds_of()
    for process in (*hung, fine):
        rounds.add(process)
    assert eventually(lambda: len({name for name, _ in told.silent}) == 20)
    assert fine.asked > 3
    assert fine.health.status is HealthStatus.HEALTHY
    assert {process.asked for process in hung} == {1}
    for process in hung:
        assert process.cancelled == [(process.waiting[0], True, False)]
        assert process.health.status is HealthStatus.UNHEALTHY
    assert ("hung0", "unhealthy") in told.turns
    assert "fake" not in {name for name, _ in told.turns}


def test_work_with_a_deadline_is_not_ended_for_silence(rounds_of, told):
    process = Fake()
    process.waiting.append(call())
    rounds_of().add(process)
    assert eventually(lambda: ("fake", "unhealthy") in told.turns)
    looked = process.health.looked_at
    assert eventually(lambda: process.health.looked_at != looked)
    assert told.silent == []


def test_who_computes_is_busy(rounds_of, told):
    process = Fake()
    process.waiting.append(call())
    process.computes = True
    rounds_of().add(process)
    assert eventually(lambda: process.health.busy)
    assert process.health.status is HealthStatus.HEALTHY
    process.computes = False
    assert eventually(lambda: process.health.status is HealthStatus.UNHEALTHY)


def test_too_many_calls_are_no_answer_and_no_reason_to_ask(rounds_of, told):
    process = Fake(BackpressureError("full", plugin="fake"))
    process.waiting = [call(), *(call(started=False) for _ in range(9))]
    process.computes = True
    rounds_of().add(process)
    assert eventually(lambda: process.health.status is HealthStatus.DEGRADED)
    assert "calls wait for it" in process.health.message
    assert told.silent == []


def test_who_takes_no_calls_is_not_asked(rounds_of):
    resting, fine = Fake(FINE), Fake(FINE)
    resting.takes_calls = False
    rounds = rounds_of()
    rounds.add(resting)
    rounds.add(fine)
    assert eventually(lambda: fine.asked > 3)
    assert resting.asked == 0
    resting.takes_calls = True
    assert eventually(lambda: resting.asked > 0)


def test_who_has_no_health_check_is_judged_by_facts_and_sampled_when_it_ran(rounds_of):
    process = Fake(operations=())
    rounds_of().add(process)
    first = lambda: process.health.looked_at is not None  # noqa: E731 - short
    assert eventually(first)
    looked = process.health.looked_at
    assert eventually(lambda: process.health.looked_at > looked)
    assert (process.asked, process.sampled) == (0, 1)
    process.computes = True
    assert eventually(lambda: process.sampled > 1)


def test_a_report_that_is_too_large_is_not_decoded(rounds_of):
    process = Fake(FINE)
    process.bulky = True
    rounds_of().add(process)
    assert eventually(lambda: process.health.status is HealthStatus.UNHEALTHY)
    assert "larger than 16 KiB" in process.health.message


def test_a_fault_with_one_is_no_fault_with_others(rounds_of, caplog):
    broken, fine = Fake(RuntimeError("oops")), Fake(FINE)
    rounds = rounds_of()
    rounds.add(broken)
    rounds.add(fine)
    assert eventually(lambda: broken.asked > 1 and fine.asked > 3)
    assert "its health could not be looked at" in caplog.text


def test_without_a_thread_to_be_had_the_next_plugin_asks_for_one(rounds_of, monkeypatch, caplog):
    def refused(_thread):
        raise RuntimeError("can't start new thread")

    rounds, first = rounds_of(), Fake(FINE)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        rounds.add(first)
    assert "nobody looks at the health of plugins now" in caplog.text
    rounds.add(Fake(FINE))
    assert eventually(lambda: first.asked)


def test_who_has_ended_is_not_looked_at_any_more(rounds_of):
    process = Fake(FINE)
    rounds = rounds_of()
    rounds.add(process)
    assert eventually(lambda: process.asked > 0)
    process.life.over = True
    rounds.ended(process)
    assert process.health.status is HealthStatus.UNHEALTHY
    assert process.health.message == "it crashed"
    assert eventually(lambda: not rounds._due and not rounds._waiting)


def test_nothing_is_kept_of_who_has_ended(rounds_of):
    """Plugins that crash and start again all the time would else be kept for an interval each."""
    rounds = rounds_of(health_check_interval=60_000.0)
    ones = [Fake(FINE) for _ in range(10)]
    for one in ones:
        rounds.add(one)
    for one in ones[:7]:
        one.life.over = True
        rounds.ended(one)
    assert {patient.process for _, _, patient in rounds._due} == set(ones[7:])
    assert rounds._due[0] == min(rounds._due)


def test_another_configuration(rounds_of):
    process = Fake(FINE)
    rounds = rounds_of(enable_monitoring=False)
    rounds.add(process)
    assert "nobody looks" in process.health.message
    assert rounds._thread is None
    rounds.reconfigure(HostConfig(health_check_interval=20.0), [process])
    assert eventually(lambda: process.asked > 0)
    rounds.reconfigure(HostConfig(enable_monitoring=False), [process])
    assert eventually(lambda: not rounds._due and not rounds._waiting)
    assert "nobody looks" in process.health.message


# -- what was measured -------------------------------------------------------------------------


def metrics(count, failures=0):
    return SimpleNamespace(count=count, failures=failures)


def look(observer, now, **more):
    work = Work(None, waits=False, waiting=more.pop("waiting", 0))
    options = {"response": 0.0, "busy": False, "timed": False}
    return observer.look(now, work, **options | more)


def test_rates_are_of_the_last_looks_and_of_enough_calls():
    process = Fake(FINE)
    observer = Observer(process, 0.0)
    counted = {"work": metrics(4, 4), "health_check": metrics(100, 100)}
    process.ledger = SimpleNamespace(operations=lambda: counted, excused=0)
    assert look(observer, 1.0).error_rate == 0.0  # too few
    counted["work"] = metrics(8, 6)
    facts = look(observer, 2.0)
    assert (facts.error_rate, facts.error_count) == (0.75, 106)
    for now in range(3, 8):
        facts = look(observer, float(now))
    assert facts.error_rate == 0.0  # that was long ago


def test_shares_of_cpu_and_of_the_queue():
    process = Fake(FINE)
    observer = Observer(process, 0.0)
    process.cpu = 0.5
    facts = look(observer, 2.0, waiting=8)
    assert (facts.cpu_fraction, facts.queue_depth, facts.queue_fraction) == (0.25, 8, 0.8)
    assert look(observer, 3.0).cpu_fraction == 0.0


def test_work_leaves_the_question_out():
    process, asked = Fake(FINE), call("health_check", started=False)
    process.waiting = [call(deadline=5.0), asked, call(started=False)]
    work = work_of(process, asked)
    assert (work.deadline, work.waits, work.waiting, work.is_bounded) == (5.0, False, 1, True)
    process.waiting = [asked]
    assert work_of(process, asked, served=True) == Work(None, waits=True, waiting=0)


def test_a_stream_that_nobody_reads_on_waits_for_the_host():
    process, stream = Fake(FINE), call(deadline=float("inf"))
    stream.inflow = SimpleNamespace(wake=None)
    process.waiting = [stream]
    work = work_of(process, None)
    assert work.waits
    assert not work.is_bounded


def test_thresholds_are_those_that_are_set():
    config = HostConfig(
        performance_thresholds={
            "max_operation_time": 500.0, "max_memory_usage": "1 MiB", "max_cpu_usage": 50.0
        }
    )  # fmt: skip
    limits = thresholds_of(config)
    assert limits.degraded_operation_seconds == 0.5
    assert limits.degraded_memory_bytes == 1 << 20
    assert limits.degraded_cpu == 0.5
    assert thresholds_of(HostConfig()).degraded_memory_bytes == float("inf")
    unprofiled = thresholds_of(
        HostConfig(enable_profiling=False, performance_thresholds={"max_operation_time": 1.0})
    )
    assert unprofiled.degraded_operation_seconds == float("inf")


def test_three_in_a_row_are_silence():
    assert POLICY.bad == 3  # as docs/lifecycle.md says


def test_only_the_operations_since_the_last_look_are_timed():
    process = Fake(FINE)
    observer = Observer(process, 0.0)
    timed = OperationMetrics()
    process.ledger = SimpleNamespace(operations=lambda: {"work": timed}, excused=0)
    timed.record(2.0)
    assert look(observer, 1.0, timed=True).operation_seconds == pytest.approx(2.0, rel=0.1)
    timed.record(0.1)
    assert look(observer, 2.0, timed=True).operation_seconds == pytest.approx(0.1, rel=0.1)
    assert look(observer, 3.0, timed=True).operation_seconds == 0.0
