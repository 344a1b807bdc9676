"""Directories deeper than any path can name, made and removed through descriptors."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def make_deep(directory: Path, levels: int) -> None:
    """Make so many directories named ``d``, each in the one before, and a ``file`` in the last."""
    here = os.open(directory, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        after = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = after
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=here))
    os.close(here)


def remove_deep(directory: Path) -> None:
    """Remove what `make_deep` made: pytest's own removal recurses."""
    subprocess.run(["rm", "-rf", "--", str(directory)], check=True)
