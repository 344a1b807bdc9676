"""Puts together what is known of a plugin that did not end as asked, for its dossier. Pure.

Nothing is asked of its process any more: it is gone. What came out of it before, the dossier marks
as its word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sandbox_host.model import Cause
from sandbox_host.observe.dossier import Dossier, Exceeded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.base import Exit
    from sandbox_host.budget.enforce import Excess
    from sandbox_host.model import Receipt, Usage
    from sandbox_host.observe.curve import Point
    from sandbox_host.observe.dossier import FrameHeader
    from sandbox_host.runtime.life import Life

LOG_LINES: Final = 200
"""So many of the last lines that it printed are looked at."""

_AS_ASKED: Final = frozenset({Cause.UNLOADED, Cause.HOST_SHUTDOWN})


@dataclass(frozen=True, slots=True)
class Remains:
    """What is seen at the moment of the end, and cannot be seen later.

    Attributes:
        how: what the kernel says of it.
        ended_at: seconds since the epoch, UTC.
        lived_seconds: since the process was ready to be talked to.
        frames: headers of the last messages.
        operation: what it worked on, or had worked on last; "" where that was nothing.
    """

    how: Exit
    ended_at: float
    lived_seconds: float
    frames: tuple[FrameHeader, ...]
    operation: str


def dossier_of(
    plan: SandboxPlan,
    receipt: Receipt,
    life: Life,
    remains: Remains,
    *,
    usage: Usage,
    curve: tuple[Point, ...],
    log: Iterable[str],
    stacks: str,
    place: str,
) -> Dossier | None:
    """Return the dossier of a plugin whose process is gone; None if it ended as asked.

    Args:
        plan: what it was admitted with.
        receipt: what confined it.
        life: why it ended.
        remains: what was seen at its end.
        usage: what it cost.
        curve: what it used, over time.
        log: the last lines that it printed.
        stacks: what its fault handler said.
        place: where it stood by that.
    """
    cause, text = life.why()
    if cause in _AS_ASKED:
        return None
    excess = life.ending.excess if life.ending else None
    return Dossier(
        plugin=plan.identity,
        version=plan.manifest.version,
        root_digest=plan.root_digest,
        pid=receipt.pid,
        cause=cause,
        text=text,
        started_at=remains.ended_at - remains.lived_seconds,
        ended_at=remains.ended_at,
        excess=Exceeded(excess.budget, excess.limit, excess.used, excess.unit) if excess else None,
        operation=_operation(life, remains, excess),
        place=place,
        exit_code=remains.how.code,
        exit_signal=remains.how.signal,
        frozen=excess is not None and excess.held,
        usage=usage,
        limits=receipt.limits,
        layers=receipt.active,
        curve=curve,
        frames=remains.frames,
        log=tuple(log),
        stacks=stacks,
    )


def _operation(life: Life, remains: Remains, excess: Excess | None) -> str:
    """Return what it is blamed on, or else what it worked on, or had worked on last."""
    if excess is None:
        return remains.operation
    # What was found elsewhere than at the watch's looks does not know.
    return excess.operation or (life.offender.operation if life.offender else "")
