"""Where a service's control socket is, and that there is one service for a state directory.

``<state_dir>/service/`` (0700) holds ``lock``, which the kernel keeps for whoever runs (flock(2)),
and ``control.sock`` (0600). Only the lock says whether there is a service: a socket that a killed
one left is removed by the next.

A socket's path has at most 107 bytes (unix(7)). It is bound and connected to through the
descriptor of its directory, ``/proc/self/fd/<n>/control.sock``, which is short wherever the state
directory is, and names the very directory that was checked.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import stat
import time
from typing import TYPE_CHECKING, Final, NoReturn, Self

from sandbox_host.errors import ControlError
from sandbox_host.runtime.workspace import private_directory
from sandbox_host.service.peers import own_uid, peer_of

if TYPE_CHECKING:
    from pathlib import Path

DIRECTORY_NAME: Final = "service"
LOCK_NAME: Final = "lock"
SOCKET_NAME: Final = "control.sock"

_BACKLOG: Final = 64
_MAX_RECORD_BYTES: Final = 512
_MAX_ADDRESS_BYTES: Final = 107
_CONNECT_SECONDS: Final = 5.0
_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class NobodyServesError(ControlError):
    """There is no service with that state directory."""


_NOBODY: Final = "No service runs with the state directory {}."
_START: Final = "Start one with `sandbox-host run`, or name another with --state-dir."


class ServicePlace:
    """The place of one service. A context manager: inside the block this process has it.

    Args:
        state_dir: of the service.

    Raises:
        ControlError: on entering: another service has it, or it cannot be used.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / DIRECTORY_NAME
        self._state_dir = state_dir
        self._directory = self._lock = -1

    def __enter__(self) -> Self:
        try:
            private_directory(self._state_dir)
            private_directory(self.path)
            self._directory = os.open(self.path, _OPEN_DIRECTORY)
            os.fchmod(self._directory, stat.S_IRWXU)
            self._lock = os.open(LOCK_NAME, _OPEN_LOCK, 0o600, dir_fd=self._directory)
            self._take()
        except OSError as error:
            self._leave()
            self._refuse(error)
        except BaseException:
            self._leave()
            raise
        return self

    def _take(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = _holder(self._lock)
            raise ControlError(
                f"A service runs already with the state directory {self._state_dir}: {who}.",
                remedy="`sandbox-host status` shows it, `sandbox-host drain` ends it; or give this "
                "one a state_dir of its own.",
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, json.dumps({"pid": os.getpid()}).encode(), 0)

    def listen(self) -> socket.socket:
        """Return the listening socket; what stands in its place was a dead service's.

        Raises:
            ControlError: there cannot be one.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(SOCKET_NAME, dir_fd=self._directory)
            listener.bind(_address(self._directory, self.path))
            os.chmod(SOCKET_NAME, 0o600, dir_fd=self._directory)
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            self._refuse(error)
        except BaseException:
            listener.close()
            raise
        return listener

    def _refuse(self, error: OSError) -> NoReturn:
        text = f"The control socket in {self.path} cannot be made: {error.strerror or error}."
        remedy = "It must be a directory of the host's own user, on a local disk with room."
        raise ControlError(text, remedy=remedy) from error

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.unlink(SOCKET_NAME, dir_fd=self._directory)
        self._leave()

    def _leave(self) -> None:
        for descriptor in (self._lock, self._directory):
            if descriptor >= 0:
                os.close(descriptor)
        self._directory = self._lock = -1


def _holder(lock: int) -> str:
    """Return who has the lock, as its file says."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        told = json.loads(os.pread(lock, _MAX_RECORD_BYTES, 0))
        pid = told.get("pid") if isinstance(told, dict) else None
        if type(pid) is int and pid > 0:
            return f"process {pid}"
    return "a process that has just started"


def _address(directory: int, path: Path) -> str:
    """Return a path of the socket that fits into a socket's address.

    Raises:
        ControlError: there is none.
    """
    through = f"/proc/self/fd/{directory}"
    if os.path.isdir(through):
        return f"{through}/{SOCKET_NAME}"
    plain = path / SOCKET_NAME
    if len(os.fsencode(plain)) > _MAX_ADDRESS_BYTES:
        raise ControlError(
            f"The control socket's path {plain} is too long: a socket's has at most "
            f"{_MAX_ADDRESS_BYTES} bytes, and without /proc there is no shorter one.",
            remedy="Choose a state_dir with a shorter path, or mount /proc.",
        )
    return str(plain)


def connect(state_dir: Path) -> socket.socket:
    """Return a connection to the service with this state directory.

    That it is this user's own service (for root: the one of whoever owns the directory), is
    checked by its directory's owner and by the kernel's word about who listens.

    Raises:
        NobodyServesError: there is none.
        ControlError: it is somebody else's, or cannot be reached.
    """
    path = state_dir / DIRECTORY_NAME
    try:
        directory = os.open(path, _OPEN_DIRECTORY)
    except FileNotFoundError:
        raise NobodyServesError(_NOBODY.format(state_dir), remedy=_START) from None
    except OSError as error:
        text = f"The service's directory {path} cannot be used: {error.strerror or error}."
        raise ControlError(text, remedy="Ask as the user that the service runs as.") from None
    try:
        owner = os.fstat(directory)
        if own_uid() not in {owner.st_uid, 0} or owner.st_mode & 0o077:
            text = f"The service's directory {path} belongs to somebody else, or is open to others."
            raise ControlError(text, remedy="Ask as the user that the service runs as.")
        return _connected(directory, path, state_dir, owner.st_uid)
    finally:
        os.close(directory)


def _connected(directory: int, path: Path, state_dir: Path, owner: int) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        until = time.monotonic() + _CONNECT_SECONDS
        while True:
            try:
                connection.settimeout(_CONNECT_SECONDS)
                connection.connect(_address(directory, path))
                break
            except BlockingIOError:  # more wait than the kernel keeps
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
        if peer_of(connection).uid != owner:
            text = f"What listens in {path} is not the service of the user whose directory that is."
            raise ControlError(text, remedy="Find out who does; do not send it anything.")
        return connection
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        raise NobodyServesError(_NOBODY.format(state_dir), remedy=_START) from None
    except OSError as error:
        connection.close()
        text = f"The service in {path} cannot be reached: {error.strerror or error}."
        raise ControlError(text, remedy="Is it stuck? Its log, or the journal, may say.") from None
    except BaseException:
        connection.close()
        raise
