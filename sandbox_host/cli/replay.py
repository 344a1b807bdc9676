"""``sandbox-host replay``: a recording played against another version of the plugin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sandbox_host.bundle.rules import check_contents
from sandbox_host.bundle.source import read_bundle
from sandbox_host.cli.describe import counted
from sandbox_host.cli.exits import Exit, exit_for
from sandbox_host.cli.failure import show_trace
from sandbox_host.cli.options import FILE, output_format, plugin_bundle, trial_options
from sandbox_host.cli.output import fail, no_library_notes, note, print_json, say, working
from sandbox_host.cli.recorded import comparison_options
from sandbox_host.errors import PluginError
from sandbox_host.observe.recording import STOPPED
from sandbox_host.observe.recording_reader import read_recording
from sandbox_host.runtime.replay import MAX_DIFFERENCES, ReplayOptions, replay

if TYPE_CHECKING:
    from sandbox_host.cli.options import HostOptions
    from sandbox_host.observe.recording import Recording
    from sandbox_host.runtime.replay import Replayed


@click.command("replay", short_help="Play a recording against another version of a plugin.")
@click.argument("file", metavar="FILE", type=FILE)
@plugin_bundle
@click.option("--all", "every", is_flag=True, help="Go on after the first difference.")
@comparison_options
@output_format
@trial_options
def command(
    file: Path,
    directory: Path,
    every: bool,
    tolerance: float,
    ignore: tuple[str, ...],
    as_format: str,
    host: HostOptions,
) -> int:
    """Play what FILE recorded against PLUGIN, in the sandbox, and show the first difference.

    FILE was made with --record. PLUGIN, a directory or an archive, needs no signature: a copy is
    tried, with a throw-away key, and nothing of yours is touched. Calls and events are sent in
    their order, one at a time. What the plugin asks the host for is answered as it was; network,
    time and random numbers are not. The exit code is 0 where all is the same, and 1 where not.

    \b
    Example:
      sandbox-host replay count.recording word_counter
      sandbox-host replay day.recording weather_model --tolerance 1e-9 --ignore computed_at
    """
    config = host.read()
    contents = read_bundle(directory)
    services = check_contents(contents.files).permissions.services
    recording = read_recording(file)
    options = ReplayOptions(every, tolerance, ignore)
    try:
        with no_library_notes(), working(f"replaying {file}"):
            replayed = replay(recording, contents, services, config, options)
    except PluginError as error:
        show_trace(error)
        fail(str(error))
        return exit_for(error)
    if as_format == "json":
        print_json(_document(recording, replayed))
    else:
        _show(recording, replayed)
    return Exit.REFUSED if replayed.found else Exit.OK


def _show(recording: Recording, replayed: Replayed) -> None:
    about = recording.about
    if STOPPED[recording.stopped]:
        note(f"note: the recording stops early: {STOPPED[recording.stopped]}")
    for text in replayed.notes:
        note(f"note: {text}")
    for one in replayed.skipped:
        note(f"note: {one.name} #{one.step} was not compared: {one.why}")
    for found in replayed.found:
        say(str(found))
    if len(replayed.found) >= MAX_DIFFERENCES:
        note(f"note: no more than {MAX_DIFFERENCES} differences are looked for")
    versions = f"{about.plugin} {about.version} as recorded, and {replayed.version}"
    if replayed.found:
        note(f"{counted(len(replayed.found), 'difference')} between {versions}")
    else:
        say(f"the same: {counted(replayed.compared, 'step')}")
        note(f"compared: {versions}")


def _document(recording: Recording, replayed: Replayed) -> dict[str, Any]:
    about = recording.about
    return {
        "same": not replayed.found,
        "plugin": about.plugin,
        "recorded": {
            "version": about.version,
            "digest": about.digest,
            "host_version": about.host_version,
            "started_at": about.started_at,
            "redacted": list(about.redacted),
            "stopped": recording.stopped,
        },
        "replayed": {"version": replayed.version},
        "compared": replayed.compared,
        "skipped": [{"step": x.step, "name": x.name, "why": x.why} for x in replayed.skipped],
        "differences": [
            {
                "step": one.step,
                "name": one.name,
                "path": one.difference.path,
                "recorded": one.difference.recorded,
                "replayed": one.difference.replayed,
            }
            for one in replayed.found
        ],
        "notes": replayed.notes,
    }
