"""What is asked of a plugin for its health, and the verdict on its answer and the host's facts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sandbox_host.errors import PluginError
from sandbox_host.health.verdict import Facts, Verdict, verdict
from sandbox_host.runtime.party import Request

if TYPE_CHECKING:
    from sandbox_host.ipc.calls import Pending
    from sandbox_host.runtime.process import PluginProcess

HEALTH_CHECK: Final = "health_check"
DEADLINE_SECONDS: Final = 10.0


def ask(process: PluginProcess) -> Pending | PluginError | None:
    """Call the plugin's ``health_check()``; None where it has none, the error if that fails."""
    interface = process.interface
    if interface is None or HEALTH_CHECK not in interface.operations:
        return None
    try:
        return process.talk.begin(Request(HEALTH_CHECK, (), {}, DEADLINE_SECONDS))
    except PluginError as error:
        return error


def judge_health(process: PluginProcess, asked: Pending | PluginError | None) -> Verdict:
    """Return the verdict on a plugin; never raises for anything the plugin does.

    A plugin without ``health_check()`` is judged by the host's facts alone.

    Args:
        process: the plugin.
        asked: what `ask` returned; a pending is finished by now.
    """
    report: Any = {"status": "healthy"}
    response: float | None = 0.0
    if isinstance(asked, PluginError):
        report, response = _failed(asked.message), None
    elif asked is not None:
        try:
            report = process.talk.result(asked)
            response = asked.finished_at - asked.sent_at
        except PluginError as error:
            report, response = _failed(error.message), None
    elif process.cause is not None:
        report, response = _failed(process.cause_text), None
    usage, resident = process.usage(), process.resident_bytes()
    facts = Facts(
        memory_fraction=resident / process.plan.limits.memory_bytes,
        error_rate=usage.failures / usage.calls if usage.calls else 0.0,
        response_seconds=response,
        memory_bytes=resident,
        error_count=usage.failures,
    )
    return verdict(report, facts)


def _failed(why: str) -> dict[str, str]:
    return {"status": "error", "message": why[:200]}
