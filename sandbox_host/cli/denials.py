"""``sandbox-host denials``: what plugins asked for and were not granted, out of the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from sandbox_host.cli.describe import counted
from sandbox_host.cli.options import output_format, state_options
from sandbox_host.cli.output import clean, note, print_json, print_table, say
from sandbox_host.model import identity_of
from sandbox_host.observe.journal import last_entries
from sandbox_host.runtime.audience import DENIAL_REPORTED, DENIED

if TYPE_CHECKING:
    from sandbox_host.cli.options import HostOptions
    from sandbox_host.observe.journal import JournalEntry

_DEFAULT: Final = 50
_MOST: Final = 10_000
_SAID_BY: Final = {DENIED: "host", DENIAL_REPORTED: "plugin"}


@click.command("denials", short_help="Show what plugins asked for and were not granted.")
@click.option("--plugin", metavar="NAME", help="Only this plugin's.")
@click.option(
    "--last",
    metavar="NUMBER",
    type=click.IntRange(1, _MOST),
    default=_DEFAULT,
    show_default=True,
    help="So many denials, the newest, of each that says so.",
)
@state_options
@output_format
def command(plugin: str | None, last: int, host: HostOptions, as_format: str) -> None:
    """Show what running plugins asked for and were not granted, the newest last.

    Each says what was asked for, the line of plugin.json that would ask for it, and what that
    would open; granting it is yours. What a plugin asks for is its own choice: a denial proves
    nothing but the asking. Where the plugin says so, it is its own word, and not even that.

    \b
    Example:
      sandbox-host denials --plugin weather_model
    """
    path = host.read().journal_path
    identity = identity_of(plugin) if plugin else ""
    # So many of each: what a plugin makes up must not crowd out what the host saw.
    entries = [
        entry for event in _SAID_BY for entry in last_entries(path, event, last, plugin=identity)
    ]
    found = _gathered(sorted(entries, key=lambda entry: entry.seq))
    if as_format == "json":
        print_json(
            {
                "journal": clean(path),
                "denials": [{**_told(entry), "times": times} for entry, times in found],
            }
        )
        return
    of = f" of {identity}" if identity else ""
    say(f"{clean(path)}: {counted(len(entries), 'denial')}{of}")
    if found:
        rows = [
            (one.time[:19], one.plugin, times, _SAID_BY[one.event], one.detail)
            for one, times in found
        ]
        print_table(("LAST", "PLUGIN", "TIMES", "SAID BY", "WHAT WAS DENIED"), rows)
        note("note: the host writes down no more than one a second, after the first hundred")
        if any(one.event == DENIAL_REPORTED for one, _ in found):
            note("note: what the plugin says is its own word: grant nothing for that alone")


def _gathered(entries: list[JournalEntry]) -> list[tuple[JournalEntry, int]]:
    """Return the newest of those that are alike, and how many there are."""
    times: dict[tuple[str, ...], tuple[JournalEntry, int]] = {}
    for entry in entries:
        key = entry.event, entry.plugin, entry.detail
        _, before = times.pop(key, (entry, 0))
        times[key] = entry, before + 1
    return list(times.values())


def _told(entry: JournalEntry) -> dict[str, str]:
    return {
        "time": entry.time,
        "plugin": clean(entry.plugin),
        "said_by": _SAID_BY[entry.event],
        "what": clean(entry.detail),
    }
