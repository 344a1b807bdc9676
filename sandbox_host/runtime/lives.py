"""Where each plugin of a host stands in its life, and who is told when that changes.

The table is `sandbox_host.supervision.lifecycle`; here is what happens to it. Every step is one
event, ``plugin_state``, and one line in the journal: written here, or by whoever knows more of it
(an admission has a key, an end has a cause) right before it says so here.

What happens comes from several threads, and some of it comes too late: a plugin crashes while it is
being unloaded. What the table does not have where a plugin stands has not happened to it.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from sandbox_host.errors import HeldError, SandboxHostError
from sandbox_host.supervision.lifecycle import (
    ENDS,
    FIRST,
    PluginLife,
    PluginState,
    Transition,
    Trigger,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

MAX_ENDED: Final = 1_024
"""So many lives are remembered that have ended; of more, those that ended first are forgotten."""

_MAX_REASON: Final = 500

_ANEW: Final = {
    PluginState.QUARANTINED: Trigger.RELEASE,
    PluginState.DISABLED: Trigger.ENABLE,
}
"""What leads to another start, where that is not RENEW."""

_WHOLE_WAY: Final = (
    Trigger.RENEW,
    Trigger.VERIFY,
    Trigger.ADMIT,
    Trigger.START,
    Trigger.READY,
)


class Lives:
    """The lives of one host's plugins. Methods may be called from any thread.

    Args:
        journal: appends a line, as far as that can be done: event, plugin, detail.
        publish: publishes what changed.
    """

    def __init__(
        self,
        journal: Callable[[str, str, str], object],
        publish: Callable[[dict[str, str]], object],
    ) -> None:
        self._journal = journal
        self._publish = publish
        self._lock = threading.Lock()
        self._lives: dict[str, PluginLife] = {}
        self._arriving: set[str] = set()

    def all(self) -> tuple[PluginLife, ...]:
        """Return all that are known, by name."""
        with self._lock:
            return tuple(life for _, life in sorted(self._lives.items()))

    def of(self, identity: str) -> PluginLife | None:
        """Return where one plugin stands; None if nothing is known of it."""
        with self._lock:
            return self._lives.get(identity)

    def step(
        self, identity: str, trigger: Trigger, reason: str = "", *, journalled: bool = False
    ) -> bool:
        """Say what happened to a plugin; False if that can no longer happen where it stands.

        Args:
            identity: the plugin's.
            trigger: what happened.
            reason: for people, one line; the text of an error, which is safe to show.
            journalled: its line is in the journal already.
        """
        with self._lock:
            life = self._lives.get(identity) or PluginLife(identity, since=time.monotonic())
            if not life.allows(trigger):
                return False
            life, transition = life.step(trigger, time.monotonic(), reason[:_MAX_REASON])
            self._lives.pop(identity, None)
            self._lives[identity] = life  # the last one now: those that ended first come first
            self._forget_some()
        self._tell(transition, journalled=journalled)
        return True

    def replace(self, identity: str) -> None:
        """Say that a new version, which has been verified and works, stands in its place.

        That is no step of a plugin that runs. One that has ended meanwhile runs again by it, and
        one whose health was not what it should be has to show that anew.
        """
        why = "a new version took its place"
        for trigger in (*_WHOLE_WAY, Trigger.RECOVER):
            self.step(identity, trigger, why)

    def forget(self, identity: str) -> None:
        """Remember nothing of a plugin, unless it has a process or is being started."""
        with self._lock:
            life = self._lives.get(identity)
            if life is not None and life.state in ENDS and identity not in self._arriving:
                del self._lives[identity]

    def _forget_some(self) -> None:
        ended = [name for name, life in self._lives.items() if life.state in ENDS]
        for name in ended[: max(0, len(ended) - MAX_ENDED)]:
            del self._lives[name]

    def _tell(self, transition: Transition, *, journalled: bool) -> None:
        if not journalled:
            self._journal(transition.journal_event, transition.plugin, transition.reason)
        told = {
            "plugin": transition.plugin,
            "before": str(transition.before),
            "step": str(transition.trigger),
            "after": str(transition.after),
            "reason": transition.reason,
        }
        self._publish(told)

    # -- starts -----------------------------------------------------------------------------

    def arrive(self) -> Arrival:
        """Return a start that begins: one of a plugin whose name is not known yet."""
        return Arrival(self)

    def claim(self, identity: str) -> bool:
        """Begin a start of a plugin; False if it runs, or another start of it has begun."""
        with self._lock:
            if identity in self._arriving:
                return False
            life = self._lives.get(identity)
            again = _again(life)
            if life is not None and again is not None and not life.allows(again):
                return False
            self._arriving.add(identity)
        if again is not None:
            self.step(identity, again)
        return True

    def arrived(self, identity: str) -> None:
        """End a start that was claimed."""
        with self._lock:
            self._arriving.discard(identity)


def _again(life: PluginLife | None) -> Trigger | None:
    """Return what leads to another start; None where nothing has to."""
    if life is None or life.state is FIRST:
        return None
    return _ANEW.get(life.state, Trigger.RENEW)


class Arrival:
    """One start of one plugin, from its verification until it is ready: a context manager.

    Only one at a time steps through a plugin's life: another load of the same plugin is refused
    in the end, and changes nothing about the first.
    """

    def __init__(self, lives: Lives) -> None:
        self._lives = lives
        self._identity = ""
        self._starting = False

    def __enter__(self) -> Self:
        return self

    def verified(self, identity: str, digest: str) -> None:
        """Say which plugin it is."""
        if self._lives.claim(identity):
            self._identity = identity
            self._step(Trigger.VERIFY, f"root {digest}")

    def starting(self) -> None:
        """Say that it is admitted, which the journal has, and is about to have a process."""
        self._step(Trigger.ADMIT, journalled=True)
        self._step(Trigger.START)
        self._starting = True

    def ready(self) -> None:
        """Say that it works, which the journal has."""
        self._step(Trigger.READY, journalled=True)

    def _step(self, trigger: Trigger, reason: str = "", *, journalled: bool = False) -> None:
        if self._identity:
            self._lives.step(self._identity, trigger, reason, journalled=journalled)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._identity:
            return
        if error is not None:
            told = error.message if isinstance(error, SandboxHostError) else type(error).__name__
            # Whoever raised it has written it down.
            if self._starting:
                self._step(Trigger.FAIL, told, journalled=True)
            elif isinstance(error, HeldError):
                self._step(Trigger.HOLD, told)
            else:
                self._step(Trigger.REFUSE, told, journalled=True)
        self._lives.arrived(self._identity)
