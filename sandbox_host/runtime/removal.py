"""Removes a directory tree that somebody hostile made, in steps, and says what is left of it.

No link is followed, and nothing is named but by a descriptor of the directory that it is in.
Directories are moved to the top before they are emptied, so that a tree of any depth needs neither
recursion nor more than a handful of descriptors, and memory does not grow with it. What is moved
about in the meantime is met again in the next pass: there is one as long as the last was of use.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from sandbox_host.reading import escaped
from sandbox_host.trees import open_directory

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

MAX_LEFT: Final = 20
"""Of what cannot be removed, so many names are kept, with the reason."""

STEP_SECONDS: Final = 0.2
"""How long `Removal.run` works between two questions whether to stop."""

_MAX_SHOWN: Final = 200
"""Characters of a name."""


@dataclass(frozen=True, slots=True)
class Left:
    """Something that could not be removed.

    Attributes:
        path: where it is now, below the directory that was to be removed; escaped, "" for that.
        reason: the system's words.
    """

    path: str
    reason: str


class Removal:
    """The removal of one tree. Not thread-safe; to be closed.

    Args:
        name: the directory; only its last component may be of somebody else's making.
        dir_fd: what a relative name starts from.

    Attributes:
        removed: files and directories that are gone, the top included.
        left: what cannot be removed, as far as the last pass found; at most `MAX_LEFT`.
        over: nothing is to be done any more.

    Raises:
        OSError: it is no directory, or cannot be opened.
    """

    def __init__(self, name: Path | str, *, dir_fd: int | None = None) -> None:
        self.removed = 0
        self.left: list[Left] = []
        self.over = False
        self._name = name
        self._dir_fd = dir_fd
        self._moved = 0
        self._prefix = f".removing-{secrets.token_hex(4)}-"
        self._top = open_directory(name, dir_fd=dir_fd, unlock=True)
        self._work = self._passes()

    def step(self, seconds: float) -> bool:
        """Go on for so long, and behind that to the end of one system call; return `over`."""
        until = time.monotonic() + seconds
        while not self.over:
            if next(self._work, self) is self:
                self.over = True
            elif time.monotonic() >= until:
                break
        return self.over

    def run(self, seconds: float) -> bool:
        """Remove all of it within so long; return `over`.

        Where time is over first, the last of `left` says so.
        """
        until = time.monotonic() + seconds
        while not self.step(min(STEP_SECONDS, max(0.0, until - time.monotonic()))):
            if time.monotonic() >= until:
                self.left = [*self.left[: MAX_LEFT - 1], Left("", f"not over after {seconds:g} s")]
                break
        return self.over

    def close(self) -> None:
        """Close its descriptors; a second time does nothing."""
        self._work.close()
        if self._top >= 0:
            os.close(self._top)
            self._top = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _passes(self) -> Generator[None, None, None]:
        """Remove the tree; what is yielded says nothing but that time may have passed."""
        useful = -1
        while useful != self.removed + self._moved:
            useful = self.removed + self._moved
            self.left.clear()
            with self._noting(""), os.scandir(self._top) as entries:
                for entry in entries:
                    yield
                    with self._noting(entry.name):
                        if entry.is_dir(follow_symlinks=False):
                            yield from self._remove_directory(entry.name)
                        else:
                            self._unlink(entry.name, self._top)
        if not self.left:
            with self._noting(""):
                os.rmdir(self._name, dir_fd=self._dir_fd)
                self.removed += 1

    def _remove_directory(self, name: str) -> Iterator[None]:
        """Remove a directory at the top; those in it come to the top, for the next pass."""
        if not name.startswith(self._prefix):
            # A directory that something is mounted on is busy: what is mounted is not emptied.
            name = self._move(name, self._top)
        here = open_directory(name, dir_fd=self._top, unlock=True)
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    yield
                    with self._noting(os.path.join(name, entry.name)):
                        if entry.is_dir(follow_symlinks=False):
                            self._move(entry.name, here)
                            self._moved += 1
                        else:
                            self._unlink(entry.name, here)
        finally:
            os.close(here)
        os.rmdir(name, dir_fd=self._top)
        self.removed += 1

    def _move(self, name: str, here: int) -> str:
        """Move a directory to the top; return its new name."""
        new = f"{self._prefix}{secrets.token_hex(8)}"
        try:
            os.rename(name, new, src_dir_fd=here, dst_dir_fd=self._top)
        except PermissionError:
            # Its ".." changes, which takes the right to write in it.
            os.close(open_directory(name, dir_fd=here, unlock=True))
            os.rename(name, new, src_dir_fd=here, dst_dir_fd=self._top)
        return new

    def _unlink(self, name: str, here: int) -> None:
        os.unlink(name, dir_fd=here)
        self.removed += 1

    @contextlib.contextmanager
    def _noting(self, path: str) -> Iterator[None]:
        """Note what cannot be removed, and go on."""
        try:
            yield
        except FileNotFoundError:
            pass  # somebody else was faster
        except OSError as error:
            if len(self.left) < MAX_LEFT:
                reason = error.strerror or str(error)
                self.left.append(Left(escaped(os.fsdecode(path), _MAX_SHOWN), reason))
