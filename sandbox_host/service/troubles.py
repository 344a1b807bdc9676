"""Why something that lies in a plugin directory does not run: for the plugin, or one instance."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from sandbox_host.reading import escaped

if TYPE_CHECKING:
    from pathlib import Path

MAX_REASON: Final = 1_000


class Troubles:
    """By path and, for one of several instances, identity. Not thread-safe."""

    def __init__(self) -> None:
        self._told: dict[tuple[Path, str], str] = {}

    def add(self, path: Path, reason: str, instance: str = "") -> None:
        """Note one; hostile text is escaped."""
        self._told[path, instance] = escaped(reason, MAX_REASON)

    def forget(self, path: Path, instance: str | None = None) -> None:
        """Know of none there any more.

        Args:
            path: where.
            instance: only of this one; None for all.
        """
        for key in [key for key in self._told if key[0] == path and instance in {None, key[1]}]:
            del self._told[key]

    def get(self, path: Path, instance: str = "") -> str:
        """Return the reason; "" for none."""
        return self._told.get((path, ""), "") or self._told.get((path, instance), "")

    def clear(self) -> None:
        """Know of none any more."""
        self._told.clear()

    def all(self) -> dict[str, str]:
        """Return them by path, without what is gone; those of instances one after the other."""
        self._told = {key: why for key, why in self._told.items() if os.path.lexists(key[0])}
        shown: dict[str, list[str]] = {}
        for (path, instance), why in sorted(self._told.items()):
            shown.setdefault(str(path), []).append(f"{instance}: {why}" if instance else why)
        return {path: " ".join(reasons) for path, reasons in shown.items()}
