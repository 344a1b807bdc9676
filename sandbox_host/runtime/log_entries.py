"""Entries that a plugin logs as messages: into its log file, and on to the application's `logging`.

Level, logger and text are the plugin's own words. In the file an entry is ``LEVEL logger: text``
with the lines after the first indented; what is printed may look like one all the same. To
`logging` it goes as a record of the logger ``sandbox_host.plugin.<identity>`` with the attributes
``plugin`` and ``plugin_logger``, in a thread of its own, because handlers are the application's and
may take their time, raise, or call plugins. More than so many in a second, or than may wait for the
handlers, are counted, and are in the file alone.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.limits import MAX_ERROR_TEXT_BYTES, Bounds
from sandbox_host.backends.worker import Worker
from sandbox_host.budget.rate import Sayings
from sandbox_host.reading import escaped

if TYPE_CHECKING:
    from sandbox_host.runtime.output import Output

_log = logging.getLogger("sandbox_host")

PER_SECOND: Final = 100.0
BURST: Final = 1_000.0
"""Of records for the application, in the long run and after a quiet time."""

_TEXT: Final = Bounds(MAX_ERROR_TEXT_BYTES, 0, 0, 1)
_MAX_RECORD: Final = 2_000
_MAX_ENTRY: Final = 4 * MAX_ERROR_TEXT_BYTES
_MAX_NAME: Final = 200
MAX_WAITING: Final = 1_000
"""Records that may wait for the application's handlers."""

_LEVELS: Final = {
    level: logging.getLevelName(level)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
}


class LogEntries:
    """Takes those of one process.

    Args:
        identity: the plugin's.
        output: its log file.
    """

    def __init__(self, identity: str, output: Output) -> None:
        self._identity = identity
        self._output = output
        self._logger = logging.getLogger(f"sandbox_host.plugin.{identity}")
        self._told = Sayings(PER_SECOND, BURST)

    def take(self, level: int, logger: str, payload: bytes) -> None:
        """Take one entry.

        Args:
            level: Python's number of it; one out of range counts as the nearest.
            logger: its logger's name.
            payload: the text, packed; hostile.

        Raises:
            PayloadError: it is no text, or too long: the plugin is to be ended.
        """
        text = codec.unpack(payload, _TEXT)
        if not isinstance(text, str):
            problem = "the payload of a Log is text"
            raise PayloadError(problem)
        number = min(max(level, logging.DEBUG), logging.CRITICAL)
        name = escaped(logger, _MAX_NAME)
        lines = escaped(text.rstrip("\r\n"), _MAX_ENTRY, keep="\n\t").split("\n")
        by = "" if name == self._identity else f"{name}: "
        entry = "\n    ".join(lines)
        shown = _LEVELS.get(number, f"LEVEL{number}")
        self._output.add(f"{shown} {by}{entry}\n".encode("utf-8", "backslashreplace"))
        if self._logger.isEnabledFor(number):
            self._hand_on(number, name, lines)

    def _hand_on(self, level: int, name: str, lines: list[str]) -> None:
        # No line of it looks like one that the log itself began.
        text = "\n    | ".join(lines)
        if len(text) > _MAX_RECORD:
            text = f"{text[:_MAX_RECORD]}..."
        told = self._told.told(text, time.monotonic())
        if told and not _records.put(self._logger, level, name, told, self._identity):
            self._told.untold(1)


class _Records:
    """Those that wait for the application's handlers, of all hosts of this process."""

    def __init__(self) -> None:
        self._worker = Worker("sandbox-host-log")
        self._waiting = 0
        self._lock = threading.Lock()

    def put(self, logger: logging.Logger, level: int, name: str, text: str, plugin: str) -> bool:
        """Hand a record on; False where too many wait."""
        with self._lock:
            if self._waiting >= MAX_WAITING:
                return False
            self._waiting += 1
        self._worker.submit(lambda: self._emit(logger, level, name, text, plugin))
        return True

    def _emit(self, logger: logging.Logger, level: int, name: str, text: str, plugin: str) -> None:
        try:
            extra = {"plugin": plugin, "plugin_logger": name}
            logger.log(level, "%s: %s", name, text, extra=extra)
        except Exception:  # noqa: BLE001 - it is the application's
            # A handler or filter of the application's: it must hear of it, and of the next record.
            _log.exception("a handler of %s failed", logger.name)
        finally:
            with self._lock:
                self._waiting -= 1


_records = _Records()
os.register_at_fork(after_in_child=_records.__init__)  # type: ignore[misc]  # its thread is the original's
