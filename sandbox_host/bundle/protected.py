"""Files that the host believes, and therefore checks: the trust store and private keys.

Whoever can write the trust store decides what runs, so its file and its directory must be closed
to others; whoever can read a private key can sign, so its file must be closed even for reading.
The checks are made on open descriptors: what was checked is what is read.

Only the file and the directory that holds it are checked, not the directories above: on a shared
machine, keep both below a home directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NoReturn

from sandbox_host.bundle.names import shown
from sandbox_host.errors import TrustStoreError
from sandbox_host.reading import shown_bytes
from sandbox_host.replacing import replacing

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_SECRET_MODE: Final = 0o600
_PUBLIC_MODE: Final = 0o644
_DIRECTORY_MODE: Final = 0o700

PRIVATE_KEY: Final = "the private key"
TRUST_STORE: Final = "the trust store"
_HOW_TO_MAKE: Final[Mapping[str, str]] = {
    PRIVATE_KEY: "Check the path; `sandbox-host keygen PATH` makes a key, and `sandbox-host keygen "
    "--dev` the development key.",
    TRUST_STORE: "Check the path; `sandbox-host trust add` makes it with the first key that you "
    "trust, and `sandbox-host keygen --dev` with a development key.",
}


def read_public(path: Path, max_bytes: int, what: str) -> bytes:
    """Read a file that others may read but not write, in a directory that they may not write.

    Args:
        path: the file; its last component must not be a symbolic link.
        max_bytes: refused before anything is read.
        what: what the file is, for messages ("the trust store").

    Raises:
        TrustStoreError: the file is missing, is not a regular file, is a link, is writable by
            group or others, belongs to neither us nor root, or its directory is or does.
    """
    try:
        parent = os.open(path.parent, _OPEN_DIRECTORY)
    except OSError as error:
        _refuse_open(path, what, error)
    try:
        _check(
            os.fstat(parent), path.parent, f"the directory of {what}", stat.S_IWGRP | stat.S_IWOTH
        )
        return _read(path, path.name, parent, max_bytes, what, stat.S_IWGRP | stat.S_IWOTH)
    finally:
        os.close(parent)


def read_secret(path: Path, max_bytes: int, what: str) -> bytes:
    """Read a file that nobody but we may read.

    Raises:
        TrustStoreError: as `read_public`, and for every permission of group or others.
    """
    return _read(path, path, None, max_bytes, what, stat.S_IRWXG | stat.S_IRWXO)


def create_secret(path: Path, data: bytes, what: str) -> None:
    """Create the file `path` with mode 0600, and missing directories above it with 0700.

    Raises:
        TrustStoreError: the file exists already (nothing is ever overwritten), or cannot be made.
    """
    _create(path, data, what, _SECRET_MODE)


def create_public(path: Path, data: bytes, what: str) -> None:
    """Create the file `path`, which others may read, with mode 0644.

    Raises:
        TrustStoreError: as `create_secret`.
    """
    _create(path, data, what, _PUBLIC_MODE)


def refuse_existing(path: Path, what: str) -> None:
    """Refuse a path at which there is something already, before anything is written beside it.

    Raises:
        TrustStoreError: there is.
    """
    if os.path.lexists(path):
        raise _exists(path, what)


def _exists(path: Path, what: str) -> TrustStoreError:
    return TrustStoreError(
        f"{what} {shown(str(path))} exists already; it is never overwritten.",
        remedy="Name another file, or move this one away.",
    )


def _create(path: Path, data: bytes, what: str, mode: int) -> None:
    make_directories(path.parent)
    try:
        descriptor = os.open(path, _CREATE, mode)
    except FileExistsError as error:
        raise _exists(path, what) from error
    except OSError as error:
        _refuse_write(path, what, error)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def replace_public(path: Path, data: bytes, what: str) -> None:
    """Replace the content of `path` in one step: a reader sees the old bytes or the new.

    A new file has mode 0600; a replaced one keeps what others may read, and no more.

    Raises:
        TrustStoreError: the file cannot be written.
    """
    try:
        parent = os.open(path.parent, _OPEN_DIRECTORY)
    except OSError as error:
        _refuse_write(path, what, error)
    try:
        mode = _mode_of(path.name, parent)
        with replacing(parent, path.name, _SECRET_MODE, exactly=mode) as file:
            file.write(data)
        os.fsync(parent)
    except OSError as error:
        _refuse_write(path, what, error)
    finally:
        os.close(parent)


@contextlib.contextmanager
def locked_directory(path: Path, what: str) -> Iterator[None]:
    """Hold the one lock of a directory, so that two edits of a file in it cannot lose one.

    Raises:
        TrustStoreError: the directory cannot be opened or locked.
    """
    make_directories(path)
    try:
        descriptor = os.open(path, _OPEN_DIRECTORY)
    except OSError as error:
        _refuse_write(path, what, error)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def make_directories(path: Path) -> None:
    """Create `path` and what is missing above it, each with mode 0700.

    Raises:
        TrustStoreError: one of them cannot be created.
    """
    missing = [path, *path.parents]
    try:
        while missing and missing[-1].exists():
            missing.pop()
        for directory in reversed(missing):
            directory.mkdir(_DIRECTORY_MODE, exist_ok=True)
    except OSError as error:
        _refuse_write(path, "the directory", error)


def _mode_of(name: str, parent: int) -> int:
    """Return the mode of a file that is about to be replaced, or of a new one."""
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return _SECRET_MODE
    return stat.S_IMODE(status.st_mode) & _PUBLIC_MODE


def _read(
    path: Path, name: str | Path, parent: int | None, max_bytes: int, what: str, closed: int
) -> bytes:
    try:
        descriptor = os.open(name, _OPEN, dir_fd=parent)
    except OSError as error:
        _refuse_open(path, what, error)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise TrustStoreError(
                f"{what} {shown(str(path))} is not a regular file.", remedy="Replace it by one."
            )
        _check(status, path, what, closed)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        _refuse_open(path, what, error)
    finally:
        os.close(descriptor)
    if len(data) > max_bytes:
        raise TrustStoreError(
            f"{what} {shown(str(path))} is larger than the {shown_bytes(max_bytes)} allowed.",
            remedy="Check that this is the file you mean.",
        )
    return data


def _check(status: os.stat_result, path: Path, what: str, closed: int) -> None:
    """Refuse a foreign owner, and every permission bit of `closed`."""
    where = f"{what} {shown(str(path))}"
    # Root can change everything anyway, so a store that root keeps for us adds no trust.
    if status.st_uid not in {os.geteuid(), 0}:
        raise TrustStoreError(
            f"{where} belongs to user {status.st_uid}, neither to you nor to root.",
            remedy="Copy what you trust of it into a file of your own.",
        )
    wrong = stat.S_IMODE(status.st_mode) & closed
    if wrong:
        can = "accessible" if closed & stat.S_IRGRP else "writable"
        remove = "go-rwx" if closed & stat.S_IRGRP else "go-w"
        raise TrustStoreError(
            f"{where} is {can} for its group or for others (mode "
            f"{stat.S_IMODE(status.st_mode):04o}).",
            remedy=f"If nobody used that, close it with `chmod {remove} {shown(str(path))}`.",
        )


def _refuse_open(path: Path, what: str, error: OSError) -> NoReturn:
    where = f"{what} {shown(str(path))}"
    if path.is_symlink():
        raise TrustStoreError(
            f"{where} is a symbolic link, which is never followed.",
            remedy="Name the file that it points to.",
        ) from error
    if isinstance(error, FileNotFoundError):
        raise TrustStoreError(
            f"{where} does not exist.",
            remedy=_HOW_TO_MAKE.get(what, "Check the path."),
        ) from error
    raise TrustStoreError(
        f"{where} cannot be opened: {error.strerror or error}.", remedy="Check its permissions."
    ) from error


def _refuse_write(path: Path, what: str, error: OSError) -> NoReturn:
    raise TrustStoreError(
        f"{what} {shown(str(path))} cannot be written: {error.strerror or error}.",
        remedy="Check the directory's permissions and the space left.",
    ) from error
