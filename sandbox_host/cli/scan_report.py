"""What `scan` found, as text for people and as JSON for scripts. Pure: values in, text out.

Paths and messages are a stranger's words, and are escaped here as each format demands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sandbox_host.cli.exits import Exit, exit_for, worst
from sandbox_host.cli.output import SCHEMA_VERSION, clean
from sandbox_host.errors import RefusedError
from sandbox_host.scan.finding import Finding, Severity, counted, counts
from sandbox_host.scan.rules import RULES, RULES_VERSION


@dataclass(frozen=True, slots=True)
class ScannedPlugin:
    """One plugin, scanned; or why it could not be.

    Attributes:
        path: where it is, as the command line named it.
        plugin: its identity; "" if it could not be scanned, as is `version`.
        error: why it could not be; None if it was.
        archive: it is one file, whose members nobody can point at.
    """

    path: str
    plugin: str = ""
    version: str = ""
    findings: tuple[Finding, ...] = ()
    error: RefusedError | None = None
    archive: bool = False

    def place(self, finding: Finding) -> str:
        """Return the path of the file that a finding is in, or of the archive."""
        return self.path if self.archive else f"{self.path}/{finding.path}"


@dataclass(frozen=True, slots=True)
class ScanReport:
    """One run of `scan`.

    Attributes:
        plugins: in the order in which they were named and found.
        fail_on: the least severity that changes the exit code; None for none.
        base: the absolute directory that relative paths start from.
        tool_version: of sandbox-host.
    """

    plugins: tuple[ScannedPlugin, ...]
    fail_on: Severity | None
    base: str
    tool_version: str

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those of all plugins."""
        return tuple(finding for plugin in self.plugins for finding in plugin.findings)

    @property
    def exit_code(self) -> Exit:
        """1 for what could not be scanned, or has a finding to fail on; otherwise 0."""
        codes = [exit_for(one.error) for one in self.plugins if one.error is not None]
        least = self.fail_on
        if least is not None and any(one.at_least(least) for one in self.findings):
            codes.append(Exit.REFUSED)
        return worst(codes)

    @property
    def summary(self) -> str:
        """How many plugins and findings there are."""
        noun = "plugin" if len(self.plugins) == 1 else "plugins"
        failed = sum(one.error is not None for one in self.plugins)
        told = f", {failed} not scanned" if failed else ""
        return f"{len(self.plugins)} {noun}{told}: {counted(self.findings)}"


def rule_name(finding: Finding) -> str:
    """Return the name of a finding's rule, such as "network-use"; bandit's have none of ours."""
    rule = RULES.get(finding.rule)
    return rule.name if rule else "bandit"


def render_text(report: ScanReport) -> str:
    """Return the report as text: a line for each plugin, and for each finding, as editors read."""
    lines = [line for plugin in report.plugins for line in _lines(plugin)]
    if len(report.plugins) > 1:
        lines += ["", report.summary]
    return "".join(f"{clean(line)}\n" for line in lines)


def _lines(plugin: ScannedPlugin) -> list[str]:
    if plugin.error is not None:
        return [f"{plugin.path}: NOT SCANNED ({plugin.error.code}): {plugin.error}"]
    told = counted(plugin.findings) if plugin.findings else "no findings"
    head = f"{plugin.path}: {plugin.plugin} {plugin.version}: {told}"
    return [head, *(_line(plugin, finding) for finding in plugin.findings)]


def _line(plugin: ScannedPlugin, finding: Finding) -> str:
    inside = f"({finding.path})" if plugin.archive else ""
    return (
        f"{plugin.place(finding)}{inside}:{finding.line}:{finding.column}: {finding.severity} "
        f"[{finding.rule} {rule_name(finding)}, confidence {finding.confidence}] {finding.message}"
    )


def render_json(report: ScanReport) -> str:
    """Return the report as JSON (RFC 8259), ASCII only, so that nothing can hide in it."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "rules_version": RULES_VERSION,
        "exit_code": int(report.exit_code),
        "plugins": [_plugin(plugin) for plugin in report.plugins],
    }
    return json.dumps(document, indent=2) + "\n"


def _plugin(plugin: ScannedPlugin) -> dict[str, Any]:
    if plugin.error is not None:
        error = {"code": plugin.error.code, "reason": clean(plugin.error.message)}
        return {"path": clean(plugin.path), "scanned": False, **error}
    return {
        "path": clean(plugin.path),
        "scanned": True,
        "plugin": plugin.plugin,
        "version": plugin.version,
        "counts": {str(severity): n for severity, n in counts(plugin.findings).items()},
        "findings": [_finding(finding) for finding in plugin.findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "name": rule_name(finding),
        "severity": str(finding.severity),
        "confidence": str(finding.confidence),
        "path": clean(finding.path),
        "line": finding.line,
        "column": finding.column,
        "message": clean(finding.message),
        "permission": finding.permission or None,
    }


def _render_sarif(report: ScanReport) -> str:
    from sandbox_host.cli.scan_sarif import render_sarif

    return render_sarif(report)


FORMATS: Final[Mapping[str, Callable[[ScanReport], str]]] = {
    "text": render_text,
    "json": render_json,
    "sarif": _render_sarif,
}
"""What ``--format`` may name."""
