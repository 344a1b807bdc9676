"""A new version takes a running plugin's place, and no call is lost by it.

The new one is verified, admitted, confined and initialised beside the old one, which serves
meanwhile, and is asked how it is. Only then it stands in the plugin's place: calls that come from
now on are its own, and the old one ends when it has answered what it was asked before. Whatever
goes wrong before the swap ends the new one, and the old one serves on as if nothing had been.

Both are of one plugin: for that time they share its user id, its data directory and its store, each
in a process of its own.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.errors import PluginError, ReloadError, UsageError
from sandbox_host.health.verdict import HealthStatus
from sandbox_host.ipc.calls import Pending
from sandbox_host.model import Cause, State
from sandbox_host.runtime.healthcheck import ask, judge_health
from sandbox_host.runtime.party import Request
from sandbox_host.runtime.rehearsal import rehearse

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from sandbox_host.admission.history import Downgrade
    from sandbox_host.admission.instances import Instance
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.bundle.verify import VerifiedBundle
    from sandbox_host.config import HostConfig
    from sandbox_host.runtime.launch import Launcher
    from sandbox_host.runtime.process import PluginProcess
    from sandbox_host.runtime.rehearsal import Rehearsal
    from sandbox_host.runtime.slot import Slot
    from sandbox_host.runtime.updates import Update

    Probe = Callable[[PluginProcess], object]

EXPORT: Final = "export_state"
IMPORT: Final = "import_state"
"""Hooks of a plugin whose state goes over to its next version; it is a value like any other."""

HANDOVER_SECONDS: Final = 5.0
"""So long may each step of that take, while calls wait."""

_PAUSE_SECONDS: Final = 0.002
_SERVES_ON: Final = "the one before serves on"


class Candidate:
    """A new version on its way.

    Args:
        old: the process that runs.
        launcher: admits and starts.
        source: directory or archive of the new version.
        instance: which of several it is to be; None for the plugin itself.

    Attributes:
        remember: writes down that it was admitted, which is done when it takes the place: a
            version that was not taken must not keep the one before from being started again.
    """

    remember: Callable[[], None]

    def __init__(
        self, old: PluginProcess, launcher: Launcher, source: Path, instance: Instance | None
    ) -> None:
        self._old = old
        self._launcher = launcher
        self._source = source
        self._instance = instance

    def admit(self, downgrades: Collection[Downgrade]) -> tuple[SandboxPlan, VerifiedBundle]:
        """Verify and admit it; nothing of it is executed.

        Raises:
            ReloadError: it is another plugin.
            RefusedError, TrustStoreError, HistoryError, ConfinementError: as of a load.
        """
        if self._old.state is not State.READY:
            raise self._old.life.refusal()
        plan, bundle, self.remember = self._launcher.consider(
            self._source, downgrades, self._instance
        )
        if plan.identity != self._old.identity:
            text = f"{self._source} is {plan.identity}, and no version of {self._old.identity}."
            raise UsageError(text, remedy="Load it beside, under its own name.")
        return plan, bundle

    def prove(self, new: PluginProcess, probe: Probe | None) -> None:
        """Ask the new version how it is, and the application what it thinks of it.

        Raises:
            ReloadError: one of them says that it should not serve.
        """
        asked = ask(new)
        if isinstance(asked, Pending):
            new.channel.wait(asked)
        verdict = judge_health(new, asked)
        if verdict.status is HealthStatus.UNHEALTHY:
            raise self._abandoned(f"it is unhealthy: {verdict.message}")
        if probe is not None:
            try:
                probe(new)
            except PluginError as error:
                raise self._abandoned(f"its probe failed: {error.message}") from error
        if new.is_ending:
            raise self._abandoned(f"it ended at once: {new.life.why()[1]}")

    def rehearse(self, rehearsal: Rehearsal, bundle: VerifiedBundle, config: HostConfig) -> None:
        """Have the new version do what was recorded, in a sandbox of its own.

        Raises:
            ReloadError: it does something otherwise.
            RecordingError, UsageError: the recording cannot be used.
        """
        instance = self._old.plan.instance
        difference = rehearse(rehearsal, rehearsal.read(), bundle, config, instance)
        if difference:
            raise self._abandoned(f"it does not do what was recorded: {difference}")

    def _abandoned(self, why: str) -> ReloadError:
        return _not_taken(self._old, why)


@contextlib.contextmanager
def handed_over(
    old: PluginProcess, new: PluginProcess, slot: Slot, update: Update
) -> Iterator[None]:
    """Give the new version the state of the old one, where both have the hooks for that.

    Nobody serves meanwhile: the old one finishes what it was asked; calls and events wait. Inside
    the block the new one is to take the place; if the state did not come over, it is not entered.

    Raises:
        ReloadError: the old one did not finish in time, or one of the hooks failed.
    """
    if EXPORT not in old.operations or IMPORT not in new.operations:
        yield
        return
    update.probed()
    with slot.held():
        old.resting = True
        try:
            until = time.monotonic() + HANDOVER_SECONDS
            while old.channel.outstanding() and time.monotonic() < until:
                time.sleep(_PAUSE_SECONDS)
            if old.channel.outstanding():
                text = f"{old.identity} was still at work {HANDOVER_SECONDS:g} s after it was asked"
                raise _not_taken(old, f"{text} to hand over its state")
            state = _asked(old, old, EXPORT)
            _asked(old, new, IMPORT, state)
            yield
        except BaseException:
            old.resting = False
            old.talk.resume()
            raise


def _asked(old: PluginProcess, process: PluginProcess, hook: str, *arguments: Any) -> Any:
    """Return what a hook returns; see `handed_over`."""
    try:
        request = Request(hook, arguments, {}, HANDOVER_SECONDS, of_hosts_own=True)
        pending = process.talk.begin(request)
        process.channel.wait(pending)
        return process.talk.result(pending)
    except PluginError as error:
        raise _not_taken(old, f"{hook}() failed: {error.message}") from error


def _not_taken(old: PluginProcess, why: str) -> ReloadError:
    text = f"A new version of {old.identity} was not taken: {why.rstrip('.')}; {_SERVES_ON}."
    return ReloadError(text, plugin=old.identity)


def drain(old: PluginProcess, seconds: float) -> None:
    """Let an old version answer what it was asked, clean up and leave.

    Args:
        old: nothing new is asked of it.
        seconds: for leaving, when the deadlines of what it was asked have passed; then it is ended.
    """
    now = time.monotonic()
    deadlines = [one.deadline - now for one in old.channel.outstanding()]
    at_work = max((left for left in deadlines if left < math.inf), default=0.0)
    with contextlib.suppress(PluginError):
        old.stop(min(max(0.0, at_work), old.limits.wall_seconds) + seconds, Cause.UNLOADED)
