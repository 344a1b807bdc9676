"""Looks after one plugin on the keeper's behalf: its output, its budgets, and its end."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final, Protocol

from sandbox_host.budget.enforce import Excess
from sandbox_host.budget.enforce import Step as Remedy
from sandbox_host.runtime import answers
from sandbox_host.runtime.causes import Ending
from sandbox_host.runtime.keeper import EXIT
from sandbox_host.runtime.output import TRACE
from sandbox_host.runtime.watch import IDLE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox_host.backends.base import Child, Exit
    from sandbox_host.ipc.calls import Pending
    from sandbox_host.ipc.channel import Channel
    from sandbox_host.runtime.life import Life
    from sandbox_host.runtime.output import Output
    from sandbox_host.runtime.rest import Rest
    from sandbox_host.runtime.watch import Watch

_DUMPED_SECONDS: Final = 0.005
"""A dump is at its end when nothing of it has come for so long."""

_HURRY_SECONDS: Final = 0.005
_LEAVING_SECONDS: Final = 0.5
"""How long a process may live on after it closed its pipe, before that counts as a breach."""

_DYING_SECONDS: Final = 5.0
"""How long a process that was killed may take to be gone, before nobody waits for that any more."""


class Ward(Protocol):
    """The plugin that is looked after, as far as acting on it goes."""

    @property
    def identity(self) -> str:
        """What the host calls it."""

    def at_work(self) -> list[Pending]:
        """Return what it works on now, the oldest first."""

    def leave_forgotten(self) -> None:
        """Have the producers of streams ended that nobody holds any more."""

    def interrupt(self, pending: Pending) -> None:
        """Ask what it works on to end: its deadline has passed."""

    def end(
        self, ending: Ending, *, at_once: bool = False, offender: Pending | None = None
    ) -> None:
        """End its process."""

    def violated(self, what: str, *, at_once: bool = False) -> None:
        """It broke the protocol: end it."""

    def failed(self, error: BaseException) -> None:
        """A fault of the host's met it: end it."""

    def finish(self, how: Exit) -> None:
        """Its process is gone."""

    def give_up(self, why: str) -> None:
        """Its process was to end, and has not been seen to: let nobody wait any longer."""


