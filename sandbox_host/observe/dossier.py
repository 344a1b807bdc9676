"""The crash dossier: everything that is known of a plugin that did not end as asked.

A plain value. What is *seen from outside* is evidence: cause, exceeded budget, exit, use, curve,
frames. What *came out of the plugin's process* is only its word: place, stacks and log.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sandbox_host.model import Usage
from sandbox_host.observe.advice import what_next

if TYPE_CHECKING:
    from sandbox_host.model import Cause, Enforced, Layer
    from sandbox_host.observe.curve import Point


@dataclass(frozen=True, slots=True)
class Exceeded:
    """The budget that a plugin was ended for.

    Attributes:
        budget: its name, as `BudgetExceededError.budget` has it.
        limit: in `unit`.
        used: what was seen then, in `unit`; None where it cannot be known.
        unit: "bytes", "seconds", or what is counted.
    """

    budget: str
    limit: float
    used: float | None
    unit: str


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """The header of one message between host and plugin; never what it carried.

    Attributes:
        before_end_seconds: how long before the end it passed.
        direction: "in" came from the plugin, "out" went to it.
        kind: of the message, in lower case, such as "call" or "result".
        id: of the call that it belongs to; 0 for none.
        size_bytes: of its payload.
        name: the operation or the type of event; "" for neither.
    """

    before_end_seconds: float
    direction: Literal["in", "out"]
    kind: str
    id: int
    size_bytes: int
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """What is known of one plugin's end.

    Nothing is checked or cut here: whoever writes it down does that, see `observe.dossier_files`.

    Attributes:
        plugin: its identity.
        root_digest: of the verified bundle, in hex.
        pid: of its process, as the host saw it.
        text: the cause in one sentence.
        started_at, ended_at: seconds since the epoch, UTC.
        excess: the budget that it was ended for, or None.
        operation: what it worked on; "" for nothing.
        place: where in its code, as "file:line in function". *Its own process's word.*
        exit_code, exit_signal: how the process ended, as the kernel says; both None if nobody can
            know.
        frozen: it was held still before it was ended, so that what is told here was seen in peace.
        usage: what it has cost.
        limits: each limit with what enforced it, out of its receipt.
        layers: those that were in force.
        curve: what it used, over time; seconds since its start.
        frames: the last headers, newest last.
        log: the last lines it printed. *Its own process's word.*
        stacks: the Python stacks of its threads. *Its own process's word.*
    """

    plugin: str
    version: str
    root_digest: str
    pid: int
    cause: Cause
    text: str
    started_at: float
    ended_at: float
    excess: Exceeded | None = None
    operation: str = ""
    place: str = ""
    exit_code: int | None = None
    exit_signal: int | None = None
    frozen: bool = False
    usage: Usage = field(default_factory=Usage)
    limits: tuple[Enforced, ...] = ()
    layers: tuple[Layer, ...] = ()
    curve: tuple[Point, ...] = ()
    frames: tuple[FrameHeader, ...] = ()
    log: tuple[str, ...] = ()
    stacks: str = ""

    @property
    def advice(self) -> tuple[str, ...]:
        """What to do next, in sentences; the first is the most likely to help."""
        return what_next(
            self.cause,
            plugin=self.plugin,
            operation=self.operation,
            budget=self.excess.budget if self.excess else "",
        )
