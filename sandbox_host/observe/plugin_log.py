"""What a plugin printed, in a file with a bound: kept as it is, shown with its controls escaped."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from sandbox_host.errors import ConfigError
from sandbox_host.reading import escaped

_TAIL_BYTES: Final = 64 * 1024
_MAX_LINE_LENGTH: Final = 8_000


class PluginLog:
    """One plugin's output, standard output and error in the order they were read.

    At ``limit_bytes`` the file becomes ``<name>.1``, replacing an older one, and a new one starts:
    on disk it is never more than twice the limit.

    Args:
        path: the file; its directory exists and is ours.
        limit_bytes: size at which a new file is started.

    Raises:
        ConfigError: the file cannot be written.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.path = path
        self._limit_bytes = limit_bytes
        self._file = -1
        self._size = 0
        self.lost_bytes = 0
        self._printed = bytearray()
        self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._file = os.open(self.path, flags, 0o600)
        except OSError as error:
            text = f"The log {self.path} cannot be written: {error.strerror}."
            remedy = "Remove what stands there, or name another state directory."
            raise ConfigError(text, remedy=remedy) from None
        self._size = os.fstat(self._file).st_size

    def write(self, data: bytes, *, printed: bool = True) -> None:
        """Append; what a full disk does not take is counted in ``lost_bytes``, never raised.

        Args:
            data: any bytes.
            printed: whether the plugin printed them; what the host adds is not in `printed`.
        """
        if printed:
            self._printed += data
            del self._printed[:-_TAIL_BYTES]
        if self._file < 0:
            self.lost_bytes += len(data)
            return
        try:
            if self._size + len(data) > self._limit_bytes and self._size:
                self._rotate()
            self._size += os.write(self._file, data)
        except (OSError, ConfigError):
            self.lost_bytes += len(data)

    def _rotate(self) -> None:
        os.close(self._file)
        self._file = -1
        os.replace(self.path, self.path.with_name(self.path.name + ".1"))
        self._open()

    def tail(self, lines: int) -> list[str]:
        """Return the last lines, at most 8,000 characters of each, control characters escaped."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                return _last(file.read(_TAIL_BYTES), lines)
        except OSError:
            return []

    def printed(self, lines: int) -> list[str]:
        """Return the same of what went through this object, out of the last 64 KiB of it.

        The file goes on from one process of the plugin to the next.
        """
        return _last(bytes(self._printed), lines)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = -1


def _last(data: bytes, lines: int) -> list[str]:
    text = data.decode("utf-8", "replace")
    return [escaped(line, _MAX_LINE_LENGTH) for line in text.splitlines()[-lines:]]
