"""The host's directories: what is kept between runs, and a private one that dies with the host.

``state_dir`` holds ``data/<identity>`` (the plugins' own), ``locks/<identity>`` (who uses one now),
``logs``, the journal, and the private copies below ``run/<host>``. A host that was killed cannot
remove its run directory; the next one does, told by a lock that only a living process can hold.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import Final

from sandbox_host.errors import ConfigError
from sandbox_host.runtime.data_locks import LOCKS, DataLocks
from sandbox_host.runtime.removal import Removal
from sandbox_host.runtime.sdk_copy import copy_sdk
from sandbox_host.trees import open_directory

_log = logging.getLogger("sandbox_host")

_LOCK: Final = "lock"
_KEPT: Final = ("data", LOCKS, "logs", "run")
_REMOVE_SECONDS: Final = 60.0


class Workspace:
    """The directories of one host.

    Args:
        state_dir: made with mode 0700 if there is none.
        plugin_uids: first and number of the user ids that a plugin's own directory may belong to.

    Attributes:
        locks: those of the data directories that this host's plugins use.

    Raises:
        ConfigError: it cannot be made, or others may write to it.
    """

    def __init__(self, state_dir: Path, plugin_uids: tuple[int, int] = (0, 0)) -> None:
        self.state_dir = state_dir
        self.locks = DataLocks(state_dir / LOCKS)
        self._plugin_uids = plugin_uids
        self._lock = -1
        try:
            for path in (state_dir, *(state_dir / name for name in _KEPT)):
                private_directory(path)
            self.run_dir = state_dir / "run" / f"{os.getpid()}-{secrets.token_hex(4)}"
            try:
                self._fill_run_dir()
            except BaseException:
                self.close()
                raise
        except OSError as error:
            text = f"The state directory {state_dir} cannot be used: {_first(error)}."
            remedy = "Name another with HostConfig(state_dir=…), on a disk with room."
            raise ConfigError(text, remedy=remedy) from error

    def _fill_run_dir(self) -> None:
        self._make_run_dir(self.run_dir.parent)
        for name in ("bundles", "scratch", "sdk"):
            (self.run_dir / name).mkdir(mode=0o700)
        self.canary = self.run_dir / "canary"
        self.canary.write_text(secrets.token_hex(16))
        copy_sdk(self.sdk_dir)

    def _make_run_dir(self, run: Path) -> None:
        """Make and lock the run directory, and remove those whose lock nobody holds.

        One host at a time: a directory that was just made and is not locked yet looks abandoned.
        """
        gate = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(gate, fcntl.LOCK_EX)
            _remove_abandoned(run)
            self.run_dir.mkdir(mode=0o700)
            self._lock = os.open(self.run_dir / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(gate)

    @property
    def bundles(self) -> Path:
        """Parent of the private copies of verified bytes."""
        return self.run_dir / "bundles"

    @property
    def sdk_dir(self) -> Path:
        """The child's third-party library: `plugin_sdk` and `msgpack`, and nothing else."""
        return self.run_dir / "sdk"

    def data_dir(self, identity: str) -> Path:
        """Return the plugin's own directory, made if there is none; kept between runs.

        What the plugin did to its mode is undone. A host that is root takes it over from whoever
        has it: the backend gives it to the user that the plugin runs as.

        Raises:
            ConfigError: it cannot be made, or is another user's, and we are not root.
        """
        path = self.state_dir / "data" / identity
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            self._check_owner(path)
            directory = open_directory(path, unlock=True)
            try:
                if stat.S_IMODE(os.fstat(directory).st_mode) != stat.S_IRWXU:
                    os.fchmod(directory, stat.S_IRWXU)
            finally:
                os.close(directory)
        except OSError as error:
            text = f"The data directory {path} cannot be used: {error.strerror or error}."
            remedy = "Remove what stands there, or make it a directory of the host's user."
            raise ConfigError(text, remedy=remedy) from error
        return path

    def _check_owner(self, path: Path) -> None:
        owner, own = path.lstat().st_uid, os.geteuid()
        first, count = self._plugin_uids
        if own not in (owner, 0):
            text = f"it belongs to user id {owner}, and this host runs as {own}"
            raise OSError(text)
        if owner != own and not first <= owner < first + count:
            text = "%s belongs to user id %d, which is none of plugin_uids: it is taken over"
            _log.warning(text, path, owner)

    def scratch_dir(self, identity: str) -> Path:
        """Return a new empty directory for one process.

        Raises:
            ConfigError: it cannot be made.
        """
        path = self.run_dir / "scratch" / f"{identity}-{secrets.token_hex(4)}"
        try:
            path.mkdir(mode=0o700)
        except OSError as error:
            text = f"The scratch directory {path} cannot be made: {error.strerror or error}."
            remedy = "Check the space left, and that nothing cleans up in the state directory."
            raise ConfigError(text, remedy=remedy) from error
        return path

    def log_path(self, identity: str) -> Path:
        """Return where the plugin's output is kept."""
        return self.state_dir / "logs" / f"{identity}.log"

    def close(self) -> None:
        """Remove the run directory."""
        remove_tree(self.run_dir)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def private_directory(path: Path) -> None:
    """Make ``path`` with mode 0700, or check that it is a directory that only we can write.

    Raises:
        OSError: it is not.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private(path)


def check_private(path: Path) -> None:
    """Check that ``path`` is a directory that only we can write.

    Raises:
        OSError: it is not.
    """
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        text = f"{path} is no directory of this user"
        raise OSError(text)
    if status.st_mode & 0o022:
        text = f"{path} can be written by others; run: chmod go-w {path}"
        raise OSError(text)


def _first(error: OSError) -> str:
    """Return what went wrong; where a tree was copied, with the first file that failed only."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        failed = error.args[0]
        _, destination, reason = failed[0]
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        why, _, _ = reason.partition(": '")  # behind it, the paths once more
        return f"{destination}: {why}{more}"
    return str(error)


def _remove_abandoned(run: Path) -> None:
    for entry in run.iterdir():
        with contextlib.suppress(OSError):
            descriptor = os.open(entry / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(entry)
            finally:
                os.close(descriptor)


def remove_tree(root: Path) -> None:
    """Remove a directory whatever a plugin put there, following no link.

    What cannot be removed is left, and so is what is not within `_REMOVE_SECONDS`: somebody may go
    on writing to it.
    """
    with contextlib.suppress(OSError), Removal(root) as removal:
        removal.run(_REMOVE_SECONDS)
