"""``sandbox-host list``: what is in the plugin directory, verified."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sandbox_host.bundle.archive_format import SUFFIX
from sandbox_host.bundle.statement import format_time
from sandbox_host.catalog.discover import DiscoveredState, discover
from sandbox_host.catalog.judging import Judging
from sandbox_host.catalog.roster import Judged, Roster
from sandbox_host.catalog.switches import Switches
from sandbox_host.cli.describe import counted
from sandbox_host.cli.exits import Exit, exit_for
from sandbox_host.cli.options import memory_options, output_format
from sandbox_host.cli.output import clean, fail, note, print_json, print_table, say, working
from sandbox_host.cli.plugin_place import directory_of, place_option, since
from sandbox_host.errors import DependencyError, TrustStoreError
from sandbox_host.reading import escaped
from sandbox_host.runtime.admissions import check_remembered
from sandbox_host.supervision.resolve import resolve

if TYPE_CHECKING:
    from datetime import datetime

    from sandbox_host.bundle.trust import TrustStore
    from sandbox_host.bundle.verify import VerifiedBundle
    from sandbox_host.catalog.discover import Discovered
    from sandbox_host.cli.options import HostOptions
    from sandbox_host.config import HostConfig

_NOTHING: Final = "-"
_MAX_REASON: Final = 1_000
_UNUSABLE: Final = {DiscoveredState.UNREADABLE, DiscoveredState.UNVERIFIED}


@click.command("list", short_help="List the plugins of the plugin directory.")
@place_option
@memory_options
@output_format
def command(place: Path | None, host: HostOptions, as_format: str) -> int:
    """Read and verify everything in the plugin directory, and say what a host would make of it.

    found: verified, and runs. disabled: verified, and does not run. waiting: verified, and starts
    when what it needs is there. unverified: not what a trusted
    key signed, or older than what was admitted. unreadable: broken. SINCE is when it came to lie
    there as it does, or was disabled.

    \b
    Example:
      sandbox-host list --format json
    """
    config = host.read()
    where = directory_of(config, place)
    disabled = Switches(config.state_dir).disabled()
    fault: TrustStoreError | None = None
    with working(f"verifying what is in {where}"):
        found = discover(where)
        try:
            judged = _with_needs(_with_clashes([_judged(one, config) for one in found]))
        except TrustStoreError as error:
            fault, judged = error, [_unjudged(one) for one in found]
    rows = [(one, _since(one, disabled)) for one in judged]
    if as_format == "json":
        document = {"plugin_directory": clean(where), "plugins": [_entry(*row) for row in rows]}
        print_json(document)
    else:
        _print(where, rows)
    if fault is not None:
        fail(str(fault))
        return exit_for(fault)
    return Exit.OK


def _judged(one: Discovered, config: HostConfig) -> Judged:
    def remembered(bundle: VerifiedBundle, trust: TrustStore, now: datetime) -> None:
        check_remembered(config.state_dir, bundle, trust, now)

    return Judging(config, remembered)(one.path)


def _with_clashes(judged: list[Judged]) -> list[Judged]:
    """Mark those of one identity, as a host that starts does: it loads none of them."""
    roster = Roster()
    changes = roster.update({one.path.name: one for one in judged})
    clashing = {c.path: c for c in changes if c.code == "clash"}
    return [
        _marked(one, clashing[one.path].reason) if one.path in clashing else one for one in judged
    ]


def _with_needs(judged: list[Judged]) -> list[Judged]:
    """Mark those that need what is not there, or does not run."""
    known = [one.manifest for one in judged if one.digest and one.manifest is not None]
    broken = {one.identity: one.reason for one in judged if one.digest and not one.enabled}
    problems = resolve(known, broken).problems
    return [
        replace(
            one,
            state=DiscoveredState.WAITING,
            reason=escaped(" ".join(p.text for p in problems[one.identity]), _MAX_REASON),
            code=DependencyError.code,
        )
        if one.enabled and one.identity in problems
        else one
        for one in judged
    ]


def _marked(one: Judged, reason: str) -> Judged:
    return Judged(
        path=one.path,
        state=DiscoveredState.UNREADABLE,
        identity=one.identity,
        version=one.version,
        signer=one.signer,
        reason=reason,
        code="clash",
    )


def _unjudged(one: Discovered) -> Judged:
    """Return what is told where there is no trust store to verify with."""
    readable = one.manifest is not None
    return Judged(
        path=one.path,
        state=DiscoveredState.UNVERIFIED if readable else DiscoveredState.UNREADABLE,
        identity=one.manifest.identity if one.manifest else "",
        version=one.manifest.version if one.manifest else "",
        reason="the trust store cannot be used" if readable else one.reason,
        code=TrustStoreError.code if readable else "",
        manifest=one.manifest,
    )


def _since(one: Judged, disabled: dict[str, datetime]) -> datetime | None:
    if one.state is DiscoveredState.DISABLED and one.identity in disabled:
        return disabled[one.identity]
    return since(one.path)


def _print(where: Path, rows: list[tuple[Judged, datetime | None]]) -> None:
    say(f"{where}: {counted(len(rows), 'plugin')}")
    if rows:
        headings = ("PLUGIN", "VERSION", "STATE", "SIGNER", "SINCE")
        print_table(headings, [_row(*row) for row in rows])
    for one, _ in rows:
        if one.reason:
            note(f"note: {one.path.name} is {one.state}: {one.reason}")
    if any(one.state in _UNUSABLE for one, _ in rows):
        note("note: nothing unverified or unreadable is loaded; install it again, or remove it.")


def _row(one: Judged, moment: datetime | None) -> tuple[object, ...]:
    when = f"{moment:%Y-%m-%d %H:%M} UTC" if moment else _NOTHING
    file = one.path.name
    name = one.identity or file
    if file.removesuffix(SUFFIX) != name:
        name = f"{name} ({file})"
    return (name, one.version or _NOTHING, one.state, one.signer or _NOTHING, when)


def _entry(one: Judged, moment: datetime | None) -> dict[str, Any]:
    return {
        "plugin": one.identity or None,
        "version": one.version or None,
        "path": clean(one.path),
        "state": one.state,
        "reason": one.reason or None,
        "code": one.code or None,
        "signer": clean(one.signer) or None,
        "digest": one.digest or None,
        "since": format_time(moment) if moment else None,
    }