class Warden:
    """What the keeper looks after; see `keeper.Kept`. Called by the keeper's thread.

    Args:
        ward: the plugin.
        child: its process.
        life: where it stands.
        channel: its protocol's pipes.
        output: its other ones.
        watch: knows its budgets.
    """

    def __init__(
        self, ward: Ward, child: Child, life: Life, channel: Channel, output: Output, watch: Watch
    ) -> None:
        self._ward = ward
        self._child = child
        self._life = life
        self._channel = channel
        self._output = output
        self._watch = watch
        self._closed_pipe_at = 0.0
        self._resigned = False

    def steady_fds(self) -> dict[int, str]:
        """Return the descriptors that are always watched."""
        return {**self._output.descriptors(), self._child.exit_fd: EXIT}

    def channel_fds(self) -> tuple[int, int]:
        """Return the protocol's descriptors."""
        return self._child.receive_fd, self._child.send_fd

    def pump(self) -> None:
        """Read and write the protocol as far as possible now."""
        self._channel.pump()

    def readable(self, role: str) -> bool:
        """Take output, a stack dump, or the end of the process."""
        if role == TRACE:
            # No more may come than this, and each moment that it lives costs somebody.
            self._life.hasten(time.monotonic() + _DUMPED_SECONDS)
        if role != EXIT:
            return self._output.take(role)
        how = self._child.wait(0.0)
        if how is not None:
            self._ward.finish(how)
        return how is None

    def held(self, role: str, now: float) -> bool:
        """Tell whether it has printed so much that it is not read for a while."""
        if role == EXIT or (role == TRACE and self._life.ending is not None):
            return False  # what somebody waits for
        return self._output.held(role, now)

    def closed_pipe(self) -> None:
        """It closed its end of the protocol: it has to leave soon. From any thread."""
        self._closed_pipe_at = self._closed_pipe_at or time.monotonic()

    def rests(self, now: float) -> Rest | None:
        """Return how to tell that nothing is asked of it, and that it has not run, or None.

        Who condemns it, or sees its pipe closed, wakes the keeper.
        """
        if self._life.ending is not None or self._closed_pipe_at:
            return None
        return self._watch.rests(now, self._channel.unanswered)

    def tick(self, now: float) -> float:
        """Check budgets and deadlines; return in how many seconds to look again."""
        if self._life.ending is not None:
            return self._see_to_end(now)
        if self._closed_pipe_at and now - self._closed_pipe_at > _LEAVING_SECONDS:
            self._ward.violated("it closed its pipe and stayed", at_once=True)
        self._ward.leave_forgotten()
        working = self._ward.at_work()
        excess, offender = self._judge(working, now)
        if self._watch.blind and not self.readable(EXIT):
            return IDLE_SECONDS  # it had ended, and its end had not been noticed
        if self._watch.hidden:
            what = "its main thread left, and hid the others from its budgets"
            self._ward.violated(what, at_once=True)
        elif excess is not None:
            self._act_on(excess, offender)
        self._see_to_calls(working, now)
        return min(self._watch.pause(pending, now) for pending in working or (None,))

    def _judge(
        self, working: Sequence[Pending], now: float
    ) -> tuple[Excess | None, Pending | None]:
        """Return the gravest excess, and the call that is to blame for it."""
        offender = working[0] if working else None
        excess = self._watch.look(offender, now)
        for pending in working[1:]:
            if excess is None:
                excess, offender = self._watch.judge_call(pending, now), pending
        return excess, offender

    def _see_to_calls(self, working: Sequence[Pending], now: float) -> None:
        for pending in working:
            if pending.interrupted_at and not pending.done():
                # The word to end may not have been in the pipe yet when the signal came.
                with contextlib.suppress(Exception):
                    self._child.interrupt()
        for pending in self._channel.outstanding():
            if pending not in working and now >= pending.deadline:
                # It waits behind another; the plugin skips it when its turn comes.
                late = answers.too_late(self._ward.identity, pending, now, ended=False)
                if pending.finish(late, now):
                    self._ward.interrupt(pending)

    def _act_on(self, excess: Excess, offender: Pending | None) -> None:
        if excess.step is Remedy.INTERRUPT and offender is not None:
            self._ward.interrupt(offender)
            return
        self.exceeded(excess, offender)

    def exceeded(self, excess: Excess, offender: Pending | None) -> None:
        """End it for an excess. From any thread."""
        text = answers.told_to_operator(self._ward.identity, excess)
        self._ward.end(Ending(excess.cause, text, excess), offender=offender)

    def broke_down(self, error: BaseException) -> None:
        """A fault of the host's: this plugin is ended, the others go on."""
        if self._life.ending is None:
            self._ward.failed(error)
        else:
            self._resign(shown(error))

    def unwatched(self) -> None:
        """Nobody looks after it any more, after `broke_down`: let nobody wait for it."""
        self._resign("nobody looks after it any more")

    def _see_to_end(self, now: float) -> float:
        """Kill it when its time has come, again and again, until it is gone."""
        left = self._life.kill_at - now
        if left > 0:
            return min(_HURRY_SECONDS, left)
        if not self.readable(EXIT):
            return IDLE_SECONDS
        self._child.kill()
        if -left >= _DYING_SECONDS:
            self._resign(f"it was not gone {_DYING_SECONDS:g} s after it was killed")
        return IDLE_SECONDS if self._resigned else _HURRY_SECONDS

    def _resign(self, why: str) -> None:
        self._resigned = True
        self._ward.give_up(why)


def shown(error: BaseException) -> str:
    """Return an error as text: its class and what it says."""
    return f"{type(error).__name__}: {error}".rstrip(": ")
