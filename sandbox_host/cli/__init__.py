"""The command ``sandbox-host``: one file per command, and nothing that the library cannot do.

Standard output carries data only; notes and errors go to standard error. What comes in are
arguments of an operator or author, and through the files they name, text from strangers: it is
escaped before a terminal sees it.

Nothing is imported before it is needed, so that ``sandbox-host --help`` answers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: without the program's name; None takes those of this process.
    """
    from sandbox_host.cli.app import run

    return run(arguments)
