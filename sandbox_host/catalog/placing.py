"""Puts plugins into a plugin directory and takes them out of it: in one step, never a mix.

An installed plugin is always one file, ``<identity>.plugin``, also where it came as a directory:
of one file, rename(2) puts the new version in the old one's place on every file system, and nobody
ever sees half of either. It is written of the bytes that were verified, under a name that discovery
passes over, forced to the disk, read back, and renamed.

Whoever changes the directory holds a lock. What an interrupted change left is cleared away by the
next one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandbox_host.bundle.archive_format import SUFFIX
from sandbox_host.bundle.archive_write import archive_parts
from sandbox_host.bundle.contents import Contents
from sandbox_host.bundle.names import shown
from sandbox_host.bundle.source import read_bundle
from sandbox_host.catalog.discover import Discovered, discover, open_plugins
from sandbox_host.errors import ConfigError, PluginNotFoundError, UsageError
from sandbox_host.model import identity_of

if TYPE_CHECKING:
    from sandbox_host.bundle.verify import VerifiedBundle

LOCK_NAME: Final = ".sandbox-host.lock"
LOCK_SECONDS: Final = 10.0
_STAGED: Final = ".sandbox-host-staged-"
_REMOVED: Final = ".sandbox-host-removed-"
_REPLACED: Final = ".sandbox-host-replaced-"
_REPLACED_NAME: Final = re.compile(re.escape(_REPLACED) + r"([a-z][a-z0-9_]*)-[0-9a-f]{16}")

_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE: Final = 0o644
_DIRECTORY_MODE: Final = 0o755
_PAUSE_SECONDS: Final = 0.01

Erase = Callable[[str, int], str]
"""Removes a file or a tree: its name and the descriptor of its directory; says what kept it."""


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of a plugin that was put into the directory.

    Attributes:
        path: where it is.
        left: what could not be cleared away, and why; "" for nothing.
    """

    path: Path
    left: str = ""


