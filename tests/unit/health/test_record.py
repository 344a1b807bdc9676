"""What is shown of a plugin's health, from look to look."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sandbox_host.health.record import NOT_YET, PluginHealth
from sandbox_host.health.verdict import Facts, HealthStatus, verdict

BEGAN = datetime(2026, 1, 31, 12, tzinfo=UTC)
THEN, LATER = BEGAN + timedelta(seconds=30), BEGAN + timedelta(seconds=60)
NEW = PluginHealth("sample", HealthStatus.HEALTHY, NOT_YET, BEGAN)
FINE = verdict({"status": "healthy", "message": "fine"}, Facts(memory_bytes=7))
BAD = verdict({"status": "error", "message": "broken"}, Facts())


def test_the_first_look_says_what_it_saw():
    seen = NEW.after(FINE, HealthStatus.HEALTHY, THEN)
    assert (seen.status, seen.since, seen.looked_at) == (HealthStatus.HEALTHY, BEGAN, THEN)
    assert "fine" in seen.message
    assert seen.metrics["memory_usage"] == 7


def test_one_look_that_says_otherwise_is_not_why():
    seen = NEW.after(FINE, HealthStatus.HEALTHY, THEN).after(BAD, HealthStatus.HEALTHY, LATER)
    assert "fine" in seen.message
    assert seen.looked_at == LATER
    worse = seen.after(BAD, HealthStatus.UNHEALTHY, LATER)
    assert "broken" in worse.message
    assert worse.since == LATER
    still = worse.after(FINE, HealthStatus.UNHEALTHY, LATER)
    assert "broken" in still.message


def test_who_is_busy_keeps_what_was_known():
    silent = verdict(None, Facts(response_seconds=None, busy=True))
    seen = NEW.after(FINE, HealthStatus.HEALTHY, THEN).after(silent, HealthStatus.HEALTHY, LATER)
    assert seen.busy
    assert "fine" in seen.message


def test_the_end():
    ended = NEW.ended("it crashed", LATER)
    assert (ended.status, ended.message, ended.since) == ("unhealthy", "it crashed", LATER)
