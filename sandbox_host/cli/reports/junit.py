"""A report as JUnit XML, which most CI services show: a test case for each plugin.

There is no standard; these are the elements and attributes that readers have in common. What XML
1.0 cannot hold even escaped ("Characters", section 2.2) is removed, because one such character
makes a reader reject the whole report.
"""

from __future__ import annotations

import re
from typing import Final

from sandbox_host.cli.output import clean
from sandbox_host.cli.reports.model import Report, Verdict
from sandbox_host.cli.reports.text import verdict_lines

_SUITE: Final = "sandbox-host verify"
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ENTITIES: Final = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"}
)


def render_junit(report: Report) -> str:
    """Return the report as one XML document; a plugin that is not verified is a failure."""
    counts = f'tests="{len(report.verdicts)}" failures="{len(report.refused)}" errors="0"'
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f"<testsuites {counts}>",
        f'<testsuite name="{_SUITE}" {counts} skipped="0">',
        *(_case(report, verdict) for verdict in report.verdicts),
        "</testsuite>",
        "</testsuites>",
    ]
    return "".join(f"{line}\n" for line in lines)


def _case(report: Report, verdict: Verdict) -> str:
    file = _escaped(report.relative(verdict.pointed_at))
    opening = f'<testcase classname="{_SUITE}" name="{_escaped(verdict.path)}" file="{file}"'
    if verdict.verified:
        return f"{opening}/>"
    kind, message = _escaped(verdict.code), _escaped(verdict.reason)
    told = "\n".join(_escaped(line) for line in verdict_lines(verdict))
    failure = f'<failure type="{kind}" message="{message}">{told}</failure>'
    return f"{opening}>{failure}</testcase>"


def _escaped(text: str) -> str:
    return _NOT_XML.sub("", clean(text)).translate(_ENTITIES)
