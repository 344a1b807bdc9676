"""What both faces of the host show of one plugin: everything but the call itself."""

from __future__ import annotations

import math
import time
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from plugin_sdk.wire.message import is_name
from sandbox_host.budget.enforce import tightened
from sandbox_host.errors import PluginEndedError, UsageError
from sandbox_host.runtime.feeding import Feeder, dismiss, let_go, take_streams
from sandbox_host.runtime.party import Request
from sandbox_host.runtime.slot import Slot

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.health.record import PluginHealth
    from sandbox_host.ipc.calls import Pending
    from sandbox_host.model import Cause, OperationLimits, Receipt, State, Usage
    from sandbox_host.runtime.process import PluginProcess


class PluginView:
    """A loaded plugin, as far as looking at it goes.

    It stays good when the plugin's process does not: it stands for whichever process runs the
    plugin now.
    """

    def __init__(self, place: Slot | PluginProcess) -> None:
        self._slot = place if isinstance(place, Slot) else Slot(place)

    @property
    def _process(self) -> PluginProcess:
        return self._slot.process

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.version} {self.state}>"

    @property
    def name(self) -> str:
        """The plugin's identity."""
        return self._process.identity

    @property
    def version(self) -> str:
        """The version in plugin.json."""
        return self._process.plan.manifest.version

    @property
    def plan(self) -> SandboxPlan:
        """What it was admitted with: limits, granted permissions, configuration."""
        return self._process.plan

    @property
    def receipt(self) -> Receipt:
        """What confines it, as it was read back from the kernel."""
        return self._process.receipt

    @property
    def state(self) -> State:
        """Where it stands in its life."""
        return self._process.state

    @property
    def cause(self) -> Cause | None:
        """Why it ended, or None while it runs."""
        return self._process.cause

    @property
    def last_health(self) -> PluginHealth | None:
        """How it was doing when it was last looked at; None before it is ready."""
        return self._process.health

    @property
    def dossier(self) -> Path | None:
        """The directory with what is known of its end, once it has ended otherwise than asked."""
        return self._process.dossier_path

    @property
    def operations(self) -> tuple[str, ...]:
        """Names that can be called."""
        interface = self._process.interface
        return interface.operations if interface else ()

    @property
    def log_path(self) -> Path:
        """The file with what it printed."""
        return self._process.log.path

    def log_tail(self, lines: int = 20) -> list[str]:
        """Return the last lines it printed, control characters escaped."""
        return self._process.log_tail(lines)

    @property
    def recording_problem(self) -> str:
        """Why its recording stopped before it did; "" where it did not, or there is none."""
        recorder = self._process.recorder
        return recorder.problem if recorder is not None else ""

    def usage(self) -> Usage:
        """Return what it has cost so far, measured from outside."""
        return self._process.usage()

    def _begin(
        self,
        operation: str,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        deadline: float | None,
        limits: OperationLimits | None,
        *,
        streams: bool = False,
    ) -> tuple[PluginProcess, Pending]:
        """Begin a call with who stands there now, and wait for nobody."""
        while True:
            tried = self._slot.process
            try:
                return self._try(operation, arguments, keywords, deadline, limits, streams=streams)
            except PluginEndedError:
                # It was not sent. A new version may have taken the place at this moment.
                if self._slot.process is tried:
                    let_go(arguments, keywords)
                    raise

    def _try(
        self,
        operation: str,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        deadline: float | None,
        limits: OperationLimits | None,
        *,
        streams: bool = False,
        many: bool = False,
    ) -> tuple[PluginProcess, Pending]:
        """Begin a call; after a `PluginEndedError` its streams are as they were, to try again."""
        process = self._slot.process
        allowed = math.inf if streams else process.plan.limits.wall_seconds
        seconds = allowed if deadline is None else min(deadline, allowed)
        if deadline is not None and not math.isfinite(deadline):
            text = f"A deadline is a number of seconds from now, not {deadline!r:.40}."
            raise UsageError(text)
        if not is_name(operation):
            text = f"{operation!r:.80} cannot be the name of an operation."
            raise UsageError(text, remedy="`operations` lists those that there are.")
        tighter = None if limits is None else tightened(process.plan.limits, _checked(limits))
        places: tuple[int | str, ...] = ()
        feeds: list[Any] = []
        if not many:
            arguments, keywords, places, feeds = take_streams(arguments, keywords)
            if feeds:
                self._check_feeds(feeds)
        request = Request(
            operation,
            arguments,
            keywords,
            max(0.0, seconds),
            tighter,
            places,
            streams,
            many=many,
        )
        talk = process.talk
        try:
            pending = talk.begin(request)
        except PluginEndedError:
            raise
        except BaseException:
            for feed in feeds:
                dismiss(feed)
            raise
        for number, feed in enumerate(feeds, 1):
            Feeder(talk, pending, number, self.name).begin(feed)
        return process, pending

    def _patience(self, deadline: float | None) -> float:
        """Return until when a call with this deadline may wait for a process to take the place."""
        allowed = self._process.plan.limits.wall_seconds
        seconds = allowed if deadline is None else min(deadline, allowed)
        return time.monotonic() + max(0.0, seconds)

    def _check_feeds(self, feeds: list[Any]) -> None:
        """Refuse streams that cannot be fed from here, before anything is sent.

        Raises:
            UsageError: there is one.
        """


class StartedCall:
    """A call that was begun: it can be looked at, and cancelled. From any thread."""

    def __init__(self, process: PluginProcess, pending: Pending) -> None:
        self._process = process
        self._pending = pending

    @property
    def progress(self) -> tuple[int, int]:
        """How much is done, and of how much (0: not known), by the plugin's own word."""
        return self._pending.progress

    def done(self) -> bool:
        """Tell whether it has ended."""
        return self._pending.done()

    def cancel(self) -> None:
        """Have it ended: nobody wants its value any more. Does not wait.

        The operation is asked first: an exception is raised in it, `plugin_sdk.Cancelled`, or its
        task is cancelled. What goes on a quarter of a second later takes its plugin with it.
        """
        self._process.talk.cancel(self._pending)


def _checked(limits: OperationLimits) -> OperationLimits:
    for field in fields(limits):
        value = getattr(limits, field.name)
        if value is not None and not (isinstance(value, int | float) and value >= 0):
            text = f"The limit {field.name} of a call is a number from 0 on, not {value!r:.40}."
            raise UsageError(text, remedy="Leave it out for the plugin's own.")
    return limits
