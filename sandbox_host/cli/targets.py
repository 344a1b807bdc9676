"""Options such as ``--format sarif=out.sarif``: what to write, and to which file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from sandbox_host.cli.output import place
from sandbox_host.errors import UsageError


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to write.

    Attributes:
        kind: what.
        path: the file; None is standard output.
    """

    kind: str
    path: Path | None


def reads_targets(
    *kinds: str,
) -> Callable[[click.Context, click.Parameter, Iterable[str]], tuple[Target, ...]]:
    """Return a callback for an option that takes ``KIND``, or ``KIND=FILE``, several times.

    ``KIND=-`` is standard output as well. click reports what is wrong.
    """

    def read(value: str, param: click.Parameter) -> Target:
        kind, equals, path = value.partition("=")
        if kind not in kinds:
            raise click.BadParameter(f"{kind[:64]!r} is none of {', '.join(kinds)}.", param=param)
        if equals and (not path or "\0" in path):
            raise click.BadParameter(f"{kind}= needs a file's name after it.", param=param)
        return Target(kind, Path(path) if equals and path != "-" else None)

    def callback(
        ctx: click.Context, param: click.Parameter, values: Iterable[str]
    ) -> tuple[Target, ...]:
        del ctx
        return tuple(read(value, param) for value in values)

    return callback


def check_targets(targets: Iterable[Target], option: str) -> tuple[Target, ...]:
    """Return the targets if each has a place of its own.

    Args:
        targets: as the command line has them.
        option: what they were given with, for the message.

    Raises:
        UsageError: two would go to standard output, or to the same file.
    """
    checked = tuple(targets)
    places = [None if one.path is None else os.path.abspath(one.path) for one in checked]
    for index, where in enumerate(places):
        if where in places[:index]:
            what = "standard output" if where is None else place(checked[index].path)
            raise UsageError(
                f"{option} {checked[index].kind} would be written to {what}, as another one is.",
                remedy=f"Name a file for each but one: {option} {checked[index].kind}=FILE.",
            )
    return checked
