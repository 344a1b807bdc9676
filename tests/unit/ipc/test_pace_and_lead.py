"""How much a plugin may say unasked, and who reads."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.ipc.lead import Lead
from sandbox_host.ipc.pace import BURST, EVENTS_PER_SECOND, Pace, cost_of


def test_a_burst_passes_and_what_is_beyond_it_waits() -> None:
    pace = Pace()
    pace.take(BURST, 100.0)
    assert pace.wait(100.0) == 0.0
    pace.take(EVENTS_PER_SECOND, 100.0)
    assert pace.wait(100.0) == 1.0
    assert pace.wait(100.5) == 0.5
    assert pace.wait(101.0) == 0.0


def test_large_messages_cost_more() -> None:
    assert cost_of(0) == cost_of(512) == 1.0
    assert cost_of(512 * 100) == 100.0


@given(st.lists(st.tuples(st.floats(0, 5_000), st.floats(0, 3)), max_size=30))
def test_in_the_long_run_the_rate_holds(steps: list[tuple[float, float]]) -> None:
    """Whoever waits as long as told takes no more than the burst, the rate, and one overdraft."""
    pace, now, taken, largest = Pace(), 0.0, 0.0, 0.0
    for cost, gap in steps:
        now += gap + pace.wait(now + gap)
        pace.take(cost, now)
        taken += cost
        largest = max(largest, cost)
    assert taken <= BURST + EVENTS_PER_SECOND * now + largest + 1e-6


def test_one_leads_at_a_time() -> None:
    lead, others = Lead(), []
    assert lead.take()
    assert lead.take(), "a thread that was thrown out finds itself in it again"
    thread = threading.Thread(target=lambda: others.append((lead.take(), lead.leave())))
    thread.start()
    thread.join()
    assert others == [(False, False)]
    assert lead.leave()
    assert not lead.leave()


def test_at_the_end_nobody_leads_any_more() -> None:
    lead = Lead()
    assert lead.end(0.0)
    assert not lead.take()
    assert lead.end(0.0), "ending twice is no harm"


def test_who_does_not_leave_is_told() -> None:
    lead = Lead()
    thread = threading.Thread(target=lead.take)
    thread.start()
    thread.join()
    assert not lead.end(0.01)
