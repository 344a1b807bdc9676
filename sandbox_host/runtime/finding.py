"""Which plugin to use, where what counts is what it can do and not what it is called.

Capabilities are in the signed plugin.json. A plugin's kind and its operations are its own word: who
asks for them gets what fits in form, not what is trusted for it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sandbox_host.errors import (
    BackpressureError,
    KindMismatchError,
    NoSuchCapabilityError,
    PluginError,
    SandboxHostError,
    UsageError,
)
from sandbox_host.health.verdict import HealthStatus
from sandbox_host.ipc.calls import Pending
from sandbox_host.model import State, identity_of
from sandbox_host.reading import escaped, quoted
from sandbox_host.runtime.healthcheck import HEALTH_CHECK, ask, judge_health

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox_host.runtime.process import PluginProcess

ASKING_SECONDS: Final = 2.0
"""How long one plugin may take to say how it is before the next one is asked."""

KIND_OPERATIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "Model": ("predict", "train", "evaluate"),
        "DataSource": ("connect", "disconnect", "read", "write"),
        "Pipeline": ("stages", "add_stage", "process"),
    }
)
"""The kinds, and what they offer; the same as in `plugin_sdk.kinds`."""

NATURAL_KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ai_model": "Model",
        "data_source": "DataSource",
        "pipeline": "Pipeline",
        "data_pipeline": "Pipeline",
    }
)
"""Capabilities that name a kind."""

_CAPABILITY: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_MAX_WHY: Final = 200
_TOLD: Final = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """What there is to know of a plugin without asking it.

    Attributes:
        kind: "Model", "DataSource", "Pipeline", or "" for a plugin of plain functions.
        trouble: why it takes no calls; "" where it does.
    """

    identity: str
    capabilities: Collection[str] = ()
    kind: str = ""
    operations: Collection[str] = ()
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for. Make it with `of`.

    Attributes:
        kind: None for any.
        operation: None for any.
        exclude: identities.
    """

    capability: str
    kind: str | None = None
    operation: str | None = None
    exclude: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        capability: str,
        kind: str | None = None,
        operation: str | None = None,
        exclude: Collection[str] = (),
    ) -> Wanted:
        """Return it, with the kind that the capability names where none is given.

        Raises:
            UsageError: no plugin can have that capability, or there is no such kind.
        """
        if not _is_capability(capability):
            text = f"{capability!r:.80} cannot be a capability."
            raise UsageError(text, remedy='It is a name as in plugin.json, such as "ai_model".')
        if kind is not None and kind not in KIND_OPERATIONS:
            text = f"{kind!r:.80} is no kind of plugin."
            raise UsageError(text, remedy=f"The kinds are {', '.join(KIND_OPERATIONS)}.")
        names = (exclude,) if isinstance(exclude, str) else exclude
        excluded = frozenset(identity_of(name) for name in names)
        return cls(capability, kind or NATURAL_KINDS.get(capability), operation, excluded)

    def is_mismatch(self, candidate: Candidate) -> bool:
        """Tell whether a plugin is of another kind.

        One of plain functions is of each kind that it offers an operation of.
        """
        if self.kind is None or candidate.kind == self.kind:
            return False
        offers = set(KIND_OPERATIONS[self.kind]) & set(candidate.operations)
        return bool(candidate.kind) or not offers

    def objection(self, candidate: Candidate) -> str:
        """Return why a plugin that has the capability is not used; "" where it may be asked."""
        if candidate.identity in self.exclude:
            return "it is excluded"
        if candidate.trouble:
            return candidate.trouble
        if self.is_mismatch(candidate):
            return f"it is {_a(candidate.kind)}, not {_a(self.kind or '')}"
        if self.operation is not None and self.operation not in candidate.operations:
            return f"it has no operation {quoted(self.operation)}"
        return ""


def _is_capability(name: object) -> bool:
    return isinstance(name, str) and _CAPABILITY.fullmatch(name) is not None


def _a(kind: str) -> str:
    return f"a {kind}" if kind else "of no kind"


