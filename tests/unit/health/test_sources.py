"""Lines of the journal that are trouble, and those that end it."""

from __future__ import annotations

from sandbox_host.health.sources import ENDS, FORGETS, HEALTH, SOURCES


def test_nothing_begins_and_ends_trouble_at_once():
    assert not SOURCES.keys() & ENDS.keys()
    assert not SOURCES.keys() & FORGETS


def test_all_trouble_has_an_end():
    ended = {rule for rules in ENDS.values() for rule in rules}
    assert {raises.rule for raises in SOURCES.values()} <= ended
    assert HEALTH in ENDS["restarted"]
