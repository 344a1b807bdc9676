"""Chooses the backend: the only file that names an operating system."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING

from sandbox_host.errors import ConfinementError

if TYPE_CHECKING:
    from sandbox_host.backends.base import Backend


@functools.cache
def select_backend() -> Backend:
    """Return this system's backend.

    Raises:
        ConfinementError: there is none; nothing is ever run without one.
    """
    system = sys.platform
    if system == "linux":
        from sandbox_host.backends.linux.backend import LinuxBackend

        return LinuxBackend()
    text = f"No plugin can be run here: this version confines plugins on Linux, not {system}."
    remedy = "Signing, verifying and inspecting work; run plugins on Linux."
    raise ConfinementError(text, layer="backend", remedy=remedy)
