"""Where a plugin stands in its life, and why that ends: decided once, whoever comes first.

What ends a plugin is recorded before it is done, as an `Ending`; when its process is gone, that or
the kernel's word becomes the one true cause.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from sandbox_host.model import Cause, State
from sandbox_host.runtime import answers
from sandbox_host.runtime.causes import Ending, cause_of
from sandbox_host.runtime.lifecycle import ENDED, Step, advance

if TYPE_CHECKING:
    from sandbox_host.backends.base import Exit
    from sandbox_host.errors import PluginEndedError
    from sandbox_host.ipc.calls import Pending


class Life:
    """One plugin's. Methods may be called from any thread.

    Args:
        identity: the plugin's.
        cpu_total_seconds: of `Limits`; at which the kernel ends it.

    Attributes:
        state: where it stands.
        cause: why it ended; None before.
        cause_text: the same in one sentence.
        ending: what the host does to end it; None while it does nothing.
        offender: the call that is to blame for that, or None.
        kill_at: reading of the monotonic clock at which its process is killed, where it is ended.
    """

    def __init__(self, identity: str, cpu_total_seconds: int) -> None:
        self._identity = identity
        self._cpu_total_seconds = cpu_total_seconds
        self._lock = threading.Lock()
        self.state = State.STARTING
        self.cause: Cause | None = None
        self.cause_text = ""
        self.ending: Ending | None = None
        self.offender: Pending | None = None
        self.kill_at = self._kill_at_last = 0.0

    @property
    def over(self) -> bool:
        """It has ended."""
        return self.state in ENDED

    def ready(self) -> bool:
        """Let it be called from now on; False if it has ended meanwhile."""
        with self._lock:
            if self.over:
                return False
            self.state = advance(self.state, Step.READY)
            return True

    def drain(self) -> bool:
        """Let it be called no more; False if it was not ready, or somebody else was first."""
        with self._lock:
            if self.state is not State.READY:
                return False
            self.state = advance(self.state, Step.DRAIN)
            return True

    def condemn(self, ending: Ending, kill_at: float, offender: Pending | None = None) -> bool:
        """Record why and when the host ends it; False if that was done already, or it has ended."""
        with self._lock:
            if self.ending is not None or self.over:
                return False
            # The ending last: whoever sees it acts on the others.
            self.kill_at = self._kill_at_last = kill_at
            self.offender, self.ending = offender, ending
            return True

    def hasten(self, kill_at: float) -> None:
        """Have its process killed sooner, if it is to be killed; the last one to say so counts."""
        with self._lock:
            if self.ending is not None:
                self.kill_at = min(self._kill_at_last, kill_at)

    def ended(self, how: Exit, place: str = "") -> None:
        """Take the kernel's word on how its process ended.

        Args:
            how: that word.
            place: where its code stood, if it crashed, by its own; or "".
        """
        if self.state is State.DRAINING and how.code == 0 and self.ending is None:
            self.end_as(Cause.UNLOADED, f"{self._identity} was unloaded.")
        else:
            cause, text = cause_of(self._identity, self.ending, how, self._cpu_total_seconds)
            at = (
                f" By its own word, its code stood at {place}."
                if place and cause is Cause.CRASHED
                else ""
            )
            self.end_as(cause, f"{text}{at}")

    def end_as(self, cause: Cause, text: str) -> None:
        """Set the cause and the last state, unless that has been done."""
        with self._lock:
            if self.over:
                return
            self.cause, self.cause_text = cause, text
            asked = cause in {Cause.UNLOADED, Cause.HOST_SHUTDOWN}
            draining = self.state is State.DRAINING
            self.state = advance(self.state, Step.ENDED if asked and draining else Step.FAILED)

    def why(self) -> tuple[Cause, str]:
        """Return why it ends or has ended, as far as is known now, in a word and a sentence."""
        cause = self.cause or (self.ending.cause if self.ending else Cause.UNKNOWN)
        text = self.cause_text or (self.ending.text if self.ending else "its process is gone.")
        return cause, text

    def refusal(self) -> PluginEndedError:
        """Return the error of a call that it does not take."""
        return answers.not_running(self._identity, self.state, self.cause, self.cause_text)
