"""One new version on its way to a running plugin's place, told to the journal step by step.

The table is `sandbox_host.supervision.rollout`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sandbox_host.errors import HeldError, SandboxHostError
from sandbox_host.supervision.rollout import JOURNAL, Rollout, RolloutState, RolloutTrigger

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

_MAX_REASON = 500


class Update:
    """A context manager: what leaves it by an error abandons the new version, with that reason.

    Args:
        plugin: the identity of the running one.
        tell: appends a line to the journal: event, plugin, detail.
    """

    def __init__(self, plugin: str, tell: Callable[[str, str, str], object]) -> None:
        self._tell = tell
        self._rollout = Rollout(plugin, "")

    def __enter__(self) -> Self:
        return self

    @property
    def state(self) -> RolloutState:
        """How far it is."""
        return self._rollout.state

    def starting(self, version: str) -> None:
        """It is admitted, and about to be started beside the old one."""
        self._rollout = Rollout(self._rollout.plugin, version)
        self._step(RolloutTrigger.START, f"version {version}")

    def started(self) -> None:
        """It is there, and is asked how it is."""
        self._step(RolloutTrigger.READY)

    def probed(self) -> None:
        """It is well, and takes over the state of the old one."""
        self._step(RolloutTrigger.PASS)

    def swapped(self) -> None:
        """It stands in the plugin's place."""
        self._step(RolloutTrigger.SWAP)

    def drained(self) -> None:
        """The old one is gone."""
        self._step(RolloutTrigger.DRAINED)

    def _step(self, trigger: RolloutTrigger, reason: str = "") -> None:
        self._rollout = self._rollout.step(trigger, time.monotonic(), reason)
        self._tell(JOURNAL[trigger], self._rollout.plugin, reason[:_MAX_REASON])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or self._rollout.state in {RolloutState.SWAPPED, RolloutState.DONE}:
            return  # after the swap there is no way back
        why = error.message if isinstance(error, SandboxHostError) else type(error).__name__
        held = isinstance(error, HeldError) and self._rollout.state is RolloutState.VERIFIED
        self._step(RolloutTrigger.HOLD if held else RolloutTrigger.ABANDON, why)
