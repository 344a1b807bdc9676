"""How commands speak: data on standard output, everything else on standard error.

Whatever is printed passes through here, and is escaped here: a plugin's name, a file's name or an
error's text may hold what a terminal would obey. Tables fit 80 columns and need no colour.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from sandbox_host.reading import escaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PROGRAM: Final = "sandbox-host"
SCHEMA_VERSION: Final = 1
"""Of every JSON document that a command prints."""

_MAX_LINE: Final = 8_000
_LABEL_WIDTH: Final = 12
_STARTED_NOT: Final = re.compile(r"[a-z0-9_@]+ did not start: \w+\.")
"""The one warning that is no news: the error that whoever loads the plugin gets says why, too."""


def clean(text: object) -> str:
    """Return text on one line, with everything escaped that a terminal would act on."""
    return escaped(str(text), _MAX_LINE)


def place(path: object) -> str:
    """Return a path for a message, without the ``..`` and ``.`` that led there."""
    return os.path.normpath(str(path))


def say(text: str = "") -> None:
    """Print a line of data."""
    click.echo(clean(text))


def note(text: str) -> None:
    """Tell something that is not data; where nobody can be told, go on."""
    try:
        click.echo(clean(text), err=True)
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Keep the interpreter from flushing again, when it ends, into what cannot be written."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def fail(text: str) -> None:
    """Tell one paragraph of what went wrong."""
    note(f"{PROGRAM}: {text}")


def field(label: str, value: object) -> None:
    """Print one labelled value; long ones are left to the terminal to wrap, and to scripts."""
    say(f"  {label:<{_LABEL_WIDTH}}{value}")


def print_json(value: dict[str, Any]) -> None:
    """Print a document, with its schema's version; ASCII only, so that nothing can hide in it."""
    click.echo(json.dumps({"schema_version": SCHEMA_VERSION, **value}, indent=2))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table that folds its cells to the terminal's width, or to 80 columns."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    class DataConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would choose the exit code otherwise

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        # Text, not str: what a plugin is called must not be taken for markup.
        table.add_row(*(Text(clean(cell)) for cell in row))
    DataConsole(file=sys.stdout, highlight=False).print(table)


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Show on a terminal that something takes its time; a file or pipe gets nothing of it."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(f"{escape(clean(what))} ..."):
        yield


class _Notes(logging.Handler):
    """Shows the library's warnings to whoever runs the command."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if not _STARTED_NOT.fullmatch(text):
            note(f"note: {text}")


@contextlib.contextmanager
def library_notes() -> Iterator[None]:
    """Show what the library warns of as notes, and only inside the block."""
    logger = logging.getLogger("sandbox_host")
    handler = _Notes(logging.WARNING)
    logger.addHandler(handler)
    before, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.propagate = before
        logger.removeHandler(handler)


@contextlib.contextmanager
def no_library_notes() -> Iterator[None]:
    """Show none of them inside the block: its own report says the same."""
    logger = logging.getLogger("sandbox_host")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