class PluginPlace:
    """A plugin directory that is changed.

    Args:
        directory: where it is.
        tell: takes event, identity and detail for the journal, before anything is changed.
        erase: removes what was taken out.
    """

    def __init__(
        self, directory: Path, tell: Callable[[str, str, str], object], erase: Erase
    ) -> None:
        self.directory = directory
        self._tell = tell
        self._erase = erase
        self._fd = -1

    @contextlib.contextmanager
    def held(self, *, make: bool = False) -> Iterator[None]:
        """Hold the directory's lock inside the block, and clear away what others left.

        Args:
            make: make the directory if it is not there; what it lies in must be.

        Raises:
            ConfigError: it cannot be opened or written, or another process keeps its lock.
        """
        if make:
            with self._writing(), contextlib.suppress(FileExistsError):
                os.mkdir(self.directory, _DIRECTORY_MODE)
        self._fd = open_plugins(self.directory)
        try:
            with self._writing():
                lock = os.open(LOCK_NAME, _LOCK, 0o600, dir_fd=self._fd)
            try:
                self._wait(lock)
                with self._writing():
                    self._sweep()
                yield
            finally:
                os.close(lock)
        finally:
            os.close(self._fd)
            self._fd = -1

    def _wait(self, lock: int) -> None:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            if time.monotonic() > until:
                raise ConfigError(
                    f"The plugin directory {self.directory} is being changed by another process.",
                    remedy="Wait until that is done; `fuser` on its .sandbox-host.lock says who.",
                )
            time.sleep(_PAUSE_SECONDS)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"The plugin directory {self.directory} cannot be changed: "
                f"{error.strerror or error}.",
                remedy="Be the user that owns it; it needs room on a local disk.",
            ) from error

    # -- what is there ------------------------------------------------------------------------

    def of(self, identity: str) -> list[Discovered]:
        """Return what there is of one identity, by what each says of itself.

        Raises:
            ConfigError: the directory cannot be read.
        """
        return [
            d for d in discover(self.directory) if d.manifest and d.manifest.identity == identity
        ]

    # -- changing it --------------------------------------------------------------------------

    def put(self, bundle: VerifiedBundle, contents: Contents) -> Placed:
        """Put a verified plugin into the directory, in the place of the one of its identity.

        Args:
            bundle: the proof.
            contents: what it is the proof of.

        Raises:
            ConfigError: it cannot be written; what was there is there still.
            UsageError: another plugin has the file's name, or there are two of the identity.
            JournalError: it cannot be written down; nothing was changed.
        """
        identity = bundle.manifest.identity
        target = f"{identity}{SUFFIX}"
        old = self._replaceable(identity, target)
        with self._writing():
            staged = self._stage(identity, bundle, contents)
            try:
                before = f", replaces {old}" if old else ""
                version = bundle.manifest.version
                self._tell("installed", identity, f"{version}, root {bundle.root_digest}{before}")
                aside = self._put_aside(identity, old, target)
                try:
                    self._rename(staged, target)
                except BaseException:
                    if aside:
                        self._rename(aside, old)
                    raise
                os.fsync(self._fd)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(staged, dir_fd=self._fd)
                raise
        return Placed(self.directory / target, self._erase(aside, self._fd) if aside else "")

    def _replaceable(self, identity: str, target: str) -> str:
        """Return the name of what the plugin is to replace; "" for nothing."""
        found = self.of(identity)
        if len(found) > 1:
            names = " and ".join(shown(d.path.name) for d in found)
            raise UsageError(
                f"{names} in {self.directory} are both called {identity}.",
                remedy="`sandbox-host remove` the one that is not to be, by its file's name.",
            )
        other = [d for d in discover(self.directory) if d.path.name == target]
        if other and other[0].manifest and other[0].manifest.identity != identity:
            raise UsageError(
                f"{shown(target)} in {self.directory} is the plugin {other[0].manifest.identity}.",
                remedy="Give that file another name first.",
            )
        if found:
            return found[0].path.name
        return target if os.path.lexists(self.directory / target) else ""

    def _stage(self, identity: str, bundle: VerifiedBundle, contents: Contents) -> str:
        """Write the archive under a hidden name, and make sure that it holds what was verified."""
        staged = f"{_STAGED}{identity}-{secrets.token_hex(8)}"
        verified = Contents(bundle.files, contents.envelope, contents.origin)
        try:
            # Under a name that the next change knows: no other half-written file is ever left.
            with os.fdopen(os.open(staged, _CREATE, _MODE, dir_fd=self._fd), "wb") as file:
                os.fchmod(file.fileno(), _MODE)
                for part in archive_parts(verified):
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            back = read_bundle(self.directory / staged)
            if (back.files, back.envelope) != (bundle.files, contents.envelope):
                raise OSError(errno.EIO, "what was written is not what was read back")
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(staged, dir_fd=self._fd)
            raise
        return staged

    def _put_aside(self, identity: str, old: str, target: str) -> str:
        """Take away what no rename replaces: a directory, or a file of another name.

        Nothing `put` wrote is that. It is put back if what follows fails, by the next change if
        this process ends before.

        Returns:
            Its name now; "" where nothing is to be taken away.
        """
        if not old or (old == target and not self._is_directory(old)):
            return ""
        aside = f"{_REPLACED}{identity}-{secrets.token_hex(8)}"
        self._rename(old, aside)
        return aside

    def _is_directory(self, name: str) -> bool:
        return stat.S_ISDIR(os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_mode)

    def _rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def remove(self, found: Discovered) -> Placed:
        """Take a plugin out of the directory, and erase it.

        Args:
            found: what `find_plugin` returned.

        Raises:
            ConfigError: it cannot be taken out.
            JournalError: it cannot be written down; nothing was changed.
        """
        name = found.path.name
        identity = found.manifest.identity if found.manifest else ""
        version = f", version {found.manifest.version}" if found.manifest else ""
        with self._writing():
            self._tell("uninstalled", identity, f"{shown(name)}{version}")
            doomed = f"{_REMOVED}{secrets.token_hex(8)}"
            self._rename(name, doomed)
            os.fsync(self._fd)
        return Placed(found.path, self._erase(doomed, self._fd))

    def _sweep(self) -> None:
        """Clear away what a change left that was interrupted; an old version comes back first."""
        with os.scandir(self._fd) as entries:
            left = sorted(e.name for e in entries if e.name.startswith(".sandbox-host-"))
        for name in left:
            if name.startswith((_STAGED, _REMOVED)):
                self._erase(name, self._fd)
            elif match := _REPLACED_NAME.fullmatch(name):
                self._bring_back(name, match[1])

    def _bring_back(self, aside: str, identity: str) -> None:
        name = identity if self._is_directory(aside) else f"{identity}{SUFFIX}"
        if self.of(identity) or os.path.lexists(self.directory / name):
            self._erase(aside, self._fd)
        else:
            self._rename(aside, name)


def find_plugin(directory: Path, name: str) -> Discovered:
    """Return the plugin that an operator means; it is looked up, and never taken for a path.

    Args:
        directory: the plugin directory.
        name: a plugin's name in whichever spelling; or that of its directory or archive in
            there, for one that cannot be read.

    Raises:
        PluginNotFoundError: there is none.
        UsageError: there are several of that name.
        ConfigError: the directory cannot be read.
    """
    there = discover(directory)
    exact = [d for d in there if d.path.name == name]
    if exact:
        return exact[0]
    identity = identity_of(name)
    found = [d for d in there if d.manifest and d.manifest.identity == identity]
    if not found:
        text = f"There is no plugin {shown(name)} in {directory}."
        remedy = "`sandbox-host list` shows those that there are."
        raise PluginNotFoundError(text, plugin=identity, remedy=remedy)
    if len(found) > 1:
        names = " and ".join(shown(d.path.name) for d in found)
        text = f"{names} in {directory} are both called {identity}."
        raise UsageError(text, remedy="Name the one that you mean by its file's name.")
    return found[0]
