"""Lines of the journal that are trouble, and those that end it."""

from __future__ import annotations

from sandbox_host.health.sources import ENDED, ENDS, FORGETS, HEALTH, SOURCES, trouble_in


def test_nothing_begins_and_ends_trouble_at_once():
    assert not SOURCES.keys() & ENDS.keys()
    assert not SOURCES.keys() & FORGETS


def test_a_start_that_fails_is_told_to_whoever_loads_it():
    assert trouble_in("ended", "start-failed: sample did not start.") is None
    crashed = trouble_in("ended", "crashed: sample crashed with SIGSEGV.")
    assert crashed is not None
    assert crashed.rule == ENDED
    assert trouble_in("started", "pid 5") is None


def test_all_trouble_has_an_end():
    ended = {rule for rules in ENDS.values() for rule in rules}
    assert {raises.rule for raises in SOURCES.values()} <= ended
    assert HEALTH in ENDS["restarted"]
