"""``sandbox-host approve``: what an update asks for more, for whoever has to answer for it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sandbox_host.bundle.source import read_bundle
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.verify import verify
from sandbox_host.cli.asking import agreed
from sandbox_host.cli.exits import Exit
from sandbox_host.cli.options import memory_options, output_format, plugin_bundle
from sandbox_host.cli.output import clean, fail, field, print_json, print_table, say
from sandbox_host.observe.journal import Journal
from sandbox_host.runtime.admissions import Admissions, check_remembered, difference

if TYPE_CHECKING:
    from sandbox_host.admission.changes import Change
    from sandbox_host.bundle.verify import VerifiedBundle
    from sandbox_host.cli.options import HostOptions


@click.command("approve", short_help="Approve what an update asks for more.")
@plugin_bundle
@click.option("--yes", is_flag=True, help="Do not ask.")
@memory_options
@output_format
def command(directory: Path, yes: bool, host: HostOptions, as_format: str) -> int:
    """Show what PLUGIN asks for beside what its version before asked for, and approve that.

    A host holds an update that asks for more (permissions, limits, dependencies, native code) until
    you do. The approval is for these files alone. It grants nothing: what the configuration does
    not grant is refused as ever. Without --yes it asks on a terminal.

    \b
    Example:
      sandbox-host approve plugins/weather_model
    """
    config, now = host.read(), datetime.now(UTC)
    trust = TrustStore.load(config.trust_store)
    bundle = verify(read_bundle(directory), trust, now)
    check_remembered(config.state_dir, bundle, trust, now)
    changes = difference(config.state_dir, bundle)
    more = any(change.wider for change in changes)
    if as_format == "text":
        _print(bundle, changes)
    if not more:
        if as_format == "json":
            print_json(_document(bundle, changes, approved=False))
        else:
            say(
                "nothing to approve: it asks for no more than the version before it, or is new here"
            )
        return Exit.OK
    if not agreed("Approve that it asks for this?", yes):
        fail("nothing was approved.")
        return Exit.REFUSED
    with Journal(config.journal_path) as journal:
        Admissions(config.state_dir, journal).approve(bundle, trust, now, changes)
    if as_format == "json":
        print_json(_document(bundle, changes, approved=True))
    else:
        say(f"{bundle.manifest.identity} {bundle.manifest.version}: approved")
    return Exit.OK


def _print(bundle: VerifiedBundle, changes: tuple[Change, ...]) -> None:
    say(f"{bundle.manifest.identity} {bundle.manifest.version}")
    field("signer", ", ".join(key.signer for key in bundle.signers))
    field("digest", bundle.root_digest)
    if changes:
        rows = [("more" if c.wider else "less", c.path, c.before, c.now) for c in changes]
        print_table(("", "PLUGIN.JSON", "BEFORE", "NOW"), rows)


def _document(
    bundle: VerifiedBundle, changes: tuple[Change, ...], *, approved: bool
) -> dict[str, Any]:
    return {
        "plugin": bundle.manifest.identity,
        "version": bundle.manifest.version,
        "digest": bundle.root_digest,
        "approved": approved,
        "changes": [
            {
                "path": one.path,
                "before": clean(one.before),
                "now": clean(one.now),
                "wider": one.wider,
            }
            for one in changes
        ],
    }
