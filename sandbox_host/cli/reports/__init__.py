"""What `verify` found, in the forms that people and CI services read: one model, one renderer each.

A renderer is a pure function from a `model.Report` to text: no clock, no file system, no terminal.
Paths, reasons and names in a report are a stranger's words. Each renderer escapes them as its own
format demands, so that none of them can forge a line, an annotation, an element or a link.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sandbox_host.cli.reports.github import render_github
from sandbox_host.cli.reports.json_ import render_json
from sandbox_host.cli.reports.junit import render_junit
from sandbox_host.cli.reports.model import Report
from sandbox_host.cli.reports.sarif import render_sarif
from sandbox_host.cli.reports.text import render_text

FORMATS: Final[Mapping[str, Callable[[Report], str]]] = {
    "text": render_text,
    "json": render_json,
    "sarif": render_sarif,
    "github": render_github,
    "junit": render_junit,
}
"""What ``--format`` may name. Each result ends with a line feed, unless it is empty."""

__all__ = ["FORMATS", "Report"]
