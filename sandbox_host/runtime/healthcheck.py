"""Asks one plugin how it is, and adds what the host sees from outside."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.errors import PluginError
from sandbox_host.health.verdict import Facts, Verdict, verdict

if TYPE_CHECKING:
    from sandbox_host.runtime.process import PluginProcess

HEALTH_CHECK: Final = "health_check"
DEADLINE_SECONDS: Final = 10.0


def judge_health(process: PluginProcess) -> Verdict:
    """Return the verdict on a plugin; never raises for anything the plugin does.

    A plugin without ``health_check()`` is judged by the host's facts alone.
    """
    report: Any = {"status": "healthy"}
    response: float | None = 0.0
    interface = process.interface
    started = time.monotonic()
    if interface is not None and HEALTH_CHECK in interface.operations:
        try:
            pending = process.begin(HEALTH_CHECK, (), {}, DEADLINE_SECONDS)
            process.channel.wait(pending)
            report = process.result(pending)
            response = time.monotonic() - started
        except PluginError as error:
            report, response = {"status": "error", "message": error.message[:200]}, None
    elif process.cause is not None:
        report, response = {"status": "error", "message": process.cause_text}, None
    usage = process.usage()
    resident = process.resident_bytes()
    facts = Facts(
        memory_fraction=resident / process.plan.limits.memory_bytes,
        error_rate=usage.failures / usage.calls if usage.calls else 0.0,
        response_seconds=response,
        memory_bytes=resident,
        error_count=usage.failures,
    )
    return verdict(report, facts)
