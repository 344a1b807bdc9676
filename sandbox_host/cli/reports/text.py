"""A report for people: some labelled lines a plugin, and a count where there are several."""

from __future__ import annotations

from typing import Final

from sandbox_host.cli.output import clean
from sandbox_host.cli.reports.model import Report, Verdict

_LABEL_WIDTH: Final = 12


def render_text(report: Report) -> str:
    """Return the report as text; every line of it passed through `output.clean`."""
    lines = [line for verdict in report.verdicts for line in verdict_lines(verdict)]
    if len(report.verdicts) > 1:
        lines += ["", report.summary]
    return "".join(f"{clean(line)}\n" for line in lines)


def verdict_lines(verdict: Verdict) -> list[str]:
    """Return what is said of one plugin, the plugin and its verdict on the first line."""
    if verdict.verified:
        return [f"{verdict.path}: verified", *_verified(verdict)]
    return [f"{verdict.path}: NOT VERIFIED ({verdict.code})", *_refused(verdict)]


def _verified(verdict: Verdict) -> list[str]:
    lines = [_labelled("plugin", f"{verdict.plugin} {verdict.version}")]
    for signer in verdict.signers:
        lines += [
            _labelled("signer", signer.label),
            _labelled("key", signer.key),
            _labelled("scope", ", ".join(signer.scope)),
        ]
    lines += [_labelled("not counted", why) for why in verdict.disregarded]
    return [*lines, _labelled("digest", verdict.digest), _labelled("files", verdict.files)]


def _refused(verdict: Verdict) -> list[str]:
    lines = [_labelled("reason", verdict.reason)]
    if verdict.file:
        lines += [
            _labelled("file", verdict.file.path),
            _labelled("signed", verdict.file.signed or "not signed: the file was added"),
            _labelled("found", verdict.file.found or "nothing: the file is not there"),
        ]
    for signer in verdict.signers:
        lines.append(_labelled("claims key", signer.key or "none"))
        if signer.label:
            lines += [
                _labelled("which is", signer.label),
                _labelled("for", ", ".join(signer.scope)),
            ]
    for label, value in (("next", verdict.remedy), ("command", verdict.command)):
        if value:
            lines.append(_labelled(label, value))
    return lines


def _labelled(label: str, value: object) -> str:
    return f"  {label:<{_LABEL_WIDTH}}{value}"
