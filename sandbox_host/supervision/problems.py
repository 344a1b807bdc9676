"""Why a plugin cannot start for want of others, as values and as sentences that name the chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sandbox_host.reading import escaped

_SHOWN_NAMES: Final = 24
_SHOWN: Final = 6
_MAX_REASON: Final = 200


@dataclass(frozen=True, slots=True)
class Wanted:
    """One dependency of one plugin, as its plugin.json has it.

    Attributes:
        plugin: whose it is.
        name: of a plugin, of a capability, or ``core_framework``.
        versions: the range, such as ``>=1.0.0``; "" for any.
    """

    plugin: str
    name: str
    versions: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.versions}".rstrip()


@dataclass(frozen=True, slots=True)
class Problem:
    """One dependency that cannot be had.

    Attributes:
        plugin: who cannot start for it.
        chain: from that plugin to what is at fault, each needing the next one; of a cycle, the
            last name is one that stood in the chain before.
    """

    plugin: str
    chain: tuple[str, ...]

    @property
    def fault(self) -> str:
        """What is wrong at the end of the chain, without a full stop."""
        return "it cannot be had"

    @property
    def text(self) -> str:
        """All of it in one sentence, safe to show; of a very long chain both ends."""
        return f"{self.plugin} cannot start: {shown_chain(self.chain)}: {self.fault}."


@dataclass(frozen=True, slots=True)
class Missing(Problem):
    """Nothing of that name is there.

    Attributes:
        wanted: the dependency at the end of the chain.
    """

    wanted: Wanted

    @property
    def fault(self) -> str:
        """What is wrong."""
        of_it = "and there is no plugin or capability of that name"
        return f"{self.wanted.plugin} needs {self.wanted}, {of_it}"


@dataclass(frozen=True, slots=True)
class Conflict(Problem):
    """What is there has no version that is wanted.

    Attributes:
        wanted: the dependency at the end of the chain.
        others: who else wants something of that name, and which versions, by name.
        there: what is there: plugins by name, each with its version.
    """

    wanted: Wanted
    others: tuple[Wanted, ...]
    there: tuple[tuple[str, str], ...]

    @property
    def fault(self) -> str:
        """What is wrong."""
        there = _listed([f"{name} {version}" for name, version in self.there])
        told = f"{self.wanted.plugin} needs {self.wanted}, and there is {there}"
        if not self.others:
            return told
        others = _listed([f"{one.plugin} wants {one.versions or 'any'}" for one in self.others])
        return f"{told} ({others})"


@dataclass(frozen=True, slots=True)
class Unusable(Problem):
    """It is there, and does not run.

    Attributes:
        wanted: the dependency at the end of the chain.
        reason: why it does not, as the caller gave it.
    """

    wanted: Wanted
    reason: str

    @property
    def fault(self) -> str:
        """What is wrong."""
        return f"{self.chain[-1]} does not run: {escaped(self.reason, _MAX_REASON).rstrip('.')}"


@dataclass(frozen=True, slots=True)
class Cycle(Problem):
    """Each waits for the next one, and the last one for one of them.

    Attributes:
        members: the plugins of the cycle, each once, in their order.
    """

    members: tuple[str, ...]

    @property
    def fault(self) -> str:
        """What is wrong."""
        if len(self.members) == 1:
            return f"{self.members[0]} needs itself"
        return f"{_listed(list(self.members))} need each other"


def shown_chain(chain: tuple[str, ...]) -> str:
    """Return a chain as ``a -> b -> c``; of one of more than 24 names the first and the last."""
    if len(chain) <= _SHOWN_NAMES:
        return " -> ".join(chain)
    half = _SHOWN_NAMES // 2
    left_out = f"({len(chain) - 2 * half} more)"
    return " -> ".join((*chain[:half], left_out, *chain[-half:]))


def _listed(words: list[str]) -> str:
    shown, more = words[:_SHOWN], len(words) - _SHOWN
    if more > 0:
        shown.append(f"{more} more")
    if len(shown) == 1:
        return shown[0]
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
