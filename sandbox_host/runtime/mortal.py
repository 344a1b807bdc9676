"""How a plugin's process is ended, and what is kept, told and given back once it is gone.

What ends it is recorded first, in its `Life`, and then done; when the process is gone, whoever
waits gets the one true cause.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sandbox_host.errors import PluginError
from sandbox_host.model import Cause, Usage
from sandbox_host.network.desk import NetworkDesk
from sandbox_host.network.diag import Passed
from sandbox_host.runtime import answers
from sandbox_host.runtime.causes import Ending
from sandbox_host.runtime.postmortem import LOG_LINES, Remains, dossier_of
from sandbox_host.runtime.warden import Warden, shown
from sandbox_host.runtime.watch import CORES

if TYPE_CHECKING:
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.base import Child, Exit, Places
    from sandbox_host.budget.enforce import Excess
    from sandbox_host.budget.ledger import Ledger
    from sandbox_host.budget.rate import MessageRate
    from sandbox_host.ipc.calls import Pending
    from sandbox_host.ipc.channel import Channel
    from sandbox_host.model import Receipt
    from sandbox_host.observe.dossier import Dossier
    from sandbox_host.observe.plugin_log import PluginLog
    from sandbox_host.observe.recorder import Recorder
    from sandbox_host.runtime.conversation import Conversation
    from sandbox_host.runtime.keeper import Keeper
    from sandbox_host.runtime.life import Life
    from sandbox_host.runtime.output import Output
    from sandbox_host.runtime.watch import Watch

_log = logging.getLogger("sandbox_host")

STACKS_SECONDS: Final = 0.05
"""How long a plugin that is to be ended may take to show where it stands."""

_STACKS_CPU_SECONDS: Final = 0.03
"""The same in CPU time, for one that has used up that."""


class Mortal(ABC):
    """The end of one plugin's process, and its bill. Methods may be called from any thread."""

    plan: SandboxPlan
    places: Places
    receipt: Receipt
    life: Life
    talk: Conversation
    channel: Channel
    ended: threading.Event
    gone: bool
    log: PluginLog
    ledger: Ledger
    recorder: Recorder | None
    _child: Child
    _desk: NetworkDesk | None
    _rate: MessageRate
    _output: Output
    _watch: Watch
    _warden: Warden
    _keeper: Keeper
    started_at: float
    _remains: Remains | None
    _given_up: bool
    _may_close: bool

    @property
    def identity(self) -> str:
        """What the host calls the plugin."""
        return self.plan.identity

    @property
    def held_seconds(self) -> float:
        """For how long, all in all, it was not read, because it sent or printed too much."""
        return self._rate.held_seconds + self._output.held_seconds

    def _sums(self) -> Usage:
        desk = self._desk
        passed = desk.passed() if desk is not None else Passed()
        arena = self._child.connection.arena
        return self.ledger.usage(
            bytes_in=self.channel.bytes_in + (arena.bytes_taken if arena is not None else 0),
            bytes_out=self.channel.bytes_out + (arena.bytes_put if arena is not None else 0),
            held_back=self.held_seconds,
            connections=desk.connections if desk is not None else 0,
            network=(passed.sent, passed.received),
        )

    def end_now(self, cause: Cause) -> None:
        """End it, because it should have left; does not wait for that."""
        self.end(Ending(cause, f"{self.identity} was ended by the host ({cause})."), at_once=True)

    def end(
        self, ending: Ending, *, at_once: bool = False, offender: Pending | None = None
    ) -> None:
        """End the process, asking first where it stands; the first reason given is the cause."""
        kill_at = time.monotonic() + (0.0 if at_once else _patience(ending.cause))
        if not self.life.condemn(ending, kill_at, offender):
            return
        # Whoever calls this cannot mend it, and may hold a lock. The keeper kills again, and again.
        with contextlib.suppress(Exception):
            if at_once:
                self._child.kill()
            else:
                self._child.ask_for_stacks()
        self._keeper.wake(self._warden)

    def failed(self, error: BaseException) -> None:
        """A fault of the host's met it: end it."""
        text = f"{self.identity} was ended after a fault of the host's: {shown(error)}."
        self.end(Ending(Cause.UNKNOWN, text), at_once=True)

    def violated(self, what: str, *, at_once: bool = False) -> None:
        """It broke the protocol: end it."""
        text = f"{self.identity} broke the protocol: {answers.clean(what, 300)}."
        self.end(Ending(Cause.PROTOCOL_VIOLATION, text), at_once=at_once)

    def unanswered(self, pending: Pending) -> PluginError:
        """Return the error for a call that will not be answered any more."""
        ending = self.life.ending
        excess = ending.excess if ending else None
        if excess is not None and pending is self.life.offender:
            place = self._place()
            now, ended = time.monotonic(), not self._given_up
            pending.held_seconds = self.held_seconds - pending.held_at_start
            return answers.exceeded(self.identity, pending, excess, place, now, ended=ended)
        return answers.unanswered(self.identity, pending, *self.life.why())

    def exceeded(self, excess: Excess) -> None:
        """End it for an excess that was found elsewhere than at the watch's looks."""
        self._warden.exceeded(excess, self.channel.oldest())

    @abstractmethod
    def _tell_ended(self) -> None:
        """Tell who listens that nobody need wait for it."""

    @abstractmethod
    def _tell_gone(self) -> None:
        """Tell who listens that its process has been seen to end."""

    def give_up(self, why: str) -> None:
        """Let nobody wait any longer for the end of the process; it goes on being killed.

        What was taken for it is not given back while it may live.
        """
        ending = self.life.ending
        if ending is None or self._given_up or self.gone:
            return
        self._given_up = True
        with contextlib.ExitStack() as steps:
            steps.callback(self.ended.set)
            steps.callback(self._tell_ended)
            steps.callback(self.channel.close, self.unanswered)
            steps.callback(
                self.life.end_as, ending.cause, f"{ending.text} Its process may live on."
            )
            pid = self.receipt.pid
            _log.error("%s: process %d has not been seen to end: %s", self.identity, pid, why)

    def finish(self, how: Exit) -> None:
        """The process is gone: take its last words, tell the cause, close everything.

        Everything after the first lines is done whatever fails before it, in this order reversed.
        """
        if self.gone:
            return
        self.gone = True
        with contextlib.ExitStack() as steps:
            steps.callback(self._tell_gone)
            if not self._given_up:
                steps.callback(self._tell_ended)
            steps.callback(self._close)
            steps.callback(self._output.close)
            if self._desk is not None:
                steps.callback(self._desk.close)
            self.channel.drain()
            self._output.drain()
            if self.life.ending is None:
                self._output.log_stacks()  # of a crash, where its author looks for them
            self.ledger.sampled(
                cpu=how.cpu_seconds, resident_peak=how.resident_peak_bytes, descriptors=0, threads=0
            )
            self.life.ended(how, self._place())
            self._remains = self._left_by(how)

    def _place(self) -> str:
        """Return where its code stood when it was asked or crashed, by its own word; or ""."""
        return self._output.place(str(self.places.package_dir))

    def _left_by(self, how: Exit) -> Remains:
        """Keep what will be gone when everything is closed."""
        now = time.monotonic()
        frames, working_on = self.talk.traffic(now)
        return Remains(
            how=how,
            ended_at=datetime.now(UTC).timestamp(),
            lived_seconds=now - self.started_at,
            frames=frames,
            operation=self.life.offender.operation if self.life.offender else working_on,
        )

    def dossier(self) -> Dossier | None:
        """Return what is known of its end; None if it has not ended, or ended as asked."""
        if self._remains is None:
            return None
        package_dir, sdk_dir = str(self.places.package_dir), str(self.places.sdk_dir)
        stacks = self._output.stacks().replace(f"{package_dir}/", "").replace(f"{sdk_dir}/", "")
        return dossier_of(
            self.plan,
            self.receipt,
            self.life,
            self._remains,
            usage=self._sums(),
            curve=self._watch.curve.points(self.started_at),
            log=self.log.printed(LOG_LINES),
            stacks=stacks,
            place=self._place(),
        )

    def _close(self) -> None:
        """Finish all calls; the descriptors may be closed unless a thread still reads them."""
        try:
            self._may_close = self.channel.close(self.unanswered)
        finally:
            self._keeper.dismiss(self._warden)

    def release(self) -> None:
        """Close the descriptors and give back what was taken for the process; takes a while."""
        try:
            if self._may_close:
                self._child.close()
        finally:
            # What stands in its dossier: a handle may be kept for as long as the host runs.
            self._remains = None
            self._watch.forget()
            self._output.forget()
            try:
                if self.recorder is not None:
                    self.recorder.close()
            finally:
                self.ended.set()


def _patience(cause: Cause) -> float:
    """Return for how many seconds a plugin may show where it stands before it is ended.

    All its threads go on meanwhile, on as many CPUs as there are.
    """
    return (
        min(STACKS_SECONDS, _STACKS_CPU_SECONDS / CORES) if cause is Cause.CPU else STACKS_SECONDS
    )
