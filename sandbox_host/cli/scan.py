"""``sandbox-host scan``: what sources reach for, beside what plugin.json asks for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

import sandbox_host
from sandbox_host.bundle.rules import check_contents
from sandbox_host.bundle.source import read_bundle
from sandbox_host.cli.candidates import Candidate, find_candidates
from sandbox_host.cli.options import BUNDLE, FILE, HostOptions
from sandbox_host.cli.output import no_library_notes, note, place, working
from sandbox_host.cli.scan_report import FORMATS, ScannedPlugin, ScanReport
from sandbox_host.cli.targets import Target, check_targets, reads_targets
from sandbox_host.cli.written import write_file
from sandbox_host.errors import RefusedError, UsageError
from sandbox_host.runtime.scanner import source_reader
from sandbox_host.runtime.scanner_bandit import bandit_findings, bandit_reader
from sandbox_host.scan.finding import Finding, Severity, in_order
from sandbox_host.scan.scan import scan

if TYPE_CHECKING:
    from sandbox_host.runtime.scanner import ConfinedReader
    from sandbox_host.scan.sightings import Sighting

_TEXT: Final = Target("text", None)
_NO_PROOF: Final = (
    "a scan is evidence for a reviewer: that nothing was found does not make a plugin harmless."
)


@click.command("scan", short_help="Show what plugins' sources reach for.")
@click.argument("paths", metavar="PATH...", type=BUNDLE, nargs=-1, required=True)
@click.option(
    "--config",
    type=FILE,
    metavar="TOML",
    help="The host's configuration. Default: config.toml in the configuration directory, if any.",
)
@click.option(
    "--format",
    "targets",
    callback=reads_targets(*FORMATS),
    metavar="FORMAT[=FILE]",
    multiple=True,
    help=f"{', '.join(FORMATS)}; may be repeated, with a FILE for each but one. Default: text.",
)
@click.option("--bandit", is_flag=True, help="Have bandit look as well; it is an optional extra.")
@click.option(
    "--fail-on",
    type=click.Choice([str(severity) for severity in Severity]),
    help="Exit with 1 if there is a finding of this severity, or a graver one.",
)
def command(
    paths: tuple[Path, ...],
    config: Path | None,
    targets: tuple[Target, ...],
    bandit: bool,
    fail_on: str | None,
) -> int:
    """Show what the sources of the plugin at each PATH reach for, beside what they ask for.

    PATH is a plugin's directory, a .plugin archive, or a directory that holds plugins, one or two
    levels down. Sources are read in the sandbox, and nothing of a plugin is run. Findings are for
    a reviewer: they change the exit code only with --fail-on. It is 1 as well for what is no
    plugin and could not be scanned.

    \b
    Example:
      sandbox-host scan downloads/unknown_plugin
      sandbox-host scan plugins --format sarif=scan.sarif --fail-on high
    """
    host = HostOptions(config=config).read()
    wanted = check_targets(targets or (_TEXT,), "--format")
    found = list(_found(paths))
    _keep_out(wanted, found)
    # What the library says of the host's own reader is nothing that a reviewer can use.
    with contextlib.ExitStack() as stack:
        stack.enter_context(no_library_notes())
        bandits = stack.enter_context(bandit_reader(host)) if bandit else None
        reader = stack.enter_context(source_reader(host))
        plugins = [
            _scanned(one, reader, bandits) if isinstance(one, Candidate) else one for one in found
        ]
    report = ScanReport(
        plugins=tuple(plugins),
        fail_on=Severity(fail_on) if fail_on else None,
        base=os.getcwd(),
        tool_version=sandbox_host.__version__,
    )
    _publish(report, wanted)
    return report.exit_code


def _found(paths: Iterable[Path]) -> Iterator[Candidate | ScannedPlugin]:
    """Yield the plugins at each path, or why there is none."""
    for path in paths:
        try:
            yield from find_candidates(path)
        except RefusedError as error:
            yield ScannedPlugin(str(path), error=error)


def _keep_out(targets: Iterable[Target], found: Iterable[Candidate | ScannedPlugin]) -> None:
    """Refuse a report inside a plugin, where it would be a file that nobody signed.

    Raises:
        UsageError: one would be.
    """
    plugins = {Path(os.path.realpath(one.path)) for one in found if isinstance(one, Candidate)}
    for path in (target.path for target in targets if target.path is not None):
        if plugins.intersection(Path(os.path.realpath(path)).parents):
            raise UsageError(
                f"The report {place(path)} would lie inside a plugin, and be a file in it that "
                "nobody signed.",
                remedy="Name a file outside of the plugins.",
            )


def _scanned(
    one: Candidate, reader: ConfinedReader[Sighting], bandits: ConfinedReader[Finding] | None
) -> ScannedPlugin:
    path = str(one.path)
    try:
        files = read_bundle(one.path).files
        manifest = check_contents(files)
    except RefusedError as error:
        return ScannedPlugin(path, error=error, archive=one.archive)
    with working(f"scanning {path}"):
        findings = scan(files, manifest.permissions, reader)
        if bandits is not None:
            findings = in_order((*findings, *bandit_findings(files, bandits)))
    return ScannedPlugin(
        path,
        plugin=manifest.identity,
        version=manifest.version,
        findings=findings,
        archive=one.archive,
    )


def _publish(report: ScanReport, targets: Iterable[Target]) -> None:
    """Write the files first, so that they are there even if standard output is closed."""
    streams = [target for target in targets if target.path is None]
    for target in targets:
        if target.path is not None:
            data = FORMATS[target.kind](report).encode("utf-8", "backslashreplace")
            write_file(target.path, data, f"the {target.kind} report")
    for target in streams:
        # The renderers escape, each as its format demands.
        click.echo(FORMATS[target.kind](report), nl=False)
    note(f"note: {_NO_PROOF}" if streams else f"{report.summary}; {_NO_PROOF}")
