"""How much a plugin may say unasked."""

from __future__ import annotations

from sandbox_host.ipc.pace import BURST, EVENTS_PER_SECOND, Pace


def test_a_burst_is_free() -> None:
    pace = Pace()
    pace.take(BURST, 0.0)
    assert pace.wait(0.0) == 0.0


def test_overdrawn_waits_for_as_long_as_that_takes_to_earn() -> None:
    pace = Pace()
    pace.take(BURST + EVENTS_PER_SECOND, 100.0)
    assert pace.wait(100.0) == 1.0
    assert pace.wait(100.75) == 0.25
    assert pace.wait(101.0) == 0.0


def test_sustained_rate_is_free() -> None:
    pace = Pace()
    pace.take(BURST, 0.0)
    for second in range(1, 100):
        pace.take(EVENTS_PER_SECOND, float(second))
        assert pace.wait(float(second)) == 0.0


def test_quiet_time_earns_no_more_than_a_burst() -> None:
    pace = Pace()
    pace.take(BURST, 0.0)
    pace.take(BURST + 1, 1e9)
    assert pace.wait(1e9) > 0


def test_clock_that_goes_back_earns_nothing() -> None:
    pace = Pace()
    pace.take(BURST, 100.0)
    pace.take(1, 50.0)
    assert pace.wait(50.0) > 0
