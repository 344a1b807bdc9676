"""Scans of sources written in tests, read in the test's own process: those are no strangers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sandbox_host.model import Permissions
from sandbox_host.scan.finding import Finding
from sandbox_host.scan.plugin.examine import examine
from sandbox_host.scan.scan import scan
from sandbox_host.scan.sightings import Sighting, read_sightings


def read_here(sources: Mapping[str, bytes]) -> Iterator[Sighting]:
    """Read sources as the process in the sandbox does, with the same code."""
    for path, data in sources.items():
        yield from read_sightings(examine(data), path, data)


def findings_in(
    source: str | bytes, permissions: Permissions | None = None, path: str = "main.py"
) -> tuple[Finding, ...]:
    """Return what a scan finds in one source."""
    data = source.encode() if isinstance(source, str) else source
    return scan({path: data}, permissions or Permissions(), read_here)


def rules_in(source: str | bytes, permissions: Permissions | None = None) -> list[tuple[str, int]]:
    """Return rule and line of each finding."""
    return [(one.rule, one.line) for one in findings_in(source, permissions)]
