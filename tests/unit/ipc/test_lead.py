"""Who reads for all who wait."""

from __future__ import annotations

import threading

from sandbox_host.ipc.lead import Lead


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


def test_the_leader_knows_that_it_leads() -> None:
    lead = Lead()
    assert not lead.mine
    assert lead.take()
    assert lead.mine
    others: list[bool] = []
    thread = threading.Thread(target=lambda: others.append(lead.mine))
    thread.start()
    thread.join()
    assert others == [False]
    assert lead.leave()
    assert not lead.mine
