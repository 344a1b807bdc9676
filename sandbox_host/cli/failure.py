"""What a failed plugin's own process told: shown to its author or operator, beside the error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sandbox_host.cli.output import note, place
from sandbox_host.errors import OperationError, PluginError, StartError

if TYPE_CHECKING:
    from pathlib import Path

_PRIVATE_COPY: Final = re.compile(r'(?<=File ")[^"]*/bundles/[^/"]+/[^/"]+/')
"""Where the private copy was: gone by the time that anybody reads this."""


def show_trace(error: PluginError) -> None:
    """Show where in its own code a plugin failed, as its process told; most errors have no such."""
    told = error.traceback_text if isinstance(error, OperationError | StartError) else ""
    lines = told.strip().splitlines()
    if lines:
        note("What the plugin's process told, the place of the error last:")
    for line in lines[1:]:
        note(f"  | {_PRIVATE_COPY.sub('', line)}")


def show_log(plugin: str, state_dir: Path) -> None:
    """Show where the output of a plugin that failed is, if it has any.

    Args:
        plugin: its identity.
        state_dir: the host's.
    """
    path = state_dir / "logs" / f"{plugin}.log"
    if path.is_file() and path.stat().st_size:
        note(f"log: {place(path)}")
