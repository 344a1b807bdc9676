"""User ids for plugins where the host is root: one each, held by its data directory.

The owner of a plugin's data directory is the plugin's user, so that what it wrote in an earlier
run is still its own and no list has to be kept. Ids are those outside; inside its user namespace
the plugin sees another number.

A tree may be large, and is given while nothing is locked. From before the first file to behind the
last one, owner and group of the top differ, and one of them is the new id, which is thereby held.
A host that finds them so gives the whole tree: to do that was begun and not ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import threading
from collections import Counter
from typing import TYPE_CHECKING, Final

from sandbox_host.trees import open_directory, walk

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

_log = logging.getLogger("sandbox_host")

_MAX_ENTRIES: Final = 1_000_000
"""Of one data directory: it takes the kernel a few seconds to give away so many."""


def choose(owner: int, taken: Collection[int], uids: tuple[int, int]) -> int:
    """Return the user id for a plugin.

    Args:
        owner: of its data directory now.
        taken: ids that other plugins have.
        uids: first and number of the ids there are.

    Raises:
        OSError: all are taken.
    """
    first, count = uids
    if first <= owner < first + count and owner not in taken:
        return owner
    for uid in range(first, first + count):
        if uid not in taken:
            return uid
    text = f"all {count} user ids from {first} on are taken; give a larger range in plugin_uids"
    raise OSError(text)


class UidLeases:
    """Which ids are in use by this host's running plugins. Thread-safe.

    Other hosts may have the same state directory: ids are chosen under a lock of the directory
    that holds the data directories.
    """

    def __init__(self, uids: tuple[int, int]) -> None:
        self._uids = uids
        self._lock = threading.Lock()
        self._leased: Counter[int] = Counter()

    def take(self, data_dir: Path) -> int:
        """Return the id of the plugin whose directory this is, and make the directory its own.

        Raises:
            OSError: no id is left, or the directory cannot be given to it.
        """
        top = open_directory(data_dir)
        try:
            with self._lock, _locked(data_dir.parent) as parent:
                status = os.fstat(top)
                uid = self._choose(parent, data_dir, status)
                whole = (status.st_uid, status.st_gid) == (uid, uid)
                if not whole:
                    os.fchown(top, os.geteuid(), uid)
                self._leased[uid] += 1
            try:
                if not whole:
                    _give(data_dir, top, uid, uid)
            except BaseException:
                self.give_back(uid)
                raise
        finally:
            os.close(top)
        return uid

    def _choose(self, parent: int, data_dir: Path, status: os.stat_result) -> int:
        # Its own may be leased still: to the process before, which is being put away.
        own = {status.st_uid, status.st_gid}
        taken = {uid for uid in self._leased if uid not in own}
        others = _owners(parent, data_dir.name)
        for other in others.values():
            taken.add(other.st_uid)
            taken.add(other.st_gid)
        first, count = self._uids
        begun = first <= status.st_gid < first + count
        try:
            return choose(status.st_gid if begun else status.st_uid, taken, self._uids)
        except OSError as error:
            raise OSError(f"{error}{self._removable(data_dir.parent, others)}") from None

    def _removable(self, parent: Path, others: dict[str, os.stat_result]) -> str:
        """Return which directory holds an id and may be of a plugin that is gone: the oldest."""
        first, count = self._uids
        held = [
            (status.st_mtime, name)
            for name, status in others.items()
            if first <= status.st_uid < first + count and status.st_uid not in self._leased
        ]
        if not held:
            return ""
        return (
            ", or remove the data directories, which hold them, of plugins that are not used any "
            f"more: the one that was changed the longest ago is {parent / min(held)[1]}"
        )

    def give_back(self, uid: int) -> None:
        """End a lease; the data directory keeps the id."""
        with self._lock:
            self._leased[uid] -= 1
            if not self._leased[uid]:
                del self._leased[uid]


def take_back(data_dir: Path) -> None:
    """Make a data directory the host's own, for a plugin that runs as the host's user.

    Raises:
        OSError: it cannot be.
    """
    uid, gid = os.geteuid(), os.getegid()
    top = open_directory(data_dir)
    try:
        status = os.fstat(top)
        if (status.st_uid, status.st_gid) != (uid, gid):
            if status.st_uid != uid:
                os.fchown(top, -1, gid)
            _give(data_dir, top, uid, gid)
    finally:
        os.close(top)


def _owners(parent: int, besides: str) -> dict[str, os.stat_result]:
    """Return what all entries of a directory are, but one, by their names.

    By the directory's descriptor: of a thousand plugins each start looks at all the others, and a
    path from the root takes the kernel longer than the look.
    """
    found = {}
    with os.scandir(parent) as entries:
        for entry in entries:
            if entry.name != besides:
                # Not by contextlib: this is the inside of the loop.
                try:
                    found[entry.name] = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
    return found


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[int]:
    descriptor = open_directory(directory)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _give(directory: Path, top: int, uid: int, gid: int) -> None:
    """Change the owner of a tree, the top last; follow no link, touch no file with another name.

    Raises:
        OSError: it cannot be changed, or holds too much.
    """
    linked = 0

    def give(here: int, name: str, status: os.stat_result) -> None:
        nonlocal linked
        if not stat.S_ISDIR(status.st_mode) and status.st_nlink != 1:
            linked += 1  # its other name may be anywhere, and somebody else's
            return
        with contextlib.suppress(FileNotFoundError):
            os.chown(name, uid, gid, dir_fd=here, follow_symlinks=False)

    walked = walk(top, give, _MAX_ENTRIES)
    if not walked.complete or walked.unread:
        why = (
            f"it holds more than {_MAX_ENTRIES:,} files"
            if walked.entries >= _MAX_ENTRIES
            else "something else changes it, or parts of it cannot be read"
        )
        text = (
            f"its data directory {directory} cannot be given to user id {uid}: {why}; remove what "
            f"is not needed, or run: chown -R -h {uid}:{gid} {directory}"
        )
        raise OSError(text)
    if linked:
        text = "%s: %d files have another name (hard link) and do not become user id %d's"
        _log.warning(text, directory, linked, uid)
    os.fchown(top, uid, gid)
