"""The README that `sandbox-host run --manifest` keeps up to date with what is loaded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from sandbox_host.catalog.readme import update_readme
from sandbox_host.cli.output import fail
from sandbox_host.errors import ConfigError
from sandbox_host.runtime.lifecycle import ENDED

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from sandbox_host.runtime.blocking import BlockingHost

Entries = dict[str, dict[str, Any]]


class Readme:
    """The README that says what is loaded, or none.

    One that cannot be written stops the start. Later that is only told: a README is no reason to
    end a plugin.

    Args:
        path: the README, or None.
        disabled: what is discovered and disabled.
    """

    def __init__(self, path: Path | None, disabled: Entries) -> None:
        self._path = path
        self._disabled = disabled
        self._active: Entries = {}

    def __enter__(self) -> Self:
        self._write()
        return self

    def update(self, running: BlockingHost) -> None:
        """Say what is loaded now, if that is something else than before."""
        active = {
            plugin.name: {
                "version": plugin.version,
                "description": plugin.plan.manifest.description,
                "capabilities": list(plugin.plan.manifest.capabilities),
                "status": str(plugin.state),
            }
            for plugin in running.plugins.values()
            if plugin.state not in ENDED
        }
        if active != self._active:
            self._active = active
            try:
                self._write()
            except ConfigError as error:
                fail(str(error))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._active = {}
        try:
            self._write()
        except ConfigError as problem:
            if kind is None:
                raise
            fail(str(problem))  # and what ended the command goes on to decide its exit code

    def _write(self) -> None:
        if self._path is not None:
            update_readme(self._path, self._active, self._disabled, datetime.now(UTC))
