"""The smallest permissions and limits that a trial needed, as changes of plugin.json. Pure.

A permission is proposed if it was used, and asked for if it was refused. A limit that plugin.json
names is left as it is while it has room above what was seen and is not many times that: another
machine is slower, and other inputs are larger. Otherwise it is what was seen with headroom, rounded
up to a number that people write.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sandbox_host.model import MIB, Limits, Permissions
from sandbox_host.reading import BadValueError
from sandbox_host.terms import LIMIT_KEYS, pattern_covers, read_permissions

if TYPE_CHECKING:
    from sandbox_host.model import Denial, Manifest

LISTS: Final = (
    *("publish", "subscribe", "read", "write", "network", "unix", "env", "services", "calls"),
)
FLAGS: Final = ("native_code", "subprocess", "threads")

_ENOUGH: Final = 1.25
"""A limit that is so many times what was seen has room."""


@dataclass(frozen=True, slots=True)
class _Measure:
    """How a limit follows from a peak.

    Attributes:
        headroom: so many times what was seen is proposed,
        least: and this at least.
        slack: a limit that is no more than so many times the proposal is left as it is.
        unasked: it is proposed where plugin.json does not name it, if that is less than half of
            the default.
    """

    headroom: float
    least: float
    slack: float
    unasked: bool = False


_MEASURES: Final[Mapping[str, _Measure]] = MappingProxyType(
    {
        "memory_bytes": _Measure(2, 64 * MIB, 4, unasked=True),
        # Of time, another machine takes many times as much.
        "cpu_seconds": _Measure(10, 1, 20, unasked=True),
        "wall_seconds": _Measure(10, 2, 20, unasked=True),
        "descriptors": _Measure(2, 32, 4, unasked=True),
        "threads": _Measure(2, 4, 4),
        "file_bytes": _Measure(4, MIB, 16),
        "data_bytes": _Measure(4, MIB, 16),
        "data_files": _Measure(4, 16, 16),
    }
)


@dataclass(frozen=True, slots=True)
class Needed:
    """What a trial needed; see `sandbox_host.runtime.trace.Trace`, which has the same names."""

    published: Collection[str]
    handles: Collection[str]
    used: Collection[tuple[str, str]]
    denied: Collection[Denial]
    peaks: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Proposal:
    """What plugin.json should say; only what differs.

    Attributes:
        permissions: by key, the new list or true; None removes the key.
        limits: by key, the new value as JSON; None removes the key.
        events: the new list, or None to leave it.
        notes: why, in sentences, for what plugin.json does not ask for yet, or cannot.
    """

    permissions: Mapping[str, list[str] | bool | None]
    limits: Mapping[str, str | None]
    events: list[str] | None
    notes: tuple[str, ...]


def propose(manifest: Manifest, needed: Needed, named: Collection[str]) -> Proposal:
    """Return what to change.

    Args:
        manifest: what plugin.json says.
        needed: what a trial needed.
        named: the permissions that plugin.json names, if only with an empty list.
    """
    wishes, notes = _wishes(needed.denied)
    permissions: dict[str, list[str] | bool | None] = {}
    for key in LISTS:
        before = list(getattr(manifest.permissions, key))
        if key not in named:
            before = []
        after = _entries(key, before, needed)
        after += [entry for entry in wishes.get(key, ()) if entry not in after]
        if after != before:
            permissions[key] = after or None
    for key in FLAGS:
        wanted = key in wishes or (key, "") in needed.used or _peaked(key, manifest, needed)
        if wanted is not getattr(manifest.permissions, key):
            permissions[key] = wanted or None
    events = [event for event in manifest.events if event in needed.handles]
    threads = permissions.get("threads", manifest.permissions.threads) is True
    return Proposal(
        permissions=permissions,
        limits=_limits(manifest, needed.peaks, threads=threads),
        events=events if events != list(manifest.events) else None,
        notes=notes,
    )


def _entries(key: str, before: list[str], needed: Needed) -> list[str]:
    """Return the requested entries that were used, in their order."""
    if key == "subscribe":
        return [one for one in before if any(pattern_covers(one, e) for e in needed.handles)]
    if key in {"publish", "calls"}:
        used = {entry for rule, entry in needed.used if rule == key}
        used |= set(needed.published) if key == "publish" else set()
        kept = [one for one in before if one in used]
        # A pattern gives way to what it stood for.
        return kept + sorted(one for one in used if one not in kept)
    return [one for one in before if (key, one) in needed.used]


def _peaked(key: str, manifest: Manifest, needed: Needed) -> bool:
    """Tell whether what the host saw says that a flag is needed: C starts threads unheard."""
    return key == "threads" and manifest.permissions.threads and needed.peaks.get(key, 1) > 1


def _wishes(denied: Collection[Denial]) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Return what was refused and can be asked for, by permission, and a note for each."""
    wishes: dict[str, list[str]] = {}
    notes = []
    for one in denied:
        if one.request and (one.rule in FLAGS or _is_entry(one.rule, one.asked)):
            entries = wishes.setdefault(one.rule, [])
            if one.rule in LISTS and one.asked not in entries:
                entries.append(one.asked)
            notes.append(f"{one.request} is added, for the plugin's word alone: {one.text}.")
        else:
            notes.append(f"nothing is added, and it was refused: {one.text}.")
    return wishes, tuple(notes)


def _is_entry(key: str, entry: str) -> bool:
    try:
        read: Permissions = read_permissions({key: [entry]}, "permissions")
    except BadValueError:
        return False
    return bool(getattr(read, key))


# -- limits ------------------------------------------------------------------------------------


def _limits(
    manifest: Manifest, peaks: Mapping[str, float], *, threads: bool
) -> dict[str, str | None]:
    changes: dict[str, str | None] = {}
    for key in LIMIT_KEYS:
        measure, value = _MEASURES.get(key.field), manifest.limits.get(key.field)
        if key.field == "threads" and not threads:
            if value is not None:
                changes[key.key] = None  # it means nothing without the permission
            continue
        if measure is None or key.field not in peaks:
            continue
        peak = peaks[key.field]
        wanted = max(float(key.minimum), _rounded(key.field, peak, measure))
        if value is None:
            default = getattr(Limits(), key.field)
            if peak * _ENOUGH > default or (measure.unasked and wanted < default / 2):
                changes[key.key] = key.text(wanted)
        elif not peak * _ENOUGH <= value <= measure.slack * wanted:
            changes[key.key] = key.text(wanted)
    return changes


def _rounded(name: str, peak: float, measure: _Measure) -> float:
    amount = max(measure.least, peak * measure.headroom)
    return (
        _next_of_125(amount)
        if name.endswith("_seconds")
        else math.pow(2, math.ceil(math.log2(amount)))
    )


def _next_of_125(amount: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, 50 and so on."""
    power = math.pow(10.0, math.floor(math.log10(amount)))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= amount * (1 - 1e-9))
