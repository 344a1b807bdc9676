"""The scan: sources to whoever reads them, what was seen beside what is asked for, findings out.

Pure but for the reader, which is handed in: it runs in the sandbox, because a parser is no place
to meet a stranger (`sandbox_host.runtime.scanner`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from sandbox_host.bundle.contents import MANIFEST_NAME
from sandbox_host.bundle.rules import native_code_in
from sandbox_host.model import MIB, Permissions
from sandbox_host.reading import shown_bytes
from sandbox_host.scan.coverage import covers, uses
from sandbox_host.scan.finding import Finding, in_order
from sandbox_host.scan.rules import RULES
from sandbox_host.scan.sightings import Sighting

MAX_SOURCE_BYTES: Final = MIB
"""Of one file; its syntax tree takes several hundred times as much memory."""

SUFFIXES: Final = (".py", ".pyw")
_PICKLE: Final = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))

Reader = Callable[[Mapping[str, bytes]], Iterable[Sighting]]
"""Reads sources by path, and returns what it saw, checked; what it cannot read, it says."""


def scan(
    files: Mapping[str, bytes], permissions: Permissions, reader: Reader
) -> tuple[Finding, ...]:
    """Compare what a plugin's sources reach for with what its plugin.json asks for.

    Nothing of it says that a plugin is harmless.

    Args:
        files: all files of the plugin by path, checked by `bundle.rules.check_contents`.
        permissions: plugin.json's.
        reader: reads the sources.

    Returns:
        Findings by file, line, column and rule; the same for the same files.
    """
    sources = {path: files[path] for path in sorted(files) if is_source(path)}
    small = {path: data for path, data in sources.items() if len(data) <= MAX_SOURCE_BYTES}
    seen = list(reader(small))
    seen += [_too_large(path, data) for path, data in sources.items() if path not in small]
    seen += [
        Sighting(path, 1, 1, "SH253", "")
        for path, data in files.items()
        if path not in sources and data.startswith(_PICKLE) and data.endswith(b".")
    ]
    told = [_finding(one) for one in seen if not covers(permissions, one.rule, one.what)]
    return in_order({*told, *_unused(files, permissions, seen)})


def is_source(path: str) -> bool:
    """Tell whether a file is Python source by its name, whatever its letter case."""
    return path.lower().endswith(SUFFIXES)


def _too_large(path: str, data: bytes) -> Sighting:
    size, most = shown_bytes(len(data)), shown_bytes(MAX_SOURCE_BYTES)
    return Sighting(path, 1, 1, "SH406", f"it has {size}, and {most} are the most")


def _finding(seen: Sighting) -> Finding:
    rule = RULES[seen.rule]
    message = rule.text.replace("{what}", seen.what)
    if rule.permission:
        message += f"; plugin.json does not ask for that (permissions.{rule.permission})"
    return Finding(
        rule=rule.id,
        severity=rule.severity,
        confidence=rule.confidence,
        path=seen.path,
        line=seen.line,
        column=seen.column,
        message=message,
        permission=rule.permission,
    )


def _unused(
    files: Mapping[str, bytes], permissions: Permissions, seen: Iterable[Sighting]
) -> Iterable[Finding]:
    for name, entry in uses(permissions, ((one.rule, one.what) for one in seen)):
        if name == "native_code" and any(native_code_in(*file) for file in files.items()):
            continue
        what = f"permissions.{name}" + (f" {entry}" if entry else "")
        yield _finding(Sighting(MANIFEST_NAME, 1, 1, "SH501", what))
