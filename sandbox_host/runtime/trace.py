"""What one trial of a plugin needed: its uses, its refusals and its peaks, as one value.

Peaks, published types and connections are the host's own measurements; which granted entries were
used, and what was refused and caught inside, the plugin's process tells.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, Self

from plugin_sdk.wire.services import CALL_PREFIX
from sandbox_host.model import Denial
from sandbox_host.runtime.observed import Observed

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox_host.runtime.process import PluginProcess
    from sandbox_host.runtime.throwaway import ThrowawayHost

TRACE_VARIABLE: Final = "SANDBOX_HOST_TRACE"
"""Names the file to which the fixture `sandbox` writes what each plugin needed."""

MAX_LINE_BYTES: Final = 1024 * 1024
_MAX_NAMES: Final = 100_000


@dataclass(frozen=True, slots=True)
class Trace:
    """What was seen of one plugin, in one process or in several.

    Attributes:
        plugin: its identity.
        published: event types that it published.
        handles: event types that it has handlers for.
        used: ``(permission, entry)`` of what is in force and was used; "" for a flag.
        denied: what it was refused, by its own word.
        denied_by_host: what the host refused, in sentences.
        peaks: by field of `Limits`, the most that was seen.
        problem: why not all of this is known, in a sentence; "" where it is.
    """

    plugin: str
    published: frozenset[str] = frozenset()
    handles: frozenset[str] = frozenset()
    used: frozenset[tuple[str, str]] = frozenset()
    denied: tuple[Denial, ...] = ()
    denied_by_host: tuple[str, ...] = ()
    peaks: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""

    def line(self) -> str:
        """Return it as one line of JSON, with the line's end."""
        told = {
            **{one.name: getattr(self, one.name) for one in fields(self)},
            "published": sorted(self.published),
            "handles": sorted(self.handles),
            "used": sorted(self.used),
            "denied": [asdict(one) for one in self.denied],
            "peaks": dict(self.peaks),
        }
        return json.dumps(told) + "\n"

    @classmethod
    def of_line(cls, line: str) -> Self:
        """Return what `line` wrote.

        Raises:
            ValueError: it was not.
        """
        try:
            told: dict[str, Any] = json.loads(line)
            sets = {key: frozenset(told[key]) for key in ("published", "handles")}
            used = frozenset((rule, entry) for rule, entry in told["used"])
            denied = tuple(Denial(**one) for one in told["denied"])
            lists = {"denied": denied, "denied_by_host": tuple(told["denied_by_host"])}
            return cls(**{**told, **sets, **lists, "used": used})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it is no trace: {error}") from None


def merged(traces: Iterable[Trace]) -> Trace:
    """Return what several trials of one plugin needed together; of one at least."""
    first, *others = traces
    peaks = dict(first.peaks)
    denied = {(one.rule, one.asked): one for one in first.denied}
    by_host = dict.fromkeys(first.denied_by_host)
    for one in others:
        for name, peak in one.peaks.items():
            peaks[name] = max(peak, peaks.get(name, 0.0))
        denied |= {(it.rule, it.asked): it for it in one.denied}
        by_host |= dict.fromkeys(one.denied_by_host)
    every = (first, *others)
    return Trace(
        plugin=first.plugin,
        published=frozenset().union(*(one.published for one in every)),
        handles=frozenset().union(*(one.handles for one in every)),
        used=frozenset().union(*(one.used for one in every)),
        denied=tuple(denied.values()),
        denied_by_host=tuple(by_host),
        peaks=peaks,
        problem=next((one.problem for one in every if one.problem), ""),
    )


def take(host: ThrowawayHost, process: PluginProcess) -> Trace:
    """Unload a plugin that was loaded for a trial, and return what it needed.

    Args:
        host: one that observes.
        process: a plugin in it.
    """
    identity = process.identity
    usage = process.usage()
    host.unload(process)
    seen = host.observed.get(identity)
    observed = seen or Observed()
    problem = ""
    if seen is None:
        problem = process.cause_text or f"{identity} did not say what it used."
    granted = process.plan.permissions
    seen_by_host = {
        *(("network", one) for one in host.core.connections[identity] if one in granted.network),
        *(("services", one) for one in host.core.services[identity] if one in granted.services),
        *(("calls", one[1:]) for one in host.core.services[identity] if one[:1] == CALL_PREFIX),
    }
    reports = {(one.rule, one.asked): one for one in observed.denied}
    reports |= {(one.rule, one.asked): one for one in host.core.reports[identity]}
    operations = process.ledger.operations().values()
    in_operations = sum(one.cpu_seconds for one in operations)
    peaks = {
        "memory_bytes": usage.memory_peak_bytes,
        # What is left is the start, or an event's handlers, which have the same budget.
        "cpu_seconds": max(
            usage.cpu_seconds - in_operations,
            *(one.cpu_peak_seconds for one in operations),
            0.0,
        ),
        "wall_seconds": max((one.latency.maximum for one in operations), default=0.0),
        "descriptors": usage.descriptors_peak,
        "threads": usage.threads_peak,
        **_disk(process.data_dir),
    }
    return Trace(
        plugin=identity,
        published=frozenset(host.core.published_types[identity]),
        handles=frozenset(process.interface.handles if process.interface else ()),
        used=observed.used | seen_by_host,
        denied=tuple(reports.values()),
        denied_by_host=tuple(host.core.denials[identity]),
        peaks=peaks,
        problem=problem,
    )


def _disk(directory: Path) -> dict[str, float]:
    """Return what is in a data directory: the largest file, all of them, and how many names."""
    largest = total = names = 0
    for above, directories, files in os.walk(directory):
        for name in (*directories, *files):
            names += 1
            if names > _MAX_NAMES:
                break
            try:
                status = os.lstat(os.path.join(above, name))
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                largest = max(largest, status.st_size)
                total += status.st_blocks * 512
    return {"file_bytes": largest, "data_bytes": total, "data_files": names}
