"""``sandbox-host remove``: a plugin out of the directory that hosts load from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sandbox_host.catalog.placing import find_plugin
from sandbox_host.catalog.switches import Switches
from sandbox_host.cli.asking import agreed
from sandbox_host.cli.describe import size
from sandbox_host.cli.exits import Exit
from sandbox_host.cli.options import state_options
from sandbox_host.cli.output import clean, fail, note, say
from sandbox_host.cli.plugin_place import directory_of, place_for, place_option, tell_readme
from sandbox_host.errors import DataInUseError, PluginNotFoundError
from sandbox_host.observe.journal import Journal
from sandbox_host.runtime.data import DataDirectories

if TYPE_CHECKING:
    from sandbox_host.catalog.discover import Discovered
    from sandbox_host.cli.options import HostOptions
    from sandbox_host.runtime.data import DataDirectory


@click.command("remove", short_help="Take a plugin out of the plugin directory.")
@click.argument("name", metavar="NAME")
@click.option("--data", "with_data", is_flag=True, help="Remove its data directory as well.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@place_option
@state_options
def command(name: str, with_data: bool, yes: bool, place: Path | None, host: HostOptions) -> int:
    """Take the plugin NAME out of the plugin directory, at once and as a whole; asks first.

    A host that watches the directory unloads it then. What it keeps in its data directory stays,
    unless --data is given, which is refused while a host has it loaded. NAME is a plugin's name,
    or that of its file, for one that cannot be read.

    \b
    Example:
      sandbox-host remove weather_model
    """
    config = host.read()
    where = directory_of(config, place)
    with Journal(config.journal_path) as journal:
        plugins = place_for(where, journal)
        with plugins.held():
            found = find_plugin(where, name)
        directories = DataDirectories(config.state_dir, tell=journal.append)
        data = _data_of(found, directories) if with_data else None
        _show(found, data)
        if not agreed("Remove it?", yes):
            fail("nothing was removed.")
            return Exit.REFUSED
        with plugins.held():
            # Looked up anew: somebody may have taken its place while the question stood.
            placed = plugins.remove(find_plugin(where, found.path.name))
        if placed.left:
            note(f"note: not all of it could be erased: {placed.left}")
        if found.manifest:
            Switches(config.state_dir).enable(found.manifest.identity)
        journal.sync()
        tell_readme(where, config)
        left = directories.remove(data.identity).left if data else ()
    for one in left:
        note(f"note: {one.path} could not be removed: {one.reason}")
    say(f"{_name(found)}: removed{', with its data' if data else ''}")
    return Exit.OK


def _name(found: Discovered) -> str:
    return clean(found.manifest.identity if found.manifest else found.path.name)


def _data_of(found: Discovered, directories: DataDirectories) -> DataDirectory | None:
    """Return the data directory that is to go as well; None where there is none.

    Raises:
        DataInUseError: a host has the plugin loaded; nothing was removed.
    """
    if found.manifest is None:
        return None
    try:
        data = directories.measure_one(found.manifest.identity)
    except PluginNotFoundError:
        return None
    if data.loaded:
        text = (
            f"{data.identity} is loaded by process {data.host or 'unknown'}; nothing was removed."
        )
        remedy = f"`sandbox-host disable {data.identity}` first, so that its host unloads it; or "
        remedy += "leave out --data."
        raise DataInUseError(text, plugin=data.identity, remedy=remedy)
    return data


def _show(found: Discovered, data: DataDirectory | None) -> None:
    version = f" {found.manifest.version}" if found.manifest else ""
    say(f"{_name(found)}{version}, in {found.path}")
    if data:
        say(f"{size(data.bytes)} of data, in {data.path}")
