"""Write a file that a command makes, such as a report: whole or not at all, and through no link.

Where a CI job runs, a stranger's branch is checked out: a link in it where a report is to be
written must not choose another file, nor another directory.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final, NoReturn

from sandbox_host.bundle.names import shown
from sandbox_host.errors import ConfigError

_MODE: Final = 0o644
_STEP: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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
            _replace(parent, name, data)
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


def _replace(parent: int, name: str, data: bytes) -> None:
    temporary = f".{secrets.token_hex(8)}.tmp"
    try:
        with os.fdopen(os.open(temporary, _CREATE, _MODE, dir_fd=parent), "wb") as file:
            # A CI job's umask must not decide who may pick the file up.
            os.fchmod(file.fileno(), _MODE)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=parent)
        raise


def _refuse(path: Path, what: str, reason: str, cause: OSError | None = None) -> NoReturn:
    raise ConfigError(
        f"{what} cannot be written to {shown(str(path))}: {reason}.",
        remedy="Name a file in a directory that exists, and that no symbolic link leads to.",
    ) from cause
