"""Findings as SARIF 2.1.0 (OASIS, with errata 01): one run, a result for each finding."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Final

from sandbox_host.cli.output import PROGRAM, clean
from sandbox_host.cli.reports.model import Report
from sandbox_host.cli.reports.sarif import SCHEMA, artifact_location, message_text
from sandbox_host.cli.scan_report import ScannedPlugin, ScanReport, rule_name
from sandbox_host.scan.finding import Finding, Severity
from sandbox_host.scan.rules import RULES

FINGERPRINT: Final = "sandboxHostFinding/v1"
_SCORES: Final = {Severity.HIGH: "8.0", Severity.MEDIUM: "5.0", Severity.LOW: "2.0"}
"""0 to 10, as code scanning sorts alerts (7 and more: high, 4 and more: medium)."""


def render_sarif(report: ScanReport) -> str:
    """Return the report as one SARIF log, ASCII only.

    A plugin that could not be scanned is a notification (3.58), and the run did not succeed.
    """
    used = {one.rule: one for one in report.findings}
    places = {rule: index for index, rule in enumerate(sorted(used))}
    paths = Report((), "", report.base, report.tool_version)
    driver = {
        "name": f"{PROGRAM} scan",
        "version": report.tool_version,
        "semanticVersion": report.tool_version,
        "rules": [_descriptor(used[rule]) for rule in places],
    }
    failed = [one for one in report.plugins if one.error is not None]
    invocation = {
        "executionSuccessful": not failed,
        "exitCode": int(report.exit_code),
        "toolExecutionNotifications": [_notification(one) for one in failed],
    }
    run = {
        "tool": {"driver": driver},
        "invocations": [invocation],
        "columnKind": "unicodeCodePoints",
        "results": [
            _result(paths, plugin, finding, places[finding.rule], number)
            for plugin in report.plugins
            for finding, number in _numbered(plugin.findings)
        ],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _descriptor(finding: Finding) -> dict[str, Any]:
    """Return a rule as a reportingDescriptor (3.49)."""
    rule = RULES.get(finding.rule)
    text = rule.text.replace("{what}", "a name") if rule else "A finding of bandit's"
    severity = rule.severity if rule else finding.severity
    return {
        "id": finding.rule,
        "name": "".join(part.title() for part in rule_name(finding).split("-")),
        "shortDescription": {"text": message_text(f"{text}.")},
        "properties": {"tags": ["security"], "security-severity": _SCORES[severity]},
    }


def _notification(plugin: ScannedPlugin) -> dict[str, Any]:
    reason = str(plugin.error)
    return {"level": "error", "message": {"text": message_text(f"{plugin.path}: {reason}")}}


def _result(
    paths: Report, plugin: ScannedPlugin, finding: Finding, rule_index: int, number: int
) -> dict[str, Any]:
    place = paths.relative(plugin.place(finding))
    region = {"startLine": 1}
    if not plugin.archive:
        region = {"startLine": finding.line, "startColumn": finding.column}
    physical = {"artifactLocation": artifact_location(place), "region": region}
    return {
        "ruleId": finding.rule,
        "ruleIndex": rule_index,
        "level": finding.level,
        "message": {"text": message_text(f"{finding.path}: {finding.message}.")},
        "locations": [{"physicalLocation": physical}],
        "partialFingerprints": {FINGERPRINT: _fingerprint(place, finding, number)},
        "properties": {
            "plugin": clean(plugin.plugin),
            "confidence": str(finding.confidence),
            "permission": finding.permission,
        },
    }


def _numbered(findings: Iterable[Finding]) -> Iterable[tuple[Finding, int]]:
    """Yield each finding with how many the same file had of the same kind before it."""
    seen: dict[tuple[str, str, str], int] = {}
    for finding in findings:
        key = (finding.path, finding.rule, finding.message)
        seen[key] = seen.get(key, 0) + 1
        yield finding, seen[key]


def _fingerprint(place: str, finding: Finding, number: int) -> str:
    """Return what makes this the result of an earlier run: not the line, which moves."""
    parts = (finding.rule, place, finding.path, finding.message, str(number))
    return hashlib.sha256("\0".join(parts).encode("utf-8", "backslashreplace")).hexdigest()
