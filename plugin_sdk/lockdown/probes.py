"""One live probe per layer: try a forbidden thing, and tell what it met."""

from __future__ import annotations

import errno
import os
import sys

from plugin_sdk.lockdown.libc import prctl
from plugin_sdk.lockdown.privileges import PR_SET_DUMPABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Iterable

ALLOWED = "allowed"
_MSG_FASTOPEN = 0x20000000
_SIGCONT = 18


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
        "unix-socket": lambda: _unix_socket().close(),
        "unix-datagram-socket": _make_unix_datagram_socket,
        "unix-bind": lambda: _unix_socket().bind(""),
        "unix-listen": lambda: _unix_socket().listen(1),
        "unix-message": _send_message,
        "fork": _fork,
        "start-interpreter": lambda: _start(sys.executable, "-V"),
        "execute-own-file": _execute_own_file,
        "execute-library": lambda: _start(_a_library()),
        "resume-self": lambda: os.kill(os.getpid(), _SIGCONT),
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


def _unix_socket() -> socket:
    import _socket

    return _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)


def _make_unix_datagram_socket() -> None:
    import _socket

    _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM).close()


def _send_message() -> None:
    # By which descriptors would be handed over (unix(7), SCM_RIGHTS).
    _unix_socket().sendmsg([b"x"])


def _fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _start(program: str, *arguments: str) -> None:
    """Execute a program in a process of its own, with nowhere to print to.

    Raises:
        OSError: it could not be executed, or ended otherwise than well.
    """
    child = os.fork()
    if child == 0:
        number = errno.EIO
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            os.execv(program, [program, *arguments])  # noqa: S606 - that is what is tried
        except OSError as error:
            number = error.errno or number
        finally:
            os._exit(number)
    _, status = os.waitpid(child, 0)
    if status:
        number = os.waitstatus_to_exitcode(status)
        raise OSError(number if number > 0 else errno.EIO, "it could not be executed")


def _execute_own_file() -> None:
    """Execute what this process wrote: a file that names the interpreter, with the bit set."""
    path = os.path.abspath("program")
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o700)
    try:
        os.write(descriptor, f"#!{sys.executable} -V\n".encode())
    finally:
        os.close(descriptor)
    try:
        _start(path)
    finally:
        os.unlink(path)


def _a_library() -> str:
    """Return a file that may be mapped as code: executing it is another matter."""
    import _ctypes

    return str(getattr(_ctypes, "__file__", os.__file__))


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
