"""How much a plugin may say in a second."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.budget.rate import Bucket, MessageRate, Sayings, log_rate
from sandbox_host.model import Limits

RATE, BURST = 2_000.0, 3_000.0


def bucket() -> Bucket:
    return Bucket(RATE, BURST)


def test_a_burst_passes_and_what_is_beyond_it_waits() -> None:
    pace = bucket()
    pace.take(BURST, 100.0)
    assert pace.wait(100.0) == 0.0
    pace.take(RATE, 100.0)
    assert pace.wait(100.0) == 1.0
    assert pace.wait(100.75) == 0.25
    assert pace.wait(101.0) == 0.0
    assert pace.held_seconds == 1.0


def test_sustained_rate_is_free() -> None:
    pace = bucket()
    pace.take(BURST, 0.0)
    for second in range(1, 100):
        pace.take(RATE, float(second))
        assert pace.wait(float(second)) == 0.0
    assert pace.held_seconds == 0.0


def test_quiet_time_earns_no_more_than_a_burst() -> None:
    pace = bucket()
    pace.take(BURST, 0.0)
    pace.take(BURST + 1, 1e9)
    assert pace.wait(1e9) > 0


def test_clock_that_goes_back_earns_nothing() -> None:
    pace = bucket()
    pace.take(BURST, 100.0)
    pace.take(1, 50.0)
    assert pace.wait(50.0) > 0


@given(st.lists(st.tuples(st.floats(0, 9_000), st.floats(0, 3)), max_size=30))
def test_in_the_long_run_the_rate_holds(steps: list[tuple[float, float]]) -> None:
    """Whoever waits as long as told takes no more than the burst, the rate, and one overdraft."""
    pace, now, taken, largest, waited = bucket(), 0.0, 0.0, 0.0, 0.0
    for cost, gap in steps:
        now += gap
        waited += pace.wait(now)
        now += pace.wait(now)
        pace.take(cost, now)
        taken += cost
        largest = max(largest, cost)
    assert taken <= BURST + RATE * now + largest + 1e-6
    assert pace.held_seconds >= waited - 1e-6


def test_messages_are_bounded_in_number_and_in_bytes() -> None:
    limits = Limits(messages_per_second=100, message_bytes_per_second=10_000)
    many, large = MessageRate(limits), MessageRate(limits)
    many.take(200, 0, 5.0)
    assert many.wait(5.0) == 1.0
    large.take(1, 30_000, 5.0)
    assert large.wait(5.0) == 2.0
    assert (many.held_seconds, large.held_seconds) == (1.0, 2.0)


def test_a_long_report_is_no_flood() -> None:
    pace = log_rate(Limits(log_bytes_per_second=1_000))
    pace.take(16_000, 5.0)
    assert pace.wait(5.0) == 0.0
    pace.take(500, 5.0)
    assert pace.wait(5.0) == 0.5


def test_what_is_not_told_costs_nothing_and_is_counted() -> None:
    sayings = Sayings(1.0, 2.0)
    told = [sayings.told("again", 100.0) for _ in range(1_000)]
    assert told == ["again", "again", *[""] * 998]
    assert sayings.told("again", 101.5) == "again (998 more before this were not written down)"
    assert sayings.told("again", 103.0) == "again"
