"""What is attacked: files, sockets, a descriptor and a secret, made for it and removed after it."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import secrets
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

_HIGH_DESCRIPTOR: Final = 700
MARKER: Final = "selftest_marker"
"""A module in the plugin environment, by which a plugin finds that."""

_HOME: Final = (".profile", ".bashrc", ".ssh/authorized_keys")
_HOME_DIRECTORIES: Final = (".config/autostart", ".config/systemd/user", ".local/lib/python")
_FILES: Final = ("secret.txt", "victim.txt", "to_remove.txt", "to_take.txt")


def facts() -> dict[str, Any]:
    """Return what the host knows of the machine, for attacks that try to find it out."""
    return {
        "host_pid": host_number(),
        "hostname": os.uname().nodename,
        "first_process": _read("/proc/1/comm"),
        "root_entries": sorted(os.listdir("/")),
        "site_packages": _site_packages(),
        "mount_points": [line.split()[4] for line in _read("/proc/self/mountinfo").splitlines()],
        "many_files": 17_000,
    }


def host_number() -> int:
    """Return a number that is the host's, and not also the one of a plugin in a pid namespace.

    The first process of a container has the number that each plugin has in there. Its threads have
    numbers of their own, by which the kernel finds a process as well.
    """
    if os.getpid() != 1:
        return os.getpid()
    return max(map(int, os.listdir("/proc/self/task")))


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def _site_packages() -> str:
    spec = importlib.util.find_spec("packaging")
    return str(Path(spec.origin).parents[1]) if spec and spec.origin else ""


def make_outside(directory: Path) -> Path:
    """Make the files of a host's user that a plugin must not reach."""
    directory.mkdir()
    for name in _FILES:
        (directory / name).write_text("secret")
    (directory / "to_remove").mkdir()
    (directory / "link.txt").symlink_to("secret.txt")
    for name in _HOME_DIRECTORIES:
        (directory / "home" / name).mkdir(parents=True)
    for name in _HOME:
        path = directory / "home" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("# the user's own\n")
    return directory


def make_environment(directory: Path) -> Path:
    """Make a plugin environment with one module in it."""
    directory.mkdir()
    (directory / f"{MARKER}.py").write_text('"""Says where the plugin environment is."""\n')
    return directory


def picture(directory: Path) -> dict[str, tuple[Any, ...]]:
    """Return everything about the files below a directory that an attack could change."""
    found = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        about = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_mtime_ns)
        found[str(path.relative_to(directory))] = (content, *about)
    return found


def open_sockets(stack: ExitStack, root: Path) -> dict[str, Any]:
    """Listen as services of the machine do: TCP, and AF_UNIX by path, by name, for datagrams."""
    paths = {"unix_path": str(root / "u"), "datagram_path": str(root / "d")}
    name = f"sandbox-host-selftest-{secrets.token_hex(8)}"
    tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    for address in (paths["unix_path"], "\0" + name):
        server = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        server.bind(address)
        server.listen()
    datagrams = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    datagrams.bind(paths["datagram_path"])
    return {**paths, "abstract_name": name, "tcp_port": tcp.getsockname()[1]}


def leave_open(stack: ExitStack, root: Path) -> tuple[int, int]:
    """Open a file and a socket as a careless application does: its children inherit them."""
    path = root / "held.txt"
    path.write_text("secret")
    with path.open("rb") as file, socket.socket(socket.AF_UNIX) as unconnected:
        # High, so that inside they cannot be the child's own by accident.
        first, second = (
            fcntl.fcntl(held.fileno(), fcntl.F_DUPFD, _HIGH_DESCRIPTOR)
            for held in (file, unconnected)
        )
    stack.callback(os.close, first)
    stack.callback(os.close, second)
    return first, second
