"""A report for scripts: one JSON document with its schema's version."""

from __future__ import annotations

import json
from typing import Any

from sandbox_host.cli.output import SCHEMA_VERSION, clean
from sandbox_host.cli.reports.model import Report, Signer, Verdict


def render_json(report: Report) -> str:
    """Return the report as JSON (RFC 8259), ASCII only, so that nothing can hide in it."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "trust_store": clean(report.trust_store),
        "exit_code": int(report.exit_code),
        "verdicts": [_verdict(verdict) for verdict in report.verdicts],
    }
    return json.dumps(document, indent=2) + "\n"


def _verdict(verdict: Verdict) -> dict[str, Any]:
    said: dict[str, Any] = {
        "path": clean(verdict.path),
        "verdict": verdict.code,
        "exit_code": int(verdict.exit_code),
    }
    if verdict.verified:
        first = _signer(verdict.signers[0]) if verdict.signers else {}
        said |= {"plugin": verdict.plugin, "version": verdict.version, **first}
        said |= {"digest": verdict.digest, "files": verdict.files}
        said["disregarded"] = [clean(why) for why in verdict.disregarded]
    else:
        said |= {
            "reason": clean(verdict.reason),
            "remedy": clean(verdict.remedy),
            "command": clean(verdict.command),
            "file": _file(verdict),
        }
    return {**said, "signers": [_signer(one) for one in verdict.signers]}


def _file(verdict: Verdict) -> dict[str, str | None] | None:
    if verdict.file is None:
        return None
    return {
        "path": clean(verdict.file.path),
        "signed": clean(verdict.file.signed) or None,
        "found": clean(verdict.file.found) or None,
    }


def _signer(signer: Signer) -> dict[str, Any]:
    return {
        "key": clean(signer.key),
        "signer": clean(signer.label),
        "scope": [clean(pattern) for pattern in signer.scope],
    }
