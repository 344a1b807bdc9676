"""``sandbox-host call``: one operation, its arguments and its result as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sandbox_host.cli.downgrades import allow_downgrade
from sandbox_host.cli.exits import Exit, exit_for
from sandbox_host.cli.failure import show_log, show_trace
from sandbox_host.cli.options import BUNDLE, host_options
from sandbox_host.cli.output import fail, no_library_notes, note, working
from sandbox_host.cli.recorded import note_stopped, recording_options
from sandbox_host.cli.values import shown
from sandbox_host.errors import PluginError, UsageError
from sandbox_host.runtime.blocking import BlockingHost
from sandbox_host.service.client import ask

if TYPE_CHECKING:
    from sandbox_host.admission.history import Downgrade
    from sandbox_host.cli.options import HostOptions
    from sandbox_host.config import HostConfig
    from sandbox_host.observe.recorder import RecordingOptions
    from sandbox_host.runtime.blocking import BlockingPlugin


# An unknown option is taken for an argument, so that -5 can be one.
@click.command(
    "call",
    short_help="Run one operation of a plugin and print its result.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("plugin", metavar="PLUGIN")
@click.argument("operation")
@click.argument("arguments", metavar="[JSON]...", nargs=-1)
@click.option("--kw", "keywords", multiple=True, metavar="NAME=JSON", help="A keyword argument.")
@click.option(
    "--deadline",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How long the call may take. Default: the plugin's own wall time limit.",
)
@click.option(
    "--running",
    is_flag=True,
    help="PLUGIN is the name of one that the running service has loaded.",
)
@recording_options
@allow_downgrade
@host_options
def command(
    plugin: str,
    operation: str,
    arguments: tuple[str, ...],
    keywords: tuple[str, ...],
    deadline: float | None,
    running: bool,
    record: RecordingOptions | None,
    downgrades: tuple[Downgrade, ...],
    host: HostOptions,
) -> int:
    """Load PLUGIN, call OPERATION with JSON values, and print the result as JSON.

    PLUGIN is a directory or an archive; with --running, the name of a plugin that the running
    service has loaded, which is called where it is. Text needs its own quotes: '"two words"'.
    Bytes in a result are shown as {"base64": ...}, an array as nested lists.

    \b
    Example:
      sandbox-host call word_counter count '"one two two"'
      sandbox-host call weather_source read --kw limit=3 --deadline 2
      sandbox-host call --running weather_source read
      sandbox-host call login check --kw 'token="..."' --record login.recording --redact token
    """
    values = [_value(text, f"argument {place}") for place, text in enumerate(arguments, 1)]
    named = dict(_keyword(text) for text in keywords)
    config = host.read()
    if running:
        if record is not None or downgrades:
            text = "--record and --allow-downgrade are about loading, and --running loads nothing."
            raise UsageError(text, remedy="Give them to `sandbox-host run`, or to `load`.")
        told = _asked(config, plugin, operation, values, named, deadline)
        click.echo(json.dumps(told, default=shown))
        return Exit.OK
    directory = _bundle(plugin)
    try:
        result = _called(config, directory, operation, values, named, deadline, downgrades, record)
    except PluginError as error:
        show_trace(error)
        fail(str(error))
        show_log(error.plugin, config.state_dir)
        return exit_for(error)
    # ASCII only: what a plugin returned must not act on the terminal.
    click.echo(json.dumps(result, default=shown))
    return Exit.OK


def _bundle(text: str) -> Path:
    """Return the path of a plugin's directory or archive, or complain as click does."""
    context = click.get_current_context()
    (argument,) = (one for one in context.command.params if one.name == "plugin")
    path: Path = BUNDLE.convert(text, argument, context)
    return path


def _asked(
    config: HostConfig,
    plugin: str,
    operation: str,
    values: list[Any],
    named: dict[str, Any],
    deadline: float | None,
) -> Any:
    with working(f"calling {operation}"):
        told = ask(
            config.state_dir,
            "call",
            plugin=plugin,
            operation=operation,
            arguments=values,
            keywords=named,
            deadline=deadline,
        )
    return told["value"]


def _called(
    config: HostConfig,
    directory: Path,
    operation: str,
    values: list[Any],
    named: dict[str, Any],
    deadline: float | None,
    downgrades: tuple[Downgrade, ...],
    record: RecordingOptions | None,
) -> Any:
    loaded: list[BlockingPlugin] = []
    try:
        # What the library would warn of is in the error that it raises, and in the plan's notes.
        with no_library_notes(), BlockingHost(config) as running:
            with working(f"loading {directory}"):
                plugin = running.load(directory, downgrades=downgrades, record=record)
            loaded.append(plugin)
            for text in (*plugin.plan.notes, *running.lacking(plugin.name)):
                note(f"note: {text}")
            with working(f"calling {operation}"):
                return plugin.call(operation, *values, deadline=deadline, **named)
    finally:
        note_stopped(loaded)


def _value(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        raise UsageError(
            f"{what}, {text[:80]!r}, is not a JSON value: {why}.",
            remedy="Text needs quotes of its own, as in '\"two words\"'.",
        ) from None


def _keyword(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise UsageError(f"--kw {text[:80]!r} is not NAME=JSON.", remedy="Write --kw limit=3.")
    if name == "deadline":
        raise UsageError(
            "--kw cannot pass an argument called deadline: that is the host's own.",
            remedy="Pass it by its place, or mean --deadline SECONDS.",
        )
    return name, _value(value, f"--kw {name}")
