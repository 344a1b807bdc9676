"""How a new version takes the place of a running one, in one table: reload without a lost call.

The new version starts beside the old one, which serves until the swap. Whatever goes wrong before
that abandons the new version, and the old one serves on as if nothing had been. After the swap
there is no way back: the new version is the plugin, and if it fails, that is an ordinary failure.

What becomes of the *plugin* meanwhile is another table's (`lifecycle`): it stays RUNNING, because
it takes calls. If the old version dies by itself before the swap, its own restart goes on beside
the rollout, and `swapped` finds nothing to drain.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sandbox_host.supervision import machine


class RolloutState(enum.StrEnum):
    """How far a new version has come; `STATES` says what that means."""

    VERIFIED = "verified"
    HELD = "held"
    STARTING = "starting"
    PROBING = "probing"
    HANDING_OVER = "handing-over"
    SWAPPED = "swapped"
    DONE = "done"
    ABANDONED = "abandoned"


class RolloutTrigger(enum.StrEnum):
    """What happens to it."""

    HOLD = "hold"
    APPROVE = "approve"
    START = "start"
    READY = "ready"
    PASS = "pass"  # noqa: S105 - a probe is passed
    SWAP = "swap"
    DRAINED = "drained"
    ABANDON = "abandon"


class Serves(enum.StrEnum):
    """Who takes a call that comes now."""

    OLD = "old"
    NEW = "new"
    NOBODY = "nobody"
    """It waits within its deadline: the state is being handed over, which has a short one."""


@dataclass(frozen=True, slots=True)
class About:
    """What is to know of one state.

    Attributes:
        means: for people, one line.
        serves: who takes calls.
        timed: it has a deadline, and ABANDON (or, after the swap, DRAINED by force) is what
            follows when that has passed. Without one it waits for a person, or is over.
    """

    means: str
    serves: Serves
    timed: bool = False


_S = RolloutState
_T = RolloutTrigger

STATES: Final[Mapping[RolloutState, About]] = MappingProxyType(
    {
        _S.VERIFIED: About("a trusted key signed every byte of the new version", Serves.OLD),
        _S.HELD: About(
            "it asks for more than the old one: an operator has to approve that", Serves.OLD
        ),
        _S.STARTING: About("it starts beside the old one", Serves.OLD, timed=True),
        _S.PROBING: About(
            "it runs, and is asked how it is; recorded calls may be replayed against it",
            Serves.OLD,
            timed=True,
        ),
        _S.HANDING_OVER: About(
            "the old one finishes what it has begun and exports its state, the new one imports it",
            Serves.NOBODY,
            timed=True,
        ),
        _S.SWAPPED: About("the new one serves, the old one is drained", Serves.NEW, timed=True),
        _S.DONE: About("the old one is gone", Serves.NEW),
        _S.ABANDONED: About("the new one is gone, and the reason told", Serves.OLD),
    }
)

TABLE: Final[machine.Table[RolloutState, RolloutTrigger]] = machine.frozen_table(
    {
        _S.VERIFIED: {_T.HOLD: _S.HELD, _T.START: _S.STARTING, _T.ABANDON: _S.ABANDONED},
        _S.HELD: {_T.APPROVE: _S.VERIFIED, _T.ABANDON: _S.ABANDONED},
        _S.STARTING: {_T.READY: _S.PROBING, _T.ABANDON: _S.ABANDONED},
        # Without a state to hand over the swap is one assignment, and no call waits for it.
        _S.PROBING: {
            _T.PASS: _S.HANDING_OVER,
            _T.SWAP: _S.SWAPPED,
            _T.ABANDON: _S.ABANDONED,
        },
        _S.HANDING_OVER: {_T.SWAP: _S.SWAPPED, _T.ABANDON: _S.ABANDONED},
        _S.SWAPPED: {_T.DRAINED: _S.DONE},
        _S.DONE: {},
        _S.ABANDONED: {},
    }
)

FIRST: Final = RolloutState.VERIFIED

ENDS: Final = frozenset({_S.DONE, _S.ABANDONED})
"""Nothing follows."""

JOURNAL: Final[Mapping[RolloutTrigger, str]] = MappingProxyType(
    {
        _T.HOLD: "update_held",
        _T.APPROVE: "update_approved",
        _T.START: "update_starting",
        _T.READY: "update_started",
        _T.PASS: "update_probed",
        _T.SWAP: "update_swapped",
        _T.DRAINED: "update_done",
        _T.ABANDON: "update_abandoned",
    }
)
"""The journal's event of each trigger."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """How far one new version of one plugin has come; a step makes another of it.

    Attributes:
        plugin: its identity.
        version: the new one, as plugin.json has it.
        since: when it came there, by the caller's clock.
        reason: why; for an abandoned one always.
    """

    plugin: str
    version: str
    state: RolloutState = FIRST
    since: float = 0.0
    reason: str = ""

    @property
    def over(self) -> bool:
        """Nothing follows."""
        return self.state in ENDS

    @property
    def serves(self) -> Serves:
        """Who takes a call that comes now."""
        return STATES[self.state].serves

    def step(self, trigger: RolloutTrigger, now: float, reason: str = "") -> Rollout:
        """Return how far it is after a trigger.

        Raises:
            UsageError: the table has no such trigger here, or an abandoned one has no reason:
                bugs of ours. What the outside brings too late (a newer version, the host's end)
                `abandon` takes.
        """
        after = machine.advance(TABLE, self.state, trigger, "an update")
        if after is RolloutState.ABANDONED and not reason:
            reason = f"it did not get beyond {self.state}"
        return Rollout(self.plugin, self.version, after, now, reason)

    def abandon(self, now: float, reason: str) -> Rollout:
        """Return it abandoned where that can still be done, or as it is: the swap is final."""
        if RolloutTrigger.ABANDON not in TABLE[self.state]:
            return self
        return self.step(RolloutTrigger.ABANDON, now, reason)
