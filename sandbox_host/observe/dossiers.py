"""Where dossiers are kept: one directory each, so many at most.

Plugins never come here; still nothing is believed. Everything is reached by descriptor, no link is
followed, and what is read has a bound before it is read. A dossier is written under another name
and gets its own when it is complete.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from sandbox_host.errors import DossierError
from sandbox_host.observe.dossier_files import FILES, SUMMARY, parse, parse_summary, render
from sandbox_host.observe.dossier_fit import fitted
from sandbox_host.observe.dossier_ids import (
    check_id,
    id_of,
    in_order_of_removal,
    is_dossier_id,
    time_in,
)
from sandbox_host.observe.journal import utc_now
from sandbox_host.reading import quoted
from sandbox_host.trees import open_directory

if TYPE_CHECKING:
    from datetime import datetime

    from sandbox_host.config import HostConfig
    from sandbox_host.observe.dossier import Dossier

DOSSIERS_NAME: Final = "dossiers"

_WRITING: Final = ".writing-"
_REMOVING: Final = ".removing-"
_ABANDONED_SECONDS: Final = 600
"""Nobody writes one dossier for so long: who began it is gone."""

_MOST_TWINS: Final = 999
_MOST_ENTRIES: Final = 20_000
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class DossierStore:
    """The dossiers of one state directory; several hosts and threads may use it at a time.

    Args:
        directory: made with mode 0700 when the first dossier is written.
        max_bytes: of one dossier, all its files together.
        kept: how many there are at most.
        clock: the time now, with its zone.
    """

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int,
        kept: int,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._kept = kept
        self._clock = clock

    @classmethod
    def of(cls, config: HostConfig) -> Self:
        """Return the store of a host."""
        directory = config.state_dir / DOSSIERS_NAME
        return cls(directory, max_bytes=config.dossier_bytes, kept=config.dossiers_kept)

    def path(self, dossier_id: str) -> Path:
        """Return the directory of a dossier, whether there is one or not."""
        return self.directory / dossier_id

    def write(self, dossier: Dossier) -> str:
        """Write a dossier, remove the ones that are too many, and return its id.

        Those are the oldest of the plugin that has the most: one that crashes again and again does
        not push out what is known of others.

        It is cut to its size, and every text in it escaped. It is in the kernel's hands when this
        returns; it is not forced to the disk. An old one that cannot be removed is left, and the
        next one goes in its place.

        Raises:
            DossierError: it cannot be written; nothing of it is listed.
        """
        small = fitted(dossier, self._max_bytes)
        writing = f"{_WRITING}{secrets.token_hex(8)}"
        try:
            with self._opened(make=True) as top:
                try:
                    _fill(top, writing, render(small))
                    name = _publish(top, writing, id_of(small))
                except BaseException:
                    with contextlib.suppress(OSError, DossierError):
                        _remove(top, writing)
                    raise
                self._trim(top)
        except OSError as error:
            raise DossierError(
                f"The dossier of {small.plugin} cannot be written in {self.directory}: "
                f"{error.strerror or error}.",
                remedy="Make room on its disk, and let the host's user write there.",
            ) from None
        return name

    def ids(self) -> tuple[str, ...]:
        """Return the ids of all complete dossiers, the newest first.

        Raises:
            DossierError: the directory cannot be read.
        """
        try:
            with self._opened() as top:
                return tuple(reversed(_complete(top)))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._unusable(error) from None

    def read(self, dossier_id: str) -> Dossier:
        """Return a dossier; never more of it is read than the host writes.

        Raises:
            DossierError: there is none of that id, or it is not as the host wrote it.
        """
        return self._load(dossier_id, FILES, parse)

    def summary(self, dossier_id: str) -> Dossier:
        """Return a dossier without curve, frames, log and stacks, which are not looked at.

        Raises:
            DossierError: as `read`.
        """
        return self._load(dossier_id, (SUMMARY,), lambda files: parse_summary(files[SUMMARY]))

    def _load(
        self,
        dossier_id: str,
        names: Iterable[str],
        reader: Callable[[Mapping[str, bytes]], Dossier],
    ) -> Dossier:
        check_id(dossier_id)
        try:
            with self._opened() as top:
                return reader(_contents(top, dossier_id, names))
        except FileNotFoundError:
            raise self._none(dossier_id) from None
        except OSError as error:
            raise self._unusable(error) from None
        except DossierError as error:
            raise DossierError(
                f"The dossier {dossier_id} is not as the host wrote it: {error.message}",
                remedy=f"Look at it in {self.path(dossier_id)}, and remove it.",
            ) from None

    def remove(self, dossier_id: str) -> None:
        """Remove a dossier.

        Raises:
            DossierError: there is none of that id, or it cannot be removed.
        """
        check_id(dossier_id)
        try:
            with self._opened() as top:
                _remove(top, dossier_id)
        except FileNotFoundError:
            raise self._none(dossier_id) from None
        except OSError as error:
            raise self._unusable(error) from None

    @contextlib.contextmanager
    def _opened(self, *, make: bool = False) -> Iterator[int]:
        if make:
            with contextlib.suppress(FileExistsError):
                self.directory.mkdir(mode=0o700)
        top = open_directory(self.directory, unlock=make)
        try:
            if make:
                _check_own(top)
            yield top
        finally:
            os.close(top)

    def _trim(self, top: int) -> None:
        """Remove what is too much, and what was begun and never finished."""
        with contextlib.suppress(OSError):
            names = _complete(top)
            excess = len(names) - self._kept
            for name in in_order_of_removal(names):
                if excess <= 0:
                    break
                with contextlib.suppress(OSError, DossierError):
                    _remove(top, name)
                    excess -= 1
            now = self._clock().timestamp()
            for name in _begun(top, now - _ABANDONED_SECONDS):
                with contextlib.suppress(OSError, DossierError):
                    _remove(top, name)

    def _none(self, dossier_id: str) -> DossierError:
        return DossierError(
            f"There is no dossier {dossier_id} in {self.directory}.",
            remedy="`sandbox-host dossier list` shows those there are.",
        )

    def _unusable(self, error: OSError) -> DossierError:
        return DossierError(
            f"The dossiers in {self.directory} cannot be used: {error.strerror or error}.",
            remedy="Do this as the host's user.",
        )


def _check_own(top: int) -> None:
    status = os.fstat(top)
    if status.st_uid != os.geteuid():
        text = "the directory belongs to somebody else"
        raise PermissionError(text)
    if stat.S_IMODE(status.st_mode) != stat.S_IRWXU:
        os.fchmod(top, stat.S_IRWXU)


def _fill(top: int, name: str, files: Mapping[str, bytes]) -> None:
    """Make a directory with these files; whatever the umask is."""
    os.mkdir(name, 0o700, dir_fd=top)
    here = open_directory(name, dir_fd=top, unlock=True)
    try:
        os.fchmod(here, 0o700)
        for file, data in files.items():
            with os.fdopen(os.open(file, _NEW, 0o600, dir_fd=here), "wb") as opened:
                os.fchmod(opened.fileno(), 0o600)
                opened.write(data)
    finally:
        os.close(here)


def _publish(top: int, writing: str, stem: str) -> str:
    """Give a complete dossier its name, or the next one that is free."""
    for number in range(1, _MOST_TWINS):
        name = stem if number == 1 else f"{stem}-{number}"
        try:
            # Of directories, only an empty one is replaced: what is left of a removal.
            os.rename(writing, name, src_dir_fd=top, dst_dir_fd=top)
        except OSError:
            if not _is_there(top, name):
                raise
        else:
            return name
    text = f"{stem} is there {_MOST_TWINS} times already"
    raise OSError(text)


def _is_there(top: int, name: str) -> bool:
    try:
        os.lstat(name, dir_fd=top)
    except OSError:
        return False
    return True


def _complete(top: int) -> list[str]:
    """Return the names of complete dossiers, the oldest first."""
    found = []
    for name, status in _entries(top):
        if is_dossier_id(name) and stat.S_ISDIR(status.st_mode):
            found.append((time_in(name), status.st_mtime_ns, name))
    return [name for _, _, name in sorted(found)]


def _begun(top: int, before: float) -> list[str]:
    """Return the names of what was begun before a time, and never finished."""
    return [
        name
        for name, status in _entries(top)
        if name.startswith((_WRITING, _REMOVING)) and status.st_mtime < before
    ]


def _entries(top: int) -> Iterator[tuple[str, os.stat_result]]:
    # Not `os.listdir`, nor the descriptor itself: a place in the listing would be shared.
    here = open_directory(".", dir_fd=top)
    try:
        with os.scandir(here) as entries:
            for number, entry in enumerate(entries):
                if number >= _MOST_ENTRIES:
                    break
                with contextlib.suppress(FileNotFoundError):
                    yield entry.name, entry.stat(follow_symlinks=False)
    finally:
        os.close(here)


def _contents(top: int, name: str, files: Iterable[str]) -> dict[str, bytes]:
    """Return the contents of some of a dossier's files.

    Raises:
        FileNotFoundError: there is no directory of that name.
        DossierError: a file is missing, no regular file, or larger than the host writes.
    """
    try:
        here = open_directory(name, dir_fd=top)
    except NotADirectoryError:
        raise FileNotFoundError(name) from None
    try:
        return {file: _read(here, file, FILES[file]) for file in files}
    finally:
        os.close(here)


def _read(here: int, file: str, limit: int) -> bytes:
    try:
        descriptor = os.open(file, _OLD, dir_fd=here)
    except OSError as error:
        raise DossierError(f"{file} cannot be read: {error.strerror}.") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DossierError(f"{file} is no regular file.")
    with os.fdopen(descriptor, "rb") as opened:
        data = opened.read(limit + 1)
    if len(data) > limit:
        raise DossierError(f"{file} is larger than {limit} bytes, which is the most there can be.")
    return data


def _remove(top: int, name: str) -> None:
    """Remove a directory of plain files. It is not listed any more from the first step on.

    Raises:
        FileNotFoundError: there is no directory of that name.
        DossierError: it holds what no host puts there; nothing of it is removed.
    """
    try:
        here = open_directory(name, dir_fd=top)
    except NotADirectoryError:
        raise FileNotFoundError(name) from None
    try:
        files = []
        for file, status in _entries(here):
            if stat.S_ISDIR(status.st_mode):
                raise DossierError(
                    f"The dossier {name} holds a directory, {quoted(file)}, which no host made.",
                    remedy="Look at what it is, and remove it by hand.",
                )
            files.append(file)
        removing = f"{_REMOVING}{secrets.token_hex(8)}"
        os.rename(name, removing, src_dir_fd=top, dst_dir_fd=top)
        for file in files:
            os.unlink(file, dir_fd=here)
        os.rmdir(removing, dir_fd=top)
    finally:
        os.close(here)
