"""Chooses the backend: the only file that names an operating system."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from sandbox_host.errors import ConfinementError

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox_host.backends.base import Backend, Options


def select_backend(options: Options, python: Path, sdk_dir: Path) -> Backend:
    """Return this system's backend for one host, which closes it.

    Args:
        options: what the operator decided.
        python: the interpreter to run; never a virtual environment's.
        sdk_dir: private copy of `plugin_sdk` and `msgpack`, which plugins' processes import.

    Raises:
        ConfinementError: there is none; nothing is ever run without one.
    """
    system = sys.platform
    if system == "linux":
        from sandbox_host.backends.linux.backend import LinuxBackend

        return LinuxBackend(options, python, sdk_dir)
    text = f"No plugin can be run here: this version confines plugins on Linux, not {system}."
    remedy = "Signing, verifying and inspecting work; run plugins on Linux."
    raise ConfinementError(text, layer="backend", remedy=remedy)
