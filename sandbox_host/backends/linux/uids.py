"""User ids for plugins where the host is root: one each, held by its data directory.

The owner of a plugin's data directory is the plugin's user, so that what it wrote in an earlier
run is still its own and no list has to be kept. Ids are those outside; inside its user namespace
the plugin sees another number.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


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
    """Which ids are in use by this host's running plugins. Thread-safe."""

    def __init__(self, uids: tuple[int, int]) -> None:
        self._uids = uids
        self._lock = threading.Lock()
        self._leased: Counter[int] = Counter()

    def take(self, data_dir: Path) -> int:
        """Return the id of the plugin whose directory this is, and make the directory its own.

        Raises:
            OSError: no id is left, or the directory cannot be given to it.
        """
        with self._lock:
            owner = data_dir.lstat().st_uid
            others = {
                entry.stat(follow_symlinks=False).st_uid
                for entry in os.scandir(data_dir.parent)
                if entry.name != data_dir.name
            }
            # Its own may be leased still: to the process before, which is being put away.
            taken = others | (self._leased.keys() - {owner})
            uid = choose(owner, taken, self._uids)
            if uid != owner:
                _give(data_dir, uid)
            self._leased[uid] += 1
        return uid

    def give_back(self, uid: int) -> None:
        """End a lease; the data directory keeps the id."""
        with self._lock:
            self._leased[uid] -= 1
            if not self._leased[uid]:
                del self._leased[uid]


def _give(directory: Path, uid: int) -> None:
    """Change the owner of a tree, following no link and touching no file with another name."""
    for _, folders, files, here in os.fwalk(directory, follow_symlinks=False):
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=here, follow_symlinks=False)
                if name in folders or status.st_nlink == 1:
                    os.chown(name, uid, uid, dir_fd=here, follow_symlinks=False)
        os.fchown(here, uid, uid)
