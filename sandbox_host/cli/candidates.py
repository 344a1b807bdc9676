"""What a path on the command line holds: one plugin, or a directory of plugins.

Nothing is read but names: by descriptor, without following a link, within bounds. When in doubt a
path is a candidate: reading it then says what is wrong with it, and nothing is overlooked in
silence.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox_host.bundle.contents import ENVELOPE_NAME, MANIFEST_NAME
from sandbox_host.bundle.names import shown
from sandbox_host.errors import BundleError

ARCHIVE_SUFFIX: Final = ".plugin"
LEVELS: Final = 2
"""How deep plugins are looked for: ``plugins/NAME`` and ``plugins/GROUP/NAME``."""

MAX_ENTRIES: Final = 20_000
"""Names that are looked at below one path; each is a system call or two."""

MAX_CANDIDATES: Final = 2_000

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Candidate:
    """A path that is to be read as a plugin.

    Attributes:
        path: of a directory or an archive.
        anchor: the file in it that says that it is a plugin; "" for none, or an archive.
        archive: it is a regular file.
    """

    path: Path
    anchor: str = ""
    archive: bool = False


def find_candidates(path: Path) -> list[Candidate]:
    """Return what to verify at `path`, sorted by path.

    A directory that holds a plugin.json or a plugin.dsse.json is a plugin. Of any other directory,
    the plugins one and two levels below it are returned, and the ``.plugin`` archives; hidden
    names and ``__pycache__`` are passed over. A link to a plugin, an archive or a directory of
    plugins is returned too: it will be refused, and so it should be, by name.

    Raises:
        BundleError: there is no plugin there, or so much else that it was not searched to the end.
    """
    try:
        root = os.open(path, _DIRECTORY)
    except OSError:
        # A file, a link, or closed to us: whoever reads it says which.
        return [Candidate(path, archive=path.is_file())]
    try:
        anchor = _anchor(root)
        if anchor:
            return [Candidate(path, anchor)]
        search = _Search(path)
        search.below(root, path, LEVELS)
    finally:
        os.close(root)
    if not search.found:
        raise BundleError(
            f"there is no plugin in {shown(str(path))}, nor {LEVELS} levels below it: no directory "
            f"with a {MANIFEST_NAME} or a {ENVELOPE_NAME}, and no {ARCHIVE_SUFFIX} archive.",
            remedy="Name a plugin's directory, or a directory of plugins.",
        )
    return search.found


class _Search:
    """One search below one path: what it has found so far, against its bounds."""

    def __init__(self, root: Path, entries: int = 0) -> None:
        self.found: list[Candidate] = []
        self._root = root
        self._entries = entries

    def below(self, descriptor: int, path: Path, levels: int) -> None:
        """Look at every name in the open directory `descriptor`, which is `path`."""
        for name in self._names(descriptor):
            try:
                mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
            except OSError:
                continue  # gone since it was listed
            if stat.S_ISDIR(mode):
                self._directory(descriptor, name, path / name, levels)
            elif stat.S_ISREG(mode) and name.endswith(ARCHIVE_SUFFIX):
                self._add(Candidate(path / name, archive=True))
            elif stat.S_ISLNK(mode) and self._leads_to_plugin(descriptor, name, path, levels):
                self._add(Candidate(path / name))

    def _directory(self, parent: int, name: str, path: Path, levels: int) -> None:
        try:
            descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
        except OSError:
            self._add(Candidate(path))  # it may hide a plugin
            return
        try:
            anchor = _anchor(descriptor)
            if anchor:
                self._add(Candidate(path, anchor))
            elif levels > 1:
                self.below(descriptor, path, levels - 1)
        finally:
            os.close(descriptor)

    def _leads_to_plugin(self, parent: int, name: str, path: Path, levels: int) -> bool:
        """Tell whether behind a link there is what would be verified if it were no link."""
        if name.endswith(ARCHIVE_SUFFIX):
            return True
        try:
            descriptor = os.open(name, _DIRECTORY & ~os.O_NOFOLLOW, dir_fd=parent)
        except OSError:
            return False
        try:
            if _anchor(descriptor) or levels == 1:
                return bool(_anchor(descriptor))
            behind = _Search(self._root, self._entries)
            behind.below(descriptor, path / name, levels - 1)
            self._entries = behind._entries
            return bool(behind.found)
        finally:
            os.close(descriptor)

    def _names(self, descriptor: int) -> list[str]:
        names: list[str] = []
        with os.scandir(descriptor) as entries:
            for entry in entries:
                self._entries += 1
                if self._entries > MAX_ENTRIES:
                    self._refuse(f"{MAX_ENTRIES} names")
                if not entry.name.startswith(".") and entry.name != "__pycache__":
                    names.append(entry.name)
        return sorted(names)

    def _add(self, candidate: Candidate) -> None:
        if len(self.found) >= MAX_CANDIDATES:
            self._refuse(f"{MAX_CANDIDATES} plugins")
        self.found.append(candidate)

    def _refuse(self, most: str) -> None:
        raise BundleError(
            f"{shown(str(self._root))} and what is {LEVELS} levels below it hold more than {most}.",
            remedy="Name the directories of the plugins themselves, some at a time.",
        )


def _anchor(descriptor: int) -> str:
    """Return which of the two files that make a plugin an open directory has, or ""."""
    for name in (MANIFEST_NAME, ENVELOPE_NAME):
        # Of whatever kind: a plugin.json that is a FIFO is a plugin to refuse.
        with contextlib.suppress(OSError):
            os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            return name
    return ""
