"""One live probe per layer: try a forbidden thing, and tell what it met."""

from __future__ import annotations

import errno
import os

from plugin_sdk.lockdown.libc import prctl
from plugin_sdk.lockdown.privileges import PR_SET_DUMPABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ALLOWED = "allowed"
_MSG_FASTOPEN = 0x20000000


def try_all(names: Iterable[str], canary: str, host_pid: int) -> dict[str, str]:
    """Make the probes of these names; return what each met: the name of an errno, or `ALLOWED`.

    Args:
        names: which ones.
        canary: a file of the host's that exists and must not be readable here.
        host_pid: the host's process, as it knows itself.
    """
    probes: dict[str, Callable[[], object]] = {
        "open-canary": lambda: os.close(os.open(canary, os.O_RDONLY)),
        "stat-canary": lambda: os.lstat(canary),
        "list-root": lambda: os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY)),
        "socket": _make_socket,
        "connect": _connect,
        "fast-open": _open_fast,
        "datagram-socket": _make_datagram_socket,
        "fork": _fork,
        "start-thread": _start_thread,
        "execute": lambda: os.execv("/", ["none"]),  # noqa: S606 - a directory: it fails
        "signal-host": lambda: _signal_other(host_pid),
        "change-owner": lambda: os.chown(".", 0, 0),
        "writable-and-executable": _map_executable,
        "change-program": lambda: os.chmod("/proc/self/exe", os.stat("/proc/self/exe").st_mode),
        "make-link": lambda: os.symlink("nowhere", "link"),
        "become-dumpable": lambda: prctl(PR_SET_DUMPABLE, 1),
        "write-root": lambda: os.mkdir("/written"),
    }
    return {name: _attempt(probes[name]) for name in names}


def _attempt(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    except RuntimeError as error:  # the interpreter's word for a thread that could not be started
        return type(error).__name__
    return ALLOWED


def _make_socket() -> None:
    import _socket  # the C part alone; importing `socket` would cost more than the start

    _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM).close()


def _connect() -> None:
    import _socket

    # Nobody answers there; what is asked is whether the kernel would try.
    _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM).connect(("127.0.0.1", 1))


def _open_fast() -> None:
    import _socket

    # Sending connects with this flag (RFC 7413), also a socket that has come to its end.
    made = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    made.send(b"x", _MSG_FASTOPEN)


def _make_datagram_socket() -> None:
    import _socket

    _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM).close()


def _fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _start_thread() -> None:
    import _thread

    _thread.start_new_thread(int, ())


def _signal_other(pid: int) -> None:
    # A process may signal itself. Both may be process 1, each of a pid namespace of its own.
    os.kill(pid + 1 if pid == os.getpid() else pid, 0)


def _map_executable() -> None:
    import mmap

    protection = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    mmap.mmap(-1, 4_096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=protection).close()
