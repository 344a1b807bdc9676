"""``sandbox-host journal``: what hosts wrote down, whether it is still that, and what is new."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any, Final

import click

from sandbox_host.cli.asking import agreed
from sandbox_host.cli.describe import counted
from sandbox_host.cli.exits import Exit
from sandbox_host.cli.options import SuggestingGroup, output_format, state_options
from sandbox_host.cli.output import clean, fail, field, note, print_json, print_table, say
from sandbox_host.errors import JournalError, UsageError
from sandbox_host.model import identity_of
from sandbox_host.observe.journal import last_entries, utc_now
from sandbox_host.observe.journal_files import walk_journal
from sandbox_host.observe.journal_rotation import start_new
from sandbox_host.observe.journal_tail import JournalTail

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandbox_host.cli.options import HostOptions
    from sandbox_host.observe.journal import JournalEntry
    from sandbox_host.observe.journal_files import Walk

_DEFAULT: Final = 50
_MOST: Final = 100_000
_POLL_SECONDS: Final = 0.25


@click.group(
    "journal", cls=SuggestingGroup, short_help="Verify and show the journal.", no_args_is_help=False
)
def command() -> None:
    """Verify and show the journal: what was admitted, refused, started, ended, and changed.

    \b
    Example:
      sandbox-host journal verify
      sandbox-host journal show --plugin weather_model
    """


_PLUGIN = click.option("--plugin", metavar="NAME", help="Only this plugin's.")
_EVENT = click.option("--event", metavar="EVENT", default="", help="Only these, such as refused.")


def _last(default: int) -> Callable[..., Any]:
    return click.option(
        "--last",
        metavar="NUMBER",
        type=click.IntRange(0 if default == 0 else 1, _MOST),
        default=default,
        show_default=True,
        help="So many entries, the newest.",
    )


@command.command("verify", short_help="Tell whether the journal is as hosts wrote it.")
@state_options
@output_format
def verify(host: HostOptions, as_format: str) -> int:
    """Read all of the journal, its old files too, and tell the first line that no host wrote so.

    The exit code is 1 where there is one: a line was changed, removed, added or moved, or lines
    were cut off the end. Nothing is changed; hosts may go on writing meanwhile.

    \b
    Example:
      sandbox-host journal verify --format json
    """
    path = host.read().journal_path
    walk = walk_journal(path)
    if as_format == "json":
        print_json(_document(path, walk))
    elif walk.fault is None:
        files = counted(walk.files, "file")
        say(f"{clean(path)}: as hosts wrote it, {counted(walk.lines, 'line')} in {files}")
        if walk.last is not None:
            field("last line", f"{walk.last.seq}, {walk.last.time[:19]}")
            field("its hash", walk.last.hash)
    else:
        say(f"{clean(path)}: CHANGED by something else than a host")
        field("where", walk.fault)
        field("good before", counted(walk.lines, "line"))
        field("next", "find out who did that; `sandbox-host journal new --reason TEXT` keeps it")
        field("", "aside as evidence, and lets hosts start again")
    if not walk.has_head and walk.fault is None:
        note("note: its head is missing, so that nothing tells of lines cut off the end.")
    return Exit.OK if walk.fault is None else Exit.REFUSED


def _document(path: Path, walk: Walk) -> dict[str, Any]:
    fault, last = walk.fault, walk.last
    return {
        "journal": clean(path),
        "whole": fault is None,
        "lines": walk.lines,
        "files": walk.files,
        "head": walk.has_head,
        "last": {"seq": last.seq, "time": last.time, "hash": last.hash} if last else None,
        "fault": {"file": fault.file or path.name, "line": fault.line, "reason": fault.reason}
        if fault
        else None,
    }


@command.command("show", short_help="Show the newest entries.")
@_PLUGIN
@_EVENT
@_last(_DEFAULT)
@state_options
@output_format
def show(plugin: str | None, event: str, last: int, host: HostOptions, as_format: str) -> None:
    """Show the newest entries, the newest last.

    That they are as hosts wrote them, `journal verify` tells.

    \b
    Example:
      sandbox-host journal show --event refused --last 10
    """
    path = host.read().journal_path
    entries = last_entries(path, event, last, plugin=identity_of(plugin) if plugin else "")
    if as_format == "json":
        print_json({"journal": clean(path), "entries": [_told(entry) for entry in entries]})
        return
    say(f"{clean(path)}: {counted(len(entries), 'entry').replace('entrys', 'entries')}")
    if entries:
        rows = [(one.seq, one.time[:19], one.event, one.plugin, one.detail) for one in entries]
        print_table(("LINE", "TIME", "EVENT", "PLUGIN", "DETAIL"), rows)


@command.command("follow", short_help="Show entries as they are written.")
@_PLUGIN
@_EVENT
@_last(0)
@state_options
@output_format
def follow(plugin: str | None, event: str, last: int, host: HostOptions, as_format: str) -> None:
    """Show entries as hosts write them, until Ctrl-C; --last shows some that are there already.

    With --format json each is a JSON document in a line of its own.

    \b
    Example:
      sandbox-host journal follow --plugin weather_model
    """
    path = host.read().journal_path
    identity = identity_of(plugin) if plugin else ""
    tell = _tell_json if as_format == "json" else _tell
    with contextlib.closing(JournalTail(path)) as tail:
        # After the tail has its place: what is written between the two is in both.
        there = last_entries(path, event, last, plugin=identity) if last else []
        for entry in there:
            tell(entry)
        told = {entry.hash for entry in there}
        while True:
            for entry in tail.new():
                of_interest = event in {"", entry.event} and identity in {"", entry.plugin}
                if of_interest and entry.hash not in told:
                    tell(entry)
            time.sleep(_POLL_SECONDS)


def _tell(entry: JournalEntry) -> None:
    whose = f" {entry.plugin}" if entry.plugin else ""
    detail = f": {entry.detail}" if entry.detail else ""
    say(f"{entry.seq} {entry.time[:19]} {entry.event}{whose}{detail}")


def _tell_json(entry: JournalEntry) -> None:
    click.echo(json.dumps({"schema_version": 1, **_told(entry)}))


def _told(entry: JournalEntry) -> dict[str, Any]:
    return {
        "seq": entry.seq,
        "time": entry.time,
        "event": clean(entry.event),
        "plugin": clean(entry.plugin),
        "detail": clean(entry.detail),
        "hash": entry.hash,
    }


@command.command("new", short_help="Keep the journal aside, and begin another.")
@click.option("--reason", required=True, help="For whoever reads the journal.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@state_options
def new(reason: str, yes: bool, host: HostOptions) -> int:
    """Keep the journal aside, whatever is wrong with it, and begin another that names it.

    For a journal that something else than a host changed, and that hosts therefore refuse. All of
    its files go to a directory beside it. Hosts that run go on in the new one.

    \b
    Example:
      sandbox-host journal new --reason "restored from backup after the disk failed"
    """
    if not reason.strip():
        raise UsageError("--reason is empty.", remedy="Say why there is a new journal.")
    path = host.read().journal_path
    try:
        fault = walk_journal(path).fault
        state = f"changed: {fault}" if fault else "as hosts wrote it"
    except JournalError as error:
        state = error.message
    say(f"{clean(path)}: {clean(state)}")
    if not agreed("Keep it aside and begin another?", yes):
        fail("nothing was done.")
        return Exit.REFUSED
    aside = start_new(path, reason, utc_now())
    say(f"{clean(path)}: a new journal; the old one is {f'in {clean(aside)}' if aside else 'none'}")
    return Exit.OK
