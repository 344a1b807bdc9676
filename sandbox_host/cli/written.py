"""Write a file that a command makes, such as a report: whole or not at all, and through no link.

Where a CI job runs, a stranger's branch is checked out: a link in it where a report is to be
written must not choose another file, nor another directory.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Final, NoReturn

from sandbox_host.bundle.names import shown
from sandbox_host.errors import ConfigError
from sandbox_host.replacing import replacing

_MODE: Final = 0o644
_STEP: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def write_file(path: Path, data: bytes, what: str) -> None:
    """Write `path`, or replace it in one step, with mode 0644.

    Args:
        path: its directory must be there; neither it nor any directory on the way that `path`
            names may be a symbolic link.
        data: all of it.
        what: what it is, for messages ("the report").

    Raises:
        ConfigError: it cannot be written there, or something else than a file stands there.
    """
    name = path.name
    if not name or name == "..":
        _refuse(path, what, "it names a directory")
    try:
        parent = _open_parent(path, what)
        try:
            _check_replaceable(parent, name, path, what)
            # A CI job's umask must not decide who may pick the file up.
            with replacing(parent, name, _MODE, exactly=_MODE) as file:
                file.write(data)
        finally:
            os.close(parent)
    except OSError as error:
        _refuse(path, what, error.strerror or str(error), error)


def _open_parent(path: Path, what: str) -> int:
    """Return a descriptor of the directory that `path` is in, reached without following a link."""
    descriptor = os.open(path.anchor or ".", _STEP)
    try:
        for part in path.parent.parts:
            if part == path.anchor:
                continue
            following = _step(part, descriptor, path, what)
            os.close(descriptor)
            descriptor = following
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _step(part: str, parent: int, path: Path, what: str) -> int:
    try:
        return os.open(part, _STEP, dir_fd=parent)
    except OSError as error:
        mode = 0
        with contextlib.suppress(OSError):
            mode = os.stat(part, dir_fd=parent, follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            _refuse(path, what, f"{shown(part)} on the way is a symbolic link", error)
        raise


def _check_replaceable(parent: int, name: str, path: Path, what: str) -> None:
    try:
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode):
        _refuse(path, what, "it is a symbolic link")
    if not stat.S_ISREG(mode):
        _refuse(path, what, "it is there already, and is no regular file")


def _refuse(path: Path, what: str, reason: str, cause: OSError | None = None) -> NoReturn:
    raise ConfigError(
        f"{what} cannot be written to {shown(str(path))}: {reason}.",
        remedy="Name a file in a directory that exists, and that no symbolic link leads to.",
    ) from cause
