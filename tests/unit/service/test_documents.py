"""What `status` says of a plugin's health, as plain values."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from sandbox_host.health.record import PluginHealth
from sandbox_host.health.verdict import Facts, HealthStatus, verdict
from sandbox_host.service.documents import health_document

BEGAN = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_nothing_is_known_before_it_is_ready():
    assert health_document(None) is None


def test_health_is_plain_and_harmless():
    health = PluginHealth("sample", HealthStatus.HEALTHY, "not yet", BEGAN)
    first = health_document(health)
    assert first is not None
    assert first["looked_at"] is None
    found = verdict({"status": "error", "message": "\x1b[2J no"}, Facts(memory_bytes=7))
    document = health_document(health.after(found, found.status, BEGAN))
    assert document is not None
    assert document["status"] == "unhealthy"
    assert document["since"] == document["looked_at"] == "2026-01-31T12:00:00+00:00"
    assert document["metrics"]["memory_usage"] == 7
    assert "\x1b" not in json.dumps(document, ensure_ascii=False)
