"""The watchdog's memory of one plugin."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from sandbox_host.backends.base import Sample
from sandbox_host.budget.enforce import Step
from sandbox_host.budget.ledger import Ledger
from sandbox_host.ipc.calls import Pending
from sandbox_host.model import CallUsage, Cause, Limits
from sandbox_host.runtime.rest import Rest
from sandbox_host.runtime.watch import (
    CORES,
    IDLE_SECONDS,
    LONG_SECONDS,
    MAX_BLIND_LOOKS,
    MAX_BLIND_SECONDS,
    STILL_SECONDS,
    Watch,
)

LIMITS = Limits(memory_bytes=1_000, cpu_seconds=2.0, threads=4, wall_seconds=10.0)
NOW = time.monotonic()
FINE = Sample(500, 600, 1.0, 1, 6)


class Child:
    """What the watch asks of a child."""

    def __init__(self) -> None:
        self.now: Sample | None = FINE
        self.cpu = 1.0
        self.clock: int | None = 7
        self.samples = 0
        self.gives_way = False

    def sample(self) -> Sample | None:
        self.samples += 1
        return self.now

    def give_way(self, on: bool) -> None:
        self.gives_way = on

    def cpu_seconds(self) -> float:
        return self.cpu


@pytest.fixture
def child() -> Child:
    return Child()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def watch(child: Child, ledger: Ledger) -> Watch:
    return Watch(child, LIMITS, ledger, 0.02)  # type: ignore[arg-type]  # as far as it is used


def pending(*, is_delivery: bool = False, deadline: float = 10.0) -> Pending:
    now = time.monotonic()
    return Pending(1, "predict", now + deadline, now, is_delivery=is_delivery)


def test_peaks_are_written_down(watch: Watch, child: Child, ledger: Ledger) -> None:
    assert watch.look(None, 0.0) is None
    child.now, child.cpu = replace(FINE, resident_peak_bytes=900, threads=3, descriptors=9), 1.1
    assert watch.look(None, 0.1) is None
    usage = ledger.usage(bytes_in=0, bytes_out=0)
    assert (usage.memory_peak_bytes, usage.threads_peak, usage.descriptors_peak) == (900, 3, 9)


def test_cpu_time_counts_from_the_start_of_the_operation(watch: Watch, child: Child) -> None:
    child.cpu = 100.0
    call = pending()
    watch.start(call)
    child.cpu = 101.9
    assert watch.look(call, call.started_at) is None
    child.cpu = 102.1
    excess = watch.look(call, call.started_at)
    assert excess is not None
    assert (excess.cause, excess.operation) == (Cause.CPU, "predict")


def test_idle_cpu_time_has_a_window_of_its_own(watch: Watch, child: Child) -> None:
    assert watch.look(None, 0.0) is None
    child.cpu += 1.9
    assert watch.look(None, 1.0) is None
    child.cpu += 0.2
    excess = watch.look(None, 2.0)
    assert excess is not None
    assert excess.cause is Cause.CPU


def test_slow_background_work_is_fine(watch: Watch, child: Child) -> None:
    for second in range(300):
        child.cpu += 0.05
        assert watch.look(None, float(second)) is None


def test_events_to_itself_do_not_end_the_idle_window(watch: Watch, child: Child) -> None:
    """Each handler has a budget of its own; what goes on beside them has that of idle time."""
    assert watch.look(None, 0.0) is None
    excess = None
    for second in range(1, 10):
        event = pending(is_delivery=True)
        watch.start(event)
        child.cpu += 0.9
        watch.handled(CallUsage(cpu_seconds=0.1))
        excess = excess or watch.look(None, float(second))
    assert excess is not None
    assert (excess.cause, excess.operation) == (Cause.CPU, "background threads")


def test_handlers_at_work_use_no_idle_time(watch: Watch, child: Child) -> None:
    assert watch.look(None, 0.0) is None
    for second in range(1, 15):
        watch.start(pending(is_delivery=True))
        child.cpu += 0.9
        watch.handled(CallUsage(cpu_seconds=0.9))
        assert watch.look(None, float(second)) is None


def test_health_checks_do_not_end_the_idle_window(watch: Watch, child: Child) -> None:
    """The host asks by its own clock: threads that run on would have a budget for each check."""
    assert watch.look(None, 0.0) is None
    excess = None
    for second in range(1, 10):
        check = pending()
        check.operation = "health_check"
        watch.start(check)
        child.cpu += 0.9
        excess = excess or watch.look(None, float(second))
    assert excess is not None
    assert (excess.cause, excess.operation) == (Cause.CPU, "background threads")


def test_operation_ends_the_idle_window(watch: Watch, child: Child) -> None:
    for _ in range(10):
        assert watch.look(None, 0.0) is None
        call = pending()
        watch.start(call)
        child.cpu += 1.5
        assert watch.look(call, call.started_at) is None


def test_delivery_has_its_time_from_its_turn_on(watch: Watch) -> None:
    event = pending(is_delivery=True, deadline=0.0)
    watch.start(event)
    assert watch.look(event, event.started_at + 9.9) is None
    excess = watch.look(event, event.started_at + 10.1)
    assert excess is not None
    assert excess.step is Step.INTERRUPT


def test_call_has_its_time_from_its_sending_on(watch: Watch) -> None:
    call = pending(deadline=0.5)
    watch.start(call)
    excess = watch.look(call, call.sent_at + 0.5)
    assert excess is not None
    assert (excess.step, excess.cause) == (Step.INTERRUPT, Cause.DEADLINE)


def test_hidden_only_after_several_blind_looks(watch: Watch, child: Child) -> None:
    assert watch.look(None, 0.0) is None
    child.now, child.cpu = None, 1.1
    late = 2 * MAX_BLIND_SECONDS
    for _ in range(MAX_BLIND_LOOKS):
        assert watch.look(None, late) is None
        assert not watch.hidden
    watch.look(None, late)
    assert watch.hidden
    child.now = FINE
    watch.look(None, late)
    assert not watch.hidden


def test_hidden_only_after_a_while(watch: Watch, child: Child) -> None:
    """The end of a process may take so long to be told as its parent is kept from the CPU."""
    watch.look(None, 0.0)
    child.now, child.cpu = None, 1.1
    for _ in range(10 * MAX_BLIND_LOOKS):
        watch.look(None, MAX_BLIND_SECONDS)
        assert not watch.hidden
    watch.look(None, MAX_BLIND_SECONDS + 0.01)
    assert watch.hidden


def test_what_was_sent_this_moment_is_not_billed_for_the_whole_life(
    watch: Watch, child: Child
) -> None:
    """The keeper may look between the sending of a call and the start of its clocks."""
    child.cpu = 1_000.0
    call = pending()
    assert watch.look(call, time.monotonic()) is None
    assert call.cpu_at_start == 1_000.0
    child.cpu += LIMITS.cpu_seconds + 0.1
    excess = watch.look(call, time.monotonic())
    assert excess is not None
    assert excess.cause is Cause.CPU


def test_a_process_that_does_not_run_is_not_sampled(watch: Watch, child: Child) -> None:
    for step in range(30):
        assert watch.look(None, 100.0 + step * 0.05) is None
    assert child.samples == 1
    child.cpu += 0.001
    watch.look(None, 101.5)
    assert child.samples == 2
    watch.look(None, 101.5 + STILL_SECONDS)
    assert child.samples == 3, "once in a while it is sampled all the same"


def test_looks_for_the_clock_alone_sample_no_more_often(watch: Watch, child: Child) -> None:
    call = pending()
    for step in range(100):
        child.cpu += 0.001
        watch.look(call, 100.0 + step * 0.001)
    assert 4 <= child.samples <= 6


def test_next_look_comes_before_a_budget_can_be_far_exceeded(watch: Watch, child: Child) -> None:
    call = pending()
    watch.start(call)
    now = call.started_at
    watch.look(call, now)
    assert watch.pause(call, now) == 0.02
    # What is tolerated here are 200 ms; a look in a quarter of that comes in time.
    for left in (0.2, 0.05, 0.001):
        child.cpu = call.cpu_at_start + LIMITS.cpu_seconds - left
        watch.look(call, now)
        assert watch.pause(call, now) == pytest.approx(min(0.02, max(left, 0.05) / CORES))
    late = pending(deadline=0.005)
    assert watch.pause(late, late.sent_at) < 0.006
    assert watch.pause(None, now) <= IDLE_SECONDS


def test_a_tight_operation_is_told_to_hurry(watch: Watch) -> None:
    assert not watch.start(pending())
    assert watch.start(pending(deadline=0.01))
    tight = Pending(1, "p", 1e9, 0.0, limits=replace(LIMITS, cpu_seconds=0.01))
    assert watch.start(tight)


def test_limits_of_a_call_bind_while_it_is_worked_on(watch: Watch, child: Child) -> None:
    call = Pending(1, "p", 1e9, 0.0, limits=replace(LIMITS, cpu_seconds=0.5, memory_bytes=400))
    watch.start(call)
    excess = watch.look(call, 100.0)
    assert excess is not None
    assert (excess.cause, excess.limit) == (Cause.MEMORY, 400)
    child.cpu += 0.6
    excess = watch.look(call, 100.001)
    assert excess is not None
    assert (excess.cause, excess.limit) == (Cause.CPU, 0.5)
    assert watch.look(None, 100.002) is None


def test_cpu_time_of_a_whole_life(child: Child, ledger: Ledger) -> None:
    limits = replace(LIMITS, cpu_total_seconds=3)
    watch = Watch(child, limits, ledger, 0.02)  # type: ignore[arg-type]  # as far as it is used
    excess = None
    for number in range(5):
        call = pending()
        watch.start(call)
        child.cpu += 0.9
        excess = watch.look(call, 100.0 + number)
        if excess is not None:
            break
    assert excess is not None
    assert (excess.cause, excess.budget, excess.operation) == (Cause.CPU, "cpu_total", "predict")
    assert child.cpu == pytest.approx(3.7)


def test_cpu_time_in_a_minute(child: Child, ledger: Ledger) -> None:
    limits = replace(LIMITS, cpu_seconds_per_minute=5.0)
    watch = Watch(child, limits, ledger, 0.02)  # type: ignore[arg-type]  # as far as it is used
    for second in range(40):
        call = pending()
        watch.start(call)
        child.cpu += 0.1
        assert watch.look(call, 100.0 + second) is None
    call = pending()
    watch.start(call)
    child.cpu += 1.5
    excess = watch.look(call, 141.0)
    assert excess is not None
    assert (excess.cause, excess.budget) == (Cause.CPU, "cpu_per_minute")


def test_it_rests_while_its_clock_stands(watch: Watch, child: Child) -> None:
    now = time.monotonic()
    assert watch.rests(now, ()) is None  # nobody has looked at it
    watch.look(None, now)
    assert watch.rests(now + 0.05, ()) == Rest(7, 1.0, (), now + STILL_SECONDS)
    assert child.samples == 1
    child.cpu += 1e-9
    assert watch.rests(now + 0.05, ()) is None
    watch.look(None, now + 0.05)
    assert watch.rests(now + 0.1, ()) is not None
    # Now and then all of it is looked at.
    assert watch.rests(now + 0.05 + STILL_SECONDS, ()) is None


def test_an_operation_ends_its_rest(watch: Watch) -> None:
    now = time.monotonic()
    watch.look(None, now)
    assert watch.rests(now, [pending()]) is None
    watch.start(pending())
    assert watch.rests(now, ()) is None


def test_who_has_no_clock_of_its_own_does_not_rest(watch: Watch, child: Child) -> None:
    now = time.monotonic()
    watch.look(None, now)
    child.clock = None
    assert watch.rests(now, ()) is None


def test_who_cannot_be_seen_does_not_rest(watch: Watch, child: Child) -> None:
    now = time.monotonic()
    watch.look(None, now)
    child.now, child.cpu = None, child.cpu + 1.0
    watch.look(None, now + 0.1)
    assert watch.blind
    assert watch.rests(now + 0.1, ()) is None


def test_long_work_gives_way_until_the_next_begins(watch: Watch, child: Child) -> None:
    pending = Pending(1, "predict", NOW + 60, NOW)
    watch.start(pending)
    child.cpu += 0.9 * LONG_SECONDS
    watch.look(pending, NOW)
    assert not child.gives_way
    child.cpu += 0.2 * LONG_SECONDS
    watch.look(pending, NOW)
    assert child.gives_way
    watch.look(None, NOW)
    assert child.gives_way
    watch.start(Pending(2, "predict", NOW + 60, NOW))
    assert not child.gives_way


def test_what_runs_on_unasked_gives_way(watch: Watch, child: Child) -> None:
    watch.look(None, NOW)
    child.cpu += 2 * LONG_SECONDS
    watch.look(None, NOW)
    assert child.gives_way


def test_to_load_is_not_long_work(watch: Watch, child: Child) -> None:
    pending = Pending(0, "start", NOW + 60, NOW)
    watch.start(pending)
    child.cpu += 1.0
    watch.look(pending, NOW)
    assert not child.gives_way


def test_what_is_given_and_taken_back_at_once_is_taken_back(child: Child, ledger: Ledger) -> None:
    """A caller begins a call while the keeper has the plugin give way: neither undoes half."""

    class Slow(Child):
        def give_way(self, on: bool) -> None:
            if on:
                caller.start()
                caller.join(0.05)
            super().give_way(on)

    child = Slow()
    watch = Watch(child, LIMITS, ledger, sweep_seconds=0.05)  # type: ignore[arg-type]
    call = Pending(2, "predict", NOW + 60, NOW)
    caller = threading.Thread(target=watch.start, args=(call,))
    watch.look(None, NOW)
    child.cpu += 2 * LONG_SECONDS
    watch.look(None, NOW)
    caller.join()
    assert not child.gives_way
