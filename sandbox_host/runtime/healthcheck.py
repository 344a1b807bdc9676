"""What is asked of a plugin for its health, and the verdict on its answer and the host's facts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.errors import PluginError
from sandbox_host.health.verdict import Facts, Verdict, verdict
from sandbox_host.ipc.calls import Pending
from sandbox_host.runtime.party import Request

if TYPE_CHECKING:
    from sandbox_host.model import Usage
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
        report, response = failed_report(asked.message), None
    elif asked is not None:
        try:
            report = process.talk.result(asked)
            response = asked.finished_at - asked.sent_at
        except PluginError as error:
            report, response = failed_report(error.message), None
    elif process.cause is not None:
        report, response = failed_report(process.cause_text), None
    usage, resident = process.usage(), process.resident_bytes()
    work = work_of(process, asked if isinstance(asked, Pending) else None)
    facts = Facts(
        memory_fraction=resident / process.plan.limits.memory_bytes,
        error_rate=_error_rate(usage, process.ledger.excused),
        response_seconds=response,
        memory_bytes=resident,
        error_count=usage.failures,
        operation_seconds=usage.p99_seconds,
        queue_depth=work.waiting,
        queue_fraction=work.waiting / process.max_outstanding,
    )
    return verdict(report, facts)


def _error_rate(usage: Usage, excused: int) -> float:
    return max(0, usage.failures - excused) / usage.calls if usage.calls else 0.0


def failed_report(why: str) -> dict[str, str]:
    """Return the report of a plugin that could not say how it is."""
    return {"status": "error", "message": why[:200]}


@dataclass(frozen=True, slots=True)
class Work:
    """What a plugin works on beside the health check, and whether it can be told from hanging.

    Attributes:
        deadline: by the monotonic clock, the latest of several; infinite of a stream that nobody
            reads on at the moment; None where it works on nothing.
        waits: for the host: a reader of its stream, an item of one that it reads, a service.
        waiting: calls whose turn has not come.
    """

    deadline: float | None
    waits: bool
    waiting: int

    @property
    def is_bounded(self) -> bool:
        """It works on something whose deadline ends it, should it hang."""
        return self.deadline is not None and self.deadline < math.inf


def work_of(process: PluginProcess, asked: Pending | None, *, served: bool = False) -> Work:
    """Return what a plugin works on.

    Args:
        process: the plugin's.
        asked: the health check, which is not counted; None for none.
        served: a service that it asked for is being done.
    """
    if process.channel.idle:
        return Work(None, served, 0)
    working = [one for one in process.at_work() if one is not asked and not one.done()]
    waiting = [
        one
        for one in process.channel.outstanding()
        if one is not asked and not one.is_delivery and not one.done() and one not in working
    ]
    deadline = max((one.deadline for one in working), default=None)
    waits = served or any(one.inflow is not None or one.feeds for one in working)
    return Work(deadline, waits, len(waiting))
