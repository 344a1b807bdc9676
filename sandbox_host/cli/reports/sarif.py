"""A report as SARIF 2.1.0 (OASIS, with errata 01), which code scanning services take.

One run, a result for each refused plugin, an empty list of results where all are verified: the
exit code tells as well, and services close what an earlier run reported.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final
from urllib.parse import quote_from_bytes

from sandbox_host.cli.output import PROGRAM, clean
from sandbox_host.cli.reports.model import Report, Verdict
from sandbox_host.cli.reports.sarif_rules import RULES, rule_for

SCHEMA: Final = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_SOURCE_ROOT: Final = "%SRCROOT%"
"""What code scanning services call the root of the checkout; each resolves it for itself."""

FINGERPRINT: Final = "sandboxHostVerdict/v1"
_UNRESERVED: Final = "/-._~"


def render_sarif(report: Report) -> str:
    """Return the report as one SARIF log, ASCII only."""
    rules = {rule.id: rule for rule in RULES}
    for verdict in report.refused:
        rules.setdefault(verdict.code, rule_for(verdict.code))
    places = {code: index for index, code in enumerate(rules)}
    driver = {
        "name": PROGRAM,
        "version": report.tool_version,
        "semanticVersion": report.tool_version,
        "rules": [rule.descriptor() for rule in rules.values()],
    }
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": True, "exitCode": int(report.exit_code)}],
        "columnKind": "unicodeCodePoints",
        "results": [_result(report, one, places[one.code]) for one in report.refused],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _result(report: Report, verdict: Verdict, rule_index: int) -> dict[str, Any]:
    place = report.relative(verdict.pointed_at)
    physical = {"artifactLocation": artifact_location(place), "region": {"startLine": 1}}
    return {
        "ruleId": verdict.code,
        "ruleIndex": rule_index,
        "level": "error",
        "message": {"text": message_text(_told(verdict))},
        "locations": [{"physicalLocation": physical}],
        "partialFingerprints": {FINGERPRINT: _fingerprint(report, verdict)},
        "properties": {
            "plugin": clean(report.relative(verdict.path)),
            "exitCode": int(verdict.exit_code),
            "claimedKeys": [clean(signer.key) for signer in verdict.signers],
            **_hashes(verdict),
        },
    }


def _told(verdict: Verdict) -> str:
    parts = [f"{verdict.path} is not verified ({verdict.code}): {verdict.reason}", verdict.remedy]
    if verdict.file:
        signed, found = verdict.file.signed or "none", verdict.file.found or "none"
        parts.append(
            f"First differing file: {verdict.file.path}, SHA-256 signed {signed}, found {found}."
        )
    if verdict.command:
        parts.append(f"Next: {verdict.command}")
    return " ".join(part for part in parts if part)


def _hashes(verdict: Verdict) -> dict[str, str]:
    if verdict.file is None:
        return {}
    pairs = {"sha256Signed": verdict.file.signed, "sha256Found": verdict.file.found}
    return {name: clean(value) for name, value in pairs.items() if value}


def message_text(text: str) -> str:
    """Return text as a plain text message takes it (3.11.5 and 3.11.6).

    Braces are doubled, because one pair with a number in it is a placeholder; a bracket before a
    parenthesis is set apart from it, because both together are a link.
    """
    return clean(text).replace("{", "{{").replace("}", "}}").replace("](", "] (")


def artifact_location(place: str) -> dict[str, str]:
    """Return an artifactLocation (3.4): relative to the source root, or a ``file`` URI.

    Percent-encoded by RFC 3986, from the bytes that the file system has.
    """
    encoded = quote_from_bytes(_file_system_bytes(place), safe=_UNRESERVED)
    if place.startswith("/"):
        return {"uri": f"file://{encoded}"}  # 3.4.4: no uriBaseId beside an absolute URI
    return {"uri": encoded, "uriBaseId": _SOURCE_ROOT}


def _file_system_bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a surrogate pair that no file system gave
        return text.encode("utf-8", "backslashreplace")


def _fingerprint(report: Report, verdict: Verdict) -> str:
    """Return what makes this the same result as that of an earlier run.

    The kind, the plugin and the file; not the hashes, which differ with each further change.
    """
    file = verdict.file.path if verdict.file else ""
    parts = (verdict.code, report.relative(verdict.path), file)
    return hashlib.sha256(b"\0".join(_file_system_bytes(part) for part in parts)).hexdigest()
