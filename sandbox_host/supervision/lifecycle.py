"""The life of an installed plugin, as its operator sees it, in one table.

It goes on over many processes: a plugin that crashed, backs off and starts again is one life here,
and two lives in `sandbox_host.runtime.lifecycle`, whose table is that of *one process* (admitted,
confining, starting, ready, draining, stopped, failed) and ends with it. Both fit together like
this, and a test walks them side by side:

* A process begins when the plugin takes START, and is over when it takes END or FAIL: only in the
  states of `WITH_PROCESS` there is one. The process's admitted, confining and starting are all
  STARTING here; its ready is RUNNING or DEGRADED.
* The process's step READY is READY here, DRAIN is STOP, ENDED is END and FAILED is FAIL. How its
  process ended (`Cause`) is the reason of the transition, not a state.
* A new version beside the old one (`rollout`) has no life of its own; each instance has.

Whatever starts again is DISCOVERED first: it is verified and admitted anew, because its key may
have been revoked meanwhile. There is no other way to STARTING.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from sandbox_host.supervision import machine


class PluginState(enum.StrEnum):
    """Where an installed plugin stands; `STATES` says what that means."""

    DISCOVERED = "discovered"
    VERIFIED = "verified"
    HELD = "held"
    ADMITTED = "admitted"
    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"
    BACKING_OFF = "backing-off"
    QUARANTINED = "quarantined"
    DISABLED = "disabled"


class Trigger(enum.StrEnum):
    """What happens to it; `JOURNAL` has the name of each in the journal."""

    VERIFY = "verify"
    REFUSE = "refuse"
    HOLD = "hold"
    APPROVE = "approve"
    ADMIT = "admit"
    START = "start"
    READY = "ready"
    WORSEN = "worsen"
    RECOVER = "recover"
    STOP = "stop"
    END = "end"
    FAIL = "fail"
    BACK_OFF = "back-off"
    QUARANTINE = "quarantine"
    RELEASE = "release"
    RENEW = "renew"
    DISABLE = "disable"
    ENABLE = "enable"


class Calls(enum.StrEnum):
    """What becomes of a call that comes now."""

    TAKEN = "taken"
    WAIT = "wait"
    """It waits within its deadline for the plugin to run."""
    REFUSED = "refused"
    """A typed error at once, with the reason of the state."""


@dataclass(frozen=True, slots=True)
class About:
    """What is to know of one state.

    Attributes:
        means: for people, one line.
        calls: what becomes of a call that comes now.
        alert: how grave it is that a plugin is here: "", "warning" or "error", the words of
            `sandbox_host.health.alerts.Severity`.
    """

    means: str
    calls: Calls
    alert: Literal["", "warning", "error"] = ""


_P = PluginState
_T = Trigger

STATES: Final[Mapping[PluginState, About]] = MappingProxyType(
    {
        _P.DISCOVERED: About("it is there, and about to be verified", Calls.WAIT),
        _P.VERIFIED: About("a trusted key signed every byte of it", Calls.WAIT),
        _P.HELD: About(
            "it asks for more than the version before it: an operator has to approve that",
            Calls.REFUSED,
            "warning",
        ),
        _P.ADMITTED: About(
            "what it may do is settled; it waits for the plugins that it needs", Calls.WAIT
        ),
        _P.STARTING: About("its process is being confined and imports it", Calls.WAIT),
        _P.RUNNING: About("it works", Calls.TAKEN),
        _P.DEGRADED: About(
            "it works, and its health is not what it should be", Calls.TAKEN, "warning"
        ),
        _P.DRAINING: About("it finishes what it has begun, and takes nothing new", Calls.REFUSED),
        _P.STOPPED: About("it ended because it was asked to", Calls.REFUSED),
        _P.FAILED: About(
            "it was refused, or its process ended unasked; the reason says which",
            Calls.REFUSED,
            "error",
        ),
        _P.BACKING_OFF: About("it failed, and starts again after a pause", Calls.WAIT, "warning"),
        _P.QUARANTINED: About(
            "it failed too often in too short a time, and stays away until an operator releases it",
            Calls.REFUSED,
            "error",
        ),
        _P.DISABLED: About(
            "its operator or its configuration says that it is not to run", Calls.REFUSED
        ),
    }
)

TABLE: Final[machine.Table[PluginState, Trigger]] = machine.frozen_table(
    {
        _P.DISCOVERED: {
            _T.VERIFY: _P.VERIFIED,
            _T.REFUSE: _P.FAILED,
            # As an earlier host left it: that there is another host now releases nobody.
            _T.QUARANTINE: _P.QUARANTINED,
            _T.DISABLE: _P.DISABLED,
            _T.STOP: _P.STOPPED,
        },
        _P.VERIFIED: {
            _T.ADMIT: _P.ADMITTED,
            _T.HOLD: _P.HELD,
            _T.REFUSE: _P.FAILED,
            _T.RENEW: _P.DISCOVERED,
            _T.DISABLE: _P.DISABLED,
            _T.STOP: _P.STOPPED,
        },
        _P.HELD: {
            # Admission looks again: the approval is of one version, and is its to find.
            _T.APPROVE: _P.VERIFIED,
            _T.REFUSE: _P.FAILED,
            _T.RENEW: _P.DISCOVERED,
            _T.DISABLE: _P.DISABLED,
            _T.STOP: _P.STOPPED,
        },
        _P.ADMITTED: {
            _T.START: _P.STARTING,
            _T.REFUSE: _P.FAILED,
            _T.RENEW: _P.DISCOVERED,
            _T.DISABLE: _P.DISABLED,
            _T.STOP: _P.STOPPED,
        },
        _P.STARTING: {_T.READY: _P.RUNNING, _T.FAIL: _P.FAILED, _T.STOP: _P.DRAINING},
        _P.RUNNING: {_T.WORSEN: _P.DEGRADED, _T.FAIL: _P.FAILED, _T.STOP: _P.DRAINING},
        _P.DEGRADED: {_T.RECOVER: _P.RUNNING, _T.FAIL: _P.FAILED, _T.STOP: _P.DRAINING},
        # Whichever way it goes when it was to go: it is not started again for that.
        _P.DRAINING: {_T.END: _P.STOPPED, _T.FAIL: _P.STOPPED},
        _P.STOPPED: {_T.RENEW: _P.DISCOVERED, _T.DISABLE: _P.DISABLED},
        _P.FAILED: {
            _T.BACK_OFF: _P.BACKING_OFF,
            _T.QUARANTINE: _P.QUARANTINED,
            _T.RENEW: _P.DISCOVERED,
            _T.DISABLE: _P.DISABLED,
        },
        _P.BACKING_OFF: {
            _T.RENEW: _P.DISCOVERED,
            _T.DISABLE: _P.DISABLED,
            _T.STOP: _P.STOPPED,
        },
        # No other way out: a new version, or one that was disabled and enabled, would be one
        # that whoever writes the plugin can take.
        _P.QUARANTINED: {_T.RELEASE: _P.DISCOVERED},
        _P.DISABLED: {_T.ENABLE: _P.DISCOVERED},
    }
)

FIRST: Final = PluginState.DISCOVERED

ENDS: Final = frozenset({_P.STOPPED, _P.FAILED, _P.QUARANTINED, _P.DISABLED})
"""Nothing follows by itself. FAILED is one for what was refused; what crashed leaves it at once,
with BACK_OFF or QUARANTINE, as `restart` decides."""

WAITING: Final = frozenset({_P.HELD, _P.ADMITTED, _P.BACKING_OFF})
"""It waits: for an operator, for the plugins that it needs, for a time."""

WITH_PROCESS: Final = frozenset({_P.STARTING, _P.RUNNING, _P.DEGRADED, _P.DRAINING})
"""It has a process, and may not be forgotten before that is gone. In all other states a plugin
whose files were removed is forgotten, which is no transition."""

TAKES_CALLS: Final = frozenset(s for s, one in STATES.items() if one.calls is Calls.TAKEN)

JOURNAL: Final[Mapping[Trigger, str]] = MappingProxyType(
    {
        _T.VERIFY: "verified",
        _T.REFUSE: "refused",
        _T.HOLD: "held",
        _T.APPROVE: "approved",
        _T.ADMIT: "admitted",
        _T.START: "starting",
        _T.READY: "started",
        _T.WORSEN: "degraded",
        _T.RECOVER: "recovered",
        _T.STOP: "stopping",
        _T.END: "unloaded",
        _T.FAIL: "failed",
        _T.BACK_OFF: "restart_due",
        _T.QUARANTINE: "quarantined",
        _T.RELEASE: "released",
        _T.RENEW: "discovered",
        _T.DISABLE: "disabled",
        _T.ENABLE: "enabled",
    }
)
"""The journal's event of each trigger. Those that the host wrote before there was this table have
the names that they had: `started`, `refused`, `unloaded` and the like."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of a life, for the journal and for subscribers.

    Attributes:
        at: reading of the clock that the caller goes by.
        reason: for people, one line; "" where the trigger says all.
    """

    plugin: str
    before: PluginState
    trigger: Trigger
    after: PluginState
    at: float
    reason: str = ""

    @property
    def journal_event(self) -> str:
        """Its name in the journal."""
        return JOURNAL[self.trigger]


@dataclass(frozen=True, slots=True)
class PluginLife:
    """Where one plugin stands; a step makes another of it.

    Attributes:
        plugin: its identity.
        since: when it came there, by the caller's clock.
        reason: why; "" where the state says all.
    """

    plugin: str
    state: PluginState = FIRST
    since: float = 0.0
    reason: str = ""

    def allows(self, trigger: Trigger) -> bool:
        """Tell whether the table has this trigger here."""
        return trigger in TABLE[self.state]

    def step(self, trigger: Trigger, now: float, reason: str = "") -> tuple[PluginLife, Transition]:
        """Return where it stands after a trigger, and what is to be told of that.

        Raises:
            UsageError: the table has no such trigger here, which is a bug of ours: ask `allows`
                about what the outside world brings.
        """
        after = advance(self.state, trigger)
        told = Transition(self.plugin, self.state, trigger, after, now, reason)
        return PluginLife(self.plugin, after, now, reason), told


def advance(state: PluginState, trigger: Trigger) -> PluginState:
    """Return the state after a trigger.

    Raises:
        UsageError: the table has no such trigger from here.
    """
    return machine.advance(TABLE, state, trigger, "a plugin")
