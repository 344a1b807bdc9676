"""What the journal is told of a host and of its plugins' lives, beside admissions.

Of the permissions that a plugin has, the host tells the use of three: a connection that it made for
the plugin (``network``), an event that it handed out for it (``publish``) and a call of another
plugin (``calls``). The first use of each address, type and operation is told, once for each time
that the plugin is loaded. Files and variables the plugin uses itself, within what confines it, and
nobody tells.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from typing import TYPE_CHECKING, Final

from sandbox_host.errors import SandboxHostError
from sandbox_host.health.verdict import HealthStatus
from sandbox_host.model import Cause, State
from sandbox_host.observe.journal import Journal
from sandbox_host.observe.journal_forward import SystemJournal
from sandbox_host.supervision.lifecycle import JOURNAL, Trigger

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox_host.config import HostConfig
    from sandbox_host.health.hysteresis import StatusChange
    from sandbox_host.observe.journal import JournalEntry
    from sandbox_host.runtime.process import PluginProcess

_log = logging.getLogger("sandbox_host")

MAX_USES: Final = 64
"""So many uses of one plugin are told; a pattern that is granted may have no end of them."""

_BY_ITSELF: Final = frozenset(
    {Cause.CRASHED, Cause.EXITED, Cause.KILLED, Cause.START_FAILED, Cause.UNKNOWN}
)
"""Causes of failures that are none of the host's doing."""


class Chronicle:
    """The journal of one host, open.

    Args:
        config: where it is, and whether it is forwarded.
        heard: is given every line that this host has written; must not wait.

    Attributes:
        journal: for whoever has more to write.

    Raises:
        JournalError: it cannot be written, or is not what hosts wrote.
    """

    def __init__(
        self, config: HostConfig, heard: Callable[[JournalEntry], object] | None = None
    ) -> None:
        self._system = SystemJournal() if config.forward_journal else None
        self._heard = heard
        self.journal = Journal(config.journal_path, forward=self._forward)
        self._lock = threading.Lock()
        self._uses: dict[str, set[str]] = {}
        if self.journal.repaired:
            _log.warning("%s was repaired: %s", config.journal_path, self.journal.repaired)

    def _forward(self, entry: JournalEntry) -> None:
        if self._system is not None:
            self._system.send(entry)
        if self._heard is not None:
            self._heard(entry)

    def host_started(self) -> None:
        """Write down that the host runs.

        Raises:
            JournalError: it cannot be written.
        """
        self.journal.append("host_started", detail=f"pid {os.getpid()}")

    def host_stopped(self) -> None:
        """Write down that it does not, as far as that can be written."""
        lost = self._system.lost if self._system else 0
        detail = f"{lost} entries were not taken by the system journal" if lost else ""
        with contextlib.suppress(SandboxHostError, OSError):
            self.journal.append("host_stopped", detail=detail)

    def started(self, process: PluginProcess, *, again: bool) -> None:
        """Write down that a plugin is ready.

        Args:
            process: the plugin's.
            again: it failed in this host before.

        Raises:
            JournalError: it cannot be written.
        """
        identity, layers = process.identity, ", ".join(process.receipt.active)
        detail = f"pid {process.receipt.pid}, layers {layers}"
        self.journal.append("restarted" if again else "started", identity, detail)

    def ended(self, process: PluginProcess) -> None:
        """Write down how a plugin ended, as far as that can be written."""
        event = "unloaded"
        if process.state is State.FAILED:
            event = "ended" if process.cause in _BY_ITSELF else "killed"
        with self._lock:
            self._uses.pop(process.identity, None)
        self.tell(event, process.identity, f"{process.cause}: {process.cause_text}")

    def turned(self, process: PluginProcess, change: StatusChange) -> None:
        """Write down that a plugin's health is another, as far as that can be written."""
        well = change.after is HealthStatus.HEALTHY
        trigger = Trigger.RECOVER if well else Trigger.WORSEN
        detail = f"{change.after}, was {change.before}: {change.message}"
        self.tell(JOURNAL[trigger], process.identity, detail)

    def used(self, process: PluginProcess, permission: str, what: str) -> None:
        """Write down that a plugin used a permission, if for the first time since it was loaded.

        Args:
            process: the plugin's.
            permission: by its name in plugin.json.
            what: the entry of it, such as an address; the plugin's own text.
        """
        use = f"{permission}: {what}"
        with self._lock:
            uses = self._uses.setdefault(process.identity, set())
            if use in uses or len(uses) >= MAX_USES:
                return
            uses.add(use)
        self.tell("permission_used", process.identity, use)

    def tell(self, event: str, plugin: str, detail: str) -> None:
        """Write a line, as far as that can be done."""
        try:
            self.journal.append(event, plugin, detail)
        except (SandboxHostError, OSError) as error:
            _log.error("%s", error)

    def close(self) -> None:
        """Close the journal; a second time does nothing."""
        self.journal.close()
        if self._system is not None:
            self._system.close()
