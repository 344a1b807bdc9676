"""The options of commands that make recordings, and of those that play them."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sandbox_host.cli.options import FILE
from sandbox_host.cli.output import note
from sandbox_host.errors import UsageError
from sandbox_host.observe.recorder import RecordingOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox_host.runtime.blocking import BlockingPlugin

_RECORD: Any = click.option(
    "--record",
    type=FILE,
    metavar="FILE",
    help="Keep what is said to the plugin and by it in this file, or in one in this directory, "
    "for `sandbox-host replay`.",
)


def _tolerated(_context: click.Context, _option: click.Parameter, value: float) -> float:
    if not 0 <= value < math.inf:
        raise UsageError(f"--tolerance {value} is no number from 0 on.")
    return value


_TOLERANCE: Any = click.option(
    "--tolerance",
    type=float,
    default=0.0,
    metavar="NUMBER",
    callback=_tolerated,
    help="Numbers are the same that differ by no more than this, or by this part of them.",
)
_IGNORE: Any = click.option(
    "--ignore",
    multiple=True,
    metavar="FIELD",
    help="Do not compare fields with this name. May be repeated.",
)
_REDACT: Any = click.option(
    "--redact",
    multiple=True,
    metavar="FIELD",
    help="Keep no value of fields with this name. May be repeated.",
)


def recording_options(function: Any) -> Any:
    """Add the options; the function gets ``record``, a `RecordingOptions` or None."""

    @functools.wraps(function)
    def command(*, record: Path | None, redact: tuple[str, ...], **arguments: Any) -> Any:
        if record is None and redact:
            text = "--redact is about what --record keeps, and that is not given."
            raise UsageError(text, remedy="Name a file with --record FILE.")
        options = None if record is None else RecordingOptions(record, redact)
        return function(record=options, **arguments)

    return _RECORD(_REDACT(command))


def note_stopped(plugins: Iterable[BlockingPlugin]) -> None:
    """Tell of recordings that stopped before their plugins did, which have ended by now."""
    for plugin in plugins:
        if plugin.recording_problem:
            note(f"note: the recording of {plugin.name} stopped: {plugin.recording_problem}.")


def comparison_options(function: Any) -> Any:
    """Add ``--tolerance`` and ``--ignore``: what may differ from a recording."""
    return _TOLERANCE(_IGNORE(function))
