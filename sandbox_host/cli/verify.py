"""``sandbox-host verify``: a verdict for each plugin, for people, scripts and CI services."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

import sandbox_host
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.cli.candidates import Candidate, find_candidates
from sandbox_host.cli.judge import judge, refused_path
from sandbox_host.cli.options import BUNDLE, trust_options
from sandbox_host.cli.output import clean, note, place
from sandbox_host.cli.reports import FORMATS
from sandbox_host.cli.reports.model import Report, Verdict
from sandbox_host.cli.targets import Target, check_targets, reads_targets
from sandbox_host.cli.written import write_file
from sandbox_host.errors import BundleError, UsageError
from sandbox_host.runtime.admissions import check_remembered

if TYPE_CHECKING:
    from sandbox_host.bundle.verify import VerifiedBundle
    from sandbox_host.cli.options import HostOptions

_TEXT: Final = Target("text", None)


@click.command("verify", short_help="Tell whether plugins are what a trusted key signed.")
@click.argument("paths", metavar="PATH...", type=BUNDLE, nargs=-1, required=True)
@trust_options
@click.option(
    "--format",
    "targets",
    callback=reads_targets(*FORMATS),
    metavar="FORMAT[=FILE]",
    multiple=True,
    help=f"{', '.join(FORMATS)}; may be repeated, with a FILE for each but one. Default: text.",
)
def command(paths: tuple[Path, ...], host: HostOptions, targets: tuple[Target, ...]) -> int:
    """Tell whether the plugin at each PATH is exactly what trusted keys signed.

    PATH is a plugin's directory, a .plugin archive, or a directory that holds plugins, one or two
    levels down. Nothing of a plugin is run, and nothing asks the network. What the hosts of this
    state_dir have admitted counts: an older version is told. The exit code is the gravest of all
    verdicts: 1 (not what was signed) before 5 (older than one seen before) before 4 (signer not
    trusted) before 3 (unsigned) before 0.

    \b
    Example:
      sandbox-host verify plugins
      sandbox-host verify plugins --format sarif=out.sarif --format github
    """
    wanted = check_targets(targets or (_TEXT,), "--format")
    config = host.read()
    trust = TrustStore.load(config.trust_store)
    found = _find(paths)
    _keep_out(wanted, found)
    report = Report(
        verdicts=tuple(_judge_all(found, trust, config.state_dir)),
        trust_store=trust.origin,
        base=os.getcwd(),
        tool_version=sandbox_host.__version__,
    )
    _publish(report, wanted)
    return report.exit_code


def _find(paths: Iterable[Path]) -> list[Candidate | Verdict]:
    """Return the candidates at each path, or the verdict on a path that holds none."""
    found: list[Candidate | Verdict] = []
    for path in paths:
        try:
            found += find_candidates(path)
        except BundleError as error:
            found.append(refused_path(path, error))
    return found


def _keep_out(targets: Iterable[Target], found: Iterable[Candidate | Verdict]) -> None:
    """Refuse a report inside a plugin, where it would be a file that nobody signed.

    Raises:
        UsageError: one would be.
    """
    plugins = {Path(os.path.realpath(one.path)) for one in found if isinstance(one, Candidate)}
    for path in (target.path for target in targets if target.path is not None):
        inside = plugins.intersection(Path(os.path.realpath(path)).parents)
        if inside:
            raise UsageError(
                f"The report {place(path)} would lie inside the plugin {place(min(inside))}, and "
                "be a file in it that nobody signed.",
                remedy="Name a file outside of the plugins.",
            )


def _judge_all(
    found: list[Candidate | Verdict], trust: TrustStore, state_dir: Path
) -> Iterator[Verdict]:
    now = datetime.now(UTC)

    def remember(bundle: VerifiedBundle) -> None:
        check_remembered(state_dir, bundle, trust, now)

    with _progress(len(found)) as tell:
        for one in found:
            tell(one.path)
            yield judge(one, trust, now, remember) if isinstance(one, Candidate) else one


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[object], None]]:
    """Show on a terminal which plugin it is at; a file or pipe gets nothing of it."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.text import Text

    count = 0
    with Console(stderr=True).status("verifying ...") as status:

        def tell(path: object) -> None:
            nonlocal count
            count += 1
            status.update(Text(clean(f"verifying {count} of {total}: {path}")))

        yield tell


def _publish(report: Report, targets: Iterable[Target]) -> None:
    """Write the files first, so that they are there even if standard output is closed."""
    streams = [target for target in targets if target.path is None]
    written = [target.path for target in targets if target.path is not None]
    for target in targets:
        if target.path is not None:
            data = FORMATS[target.kind](report).encode("utf-8", "backslashreplace")
            write_file(target.path, data, f"the {target.kind} report")
    for target in streams:
        # The renderers escape, each as its format demands.
        click.echo(FORMATS[target.kind](report), nl=False)
    if not streams:
        note(f"{report.summary}; see {', '.join(place(path) for path in written)}")
