"""``sandbox-host data``: the plugins' data directories, listed and removed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import click

from sandbox_host.bundle.envelope import format_time
from sandbox_host.cli.describe import counted, size
from sandbox_host.cli.exits import Exit, exit_for
from sandbox_host.cli.options import SuggestingGroup, output_format, state_options
from sandbox_host.cli.output import clean, fail, note, print_json, print_table, say, working
from sandbox_host.errors import SandboxHostError, UsageError
from sandbox_host.observe.journal import Journal
from sandbox_host.runtime.data import DataDirectories

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox_host.cli.options import HostOptions
    from sandbox_host.runtime.data import DataDirectory, RemovedData
    from sandbox_host.runtime.removal import Left

_NOTHING: Final = "-"


@click.group(
    "data", cls=SuggestingGroup, short_help="List and remove plugins' data.", no_args_is_help=False
)
def command() -> None:
    """List what plugins keep between runs, and remove it.

    \b
    Example:
      sandbox-host data list
      sandbox-host data remove word_counter
    """


@command.command("list", short_help="List what each plugin keeps.")
@state_options
@output_format
def list_(host: HostOptions, as_format: str) -> None:
    """Measure every plugin's data directory: allocated bytes, names of files and directories.

    OF LIMIT is the larger share of the two limits, as of the plugin's last load. PROCESS is the
    host that has it loaded now.

    \b
    Example:
      sandbox-host data list --format json
    """
    state_dir = host.read().state_dir
    directories = DataDirectories(state_dir)
    left = directories.sweep()
    with working(f"measuring {state_dir}"):
        found = directories.measure()
    foreign = directories.foreign()
    if as_format == "json":
        print_json(
            {
                "state_dir": clean(state_dir),
                "directories": [_entry(one) for one in found],
                "left": [{"path": one.path, "reason": clean(one.reason)} for one in left],
                "foreign": list(foreign),
            }
        )
        return
    total = sum(one.bytes for one in found)
    counts = f"{len(found)} data director{'y' if len(found) == 1 else 'ies'}"
    say(f"{state_dir}: {counts}, {size(total)}")
    if found:
        headings = ("PLUGIN", "SIZE", "FILES", "OF LIMIT", "LAST USED", "PROCESS")
        print_table(headings, [_row(one) for one in found])
    for one in found:
        if one.fault:
            note(f"note: {one.path} cannot be measured: {one.fault}.")
    for name in foreign:
        note(f"note: {state_dir}/data/{name} is not of any plugin; no host put it there.")
    _tell_left(left)


@command.command("remove", short_help="Remove what plugins keep.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@state_options
def remove(names: tuple[str, ...], yes: bool, host: HostOptions) -> int:
    """Remove the data directories of the plugins NAME, whatever they hold; asks first.

    Refused while a host has the plugin loaded. What could not be removed is told, and tried again
    by the next `data` command and the next host.

    \b
    Example:
      sandbox-host data remove word_counter --yes
    """
    config = host.read()
    directories = DataDirectories(config.state_dir)
    _tell_left(directories.sweep())
    with working(f"measuring {config.state_dir}"):
        found = {one.identity: one for one in map(directories.measure_one, names)}
    for one in found.values():
        say(_summary(one))
    if not yes and not _agreed(len(found)):
        note("nothing was removed.")
        return Exit.REFUSED
    with Journal(config.journal_path) as journal:
        directories = DataDirectories(config.state_dir, tell=journal.append)
        codes = [_removed(directories, identity) for identity in found]
    return next((code for code in codes if code is not Exit.OK), Exit.OK)


def _removed(directories: DataDirectories, identity: str) -> Exit:
    """Remove one; what is wrong with it does not save the others."""
    try:
        with working(f"removing the data of {identity}"):
            done = directories.remove(identity)
    except SandboxHostError as error:
        fail(str(error))
        return exit_for(error)
    return _told(done)


def _told(done: RemovedData) -> Exit:
    if not done.left:
        say(f"{done.identity}: removed, {counted(done.removed, 'name')}")
        return Exit.OK
    fail(f"{done.identity}: its data directory is gone, and not all of what was in it.")
    _tell_left(done.left)
    return Exit.REFUSED


def _agreed(count: int) -> bool:
    """Ask.

    Raises:
        UsageError: there is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise UsageError(
            "Nothing was removed: there is no terminal to ask on whether that is meant.",
            remedy="Give --yes.",
        )
    # On standard error: a question is no data.
    return click.confirm(f"Remove {'it' if count == 1 else 'them'} for good?", err=True)


def _summary(one: DataDirectory) -> str:
    if one.fault:
        return f"{one.identity}: {one.fault}, in {one.path}"
    held = f"{'' if one.complete else 'at least '}{size(one.bytes)}"
    return f"{one.identity}: {held} in {counted(one.files, 'name')}, in {one.path}"


def _row(one: DataDirectory) -> tuple[object, ...]:
    measured = (_NOTHING,) * 3 if one.fault else (_size(one), _files(one), _share(one))
    used = f"{one.last_used:%Y-%m-%d %H:%M} UTC" if one.last_used else _NOTHING
    process = (one.host or "yes") if one.loaded else _NOTHING
    return (one.identity, *measured, used, process)


def _size(one: DataDirectory) -> str:
    return f"{'' if one.complete else '>= '}{size(one.bytes)}"


def _files(one: DataDirectory) -> str:
    return f"{'' if one.complete else '>= '}{one.files}"


def _share(one: DataDirectory) -> str:
    used = ((one.bytes, one.limit_bytes), (one.files, one.limit_files))
    shares = [amount / limit for amount, limit in used if limit]
    return f"{max(shares):.0%}" if shares else _NOTHING


def _tell_left(left: Iterable[Left]) -> None:
    for one in left:
        note(f"note: {one.path} could not be removed: {one.reason}")


def _entry(one: DataDirectory) -> dict[str, Any]:
    return {
        "plugin": one.identity,
        "path": clean(one.path),
        "bytes": one.bytes,
        "files": one.files,
        "complete": one.complete,
        "limit_bytes": one.limit_bytes,
        "limit_files": one.limit_files,
        "last_used": format_time(one.last_used) if one.last_used else None,
        "loaded": one.loaded,
        "process": one.host,
        "fault": one.fault,
    }