def none_found(
    wanted: Wanted, candidates: Sequence[Candidate], reasons: Sequence[tuple[str, str]]
) -> SandboxHostError:
    """Return the error where nothing can be used.

    Args:
        wanted: what was looked for.
        candidates: all loaded plugins, in load order.
        reasons: those that have the capability, each with why it is not used.
    """
    having = [one for one in candidates if wanted.capability in one.capabilities]
    # Of one that takes no calls, nobody knows what it offered.
    asked = [one for one in having if not one.trouble and one.identity not in wanted.exclude]
    if wanted.kind is not None and asked and all(map(wanted.is_mismatch, asked)):
        first = asked[0]
        those = ", ".join(f"{one.identity} is {_a(one.kind)}" for one in asked[:_TOLD])
        text = f'A {wanted.kind} with the capability "{wanted.capability}" is wanted: {those}.'
        remedy = "Load another, or say which kind will do (kind=)."
        return KindMismatchError(
            text, plugin=first.identity, wanted=wanted.kind, found=first.kind, remedy=remedy
        )
    if not having:
        known = sorted({name for one in candidates for name in one.capabilities})
        there = f"those that are have {', '.join(known[:_TOLD])}" if known else "none has any"
        text = f'No plugin with the capability "{wanted.capability}" is loaded; {there}.'
        return NoSuchCapabilityError(text, capability=wanted.capability, remedy="Load one.")
    told = "; ".join(f"{identity}: {why}" for identity, why in reasons[:_TOLD])
    more = f"; and {len(reasons) - _TOLD} more" if len(reasons) > _TOLD else ""
    text = f'No plugin with the capability "{wanted.capability}" can be used now: {told}{more}.'
    return NoSuchCapabilityError(
        text,
        capability=wanted.capability,
        reasons=tuple(reasons),
        remedy="Load one of them again, or another.",
    )


# -- of the plugins that are there ---------------------------------------------------------------


def candidate_of(process: PluginProcess) -> Candidate:
    """Return what there is to know of a plugin without asking it."""
    interface, trouble = process.interface, ""
    if process.state is not State.READY or interface is None:
        trouble = process.cause_text.rstrip(".") or f"it is {process.state}"
    return Candidate(
        process.identity,
        process.plan.manifest.capabilities,
        interface.kind if interface else "",
        interface.operations if interface else (),
        trouble,
    )


def fitting(wanted: Wanted, processes: Iterable[PluginProcess]) -> list[PluginProcess]:
    """Return those that may be asked, in their order."""
    found = []
    for process in processes:
        candidate = candidate_of(process)
        if wanted.capability in candidate.capabilities and not wanted.objection(candidate):
            found.append(process)
    return found


class Search:
    """One search: `ask` each of `due`, until the search `accepts` one; else there is `otherwise`.

    Args:
        wanted: what is looked for.
        processes: all loaded plugins, in load order.

    Attributes:
        due: those to ask, in that order.
    """

    def __init__(self, wanted: Wanted, processes: Sequence[PluginProcess]) -> None:
        self._wanted = wanted
        self._candidates = [candidate_of(process) for process in processes]
        self._why: dict[str, str] = {}
        self._busy: list[PluginProcess] = []
        self._asked: Pending | PluginError | None = None
        self.due: list[PluginProcess] = []
        for process, candidate in zip(processes, self._candidates, strict=True):
            if wanted.capability in candidate.capabilities:
                self._why[candidate.identity] = why = wanted.objection(candidate)
                if not why:
                    self.due.append(process)

    def ask(self, process: PluginProcess) -> Pending | None:
        """Ask one of `due` how it is; return what is to be waited for, `ASKING_SECONDS` at most."""
        # One that has not answered the last time is not asked again: questions would pile up.
        waiting = process.channel.outstanding()
        earlier = next((one for one in waiting if one.operation == HEALTH_CHECK), None)
        self._asked = asked = earlier or ask(process)
        if not isinstance(asked, Pending):
            return None
        # The host asks now and then as well: what it has just asked is waited for.
        return asked if time.monotonic() - asked.sent_at < ASKING_SECONDS else None

    def accepts(self, process: PluginProcess) -> bool:
        """Tell whether the plugin that was asked last is the one."""
        asked = self._asked
        busy = isinstance(asked, BackpressureError)
        if isinstance(asked, Pending) and not asked.done():
            if asked.started_at:
                why = f"it did not answer its health check within {ASKING_SECONDS:g} s"
                self._why[process.identity] = why
                return False
            busy = True
        # Who is busy cannot say anything; then the host's own facts alone count.
        verdict = judge_health(process, None if busy else asked)
        if verdict.status is HealthStatus.UNHEALTHY:
            self._why[process.identity] = escaped(verdict.message, _MAX_WHY)
        elif busy:
            self._why[process.identity] = "it is busy"
            self._busy.append(process)
        else:
            return True
        return False

    def otherwise(self) -> PluginProcess:
        """Return the first that is busy, where there is no other.

        Raises:
            NoSuchCapabilityError: there is none.
            KindMismatchError: there are some, of another kind.
        """
        if self._busy:
            return self._busy[0]
        raise none_found(self._wanted, self._candidates, list(self._why.items()))
