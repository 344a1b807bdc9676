"""A report as workflow commands of GitHub Actions: one annotation for each refused plugin.

Format: "Workflow commands for GitHub Actions". The runner takes every line that begins with ``::``
for a command, so whatever is not ours in one is escaped as the runner undoes it: ``%``, carriage
return and line feed in the message; ``:`` and ``,`` as well in a property. The older form of a
command, ``##[...]``, is looked for anywhere in a line that is no command of the newer form.
"""

from __future__ import annotations

from typing import Final

from sandbox_host.cli.output import clean
from sandbox_host.cli.reports.model import Report, Verdict

# The percent sign comes first: what the others are replaced with holds one.
_IN_MESSAGE: Final = (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"))
_IN_PROPERTY: Final = (*_IN_MESSAGE, (":", "%3A"), (",", "%2C"))


def render_github(report: Report) -> str:
    """Return an annotation a line, then a line for the log that counts the verdicts."""
    lines = [_annotation(report, verdict) for verdict in report.refused]
    return "".join(f"{line}\n" for line in [*lines, report.summary])


def _annotation(report: Report, verdict: Verdict) -> str:
    told = [verdict.reason, *_hashes(verdict), *_signers(verdict), verdict.remedy]
    if verdict.command:
        told.append(f"Next: {verdict.command}")
    # A line of the message each, and no line of anybody else's.
    message = "\n".join(clean(line) for line in told if line)
    properties = {
        "file": report.relative(verdict.pointed_at),
        "line": "1",
        "title": f"{verdict.path}: not verified ({verdict.code})",
    }
    given = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::error {given}::{_escaped(message, _IN_MESSAGE)}"


def _hashes(verdict: Verdict) -> list[str]:
    if verdict.file is None:
        return []
    return [
        f"File: {verdict.file.path}",
        f"SHA-256 signed: {verdict.file.signed or 'none'}",
        f"SHA-256 found: {verdict.file.found or 'none'}",
    ]


def _signers(verdict: Verdict) -> list[str]:
    return [
        f"Claims key: {one.key or 'none'}{f', {one.label}' if one.label else ''}"
        for one in verdict.signers
    ]


def _property(text: str) -> str:
    return _escaped(clean(text), _IN_PROPERTY)


def _escaped(text: str, table: tuple[tuple[str, str], ...]) -> str:
    for character, replacement in table:
        text = text.replace(character, replacement)
    return text
