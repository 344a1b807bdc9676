"""A directory full of what a plugin can leave, and more.

``python -m tests.support.hostile_tree`` makes a state directory, fills a data directory in it,
measures and removes that, and prints as JSON what it saw.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

ODD_NAMES = (
    *(b"\xff\xfe \n", b"new\nline", b"\x1b[2J", b"-rf", b"...", b" ", b"\xe2\x80\xae"),
    b"n" * 255,
)
LEVELS = 1_000
SPARSE_BYTES = 1 << 40
MODES = (0o000, 0o100, 0o200, 0o400, 0o500)


def fill(tree: Path, outside: Path) -> int:
    """Fill a directory; return how many names that are.

    Args:
        tree: the directory.
        outside: what links in it lead to.
    """
    count = _deep(tree)
    count += _links(tree, outside)
    count += _nodes(tree)
    for mode in MODES:
        locked = tree / f"locked-{mode:o}"
        (locked / "inner" / "deep").mkdir(parents=True)
        (locked / "inner" / "file").write_bytes(b"x")
        (locked / "inner" / "file").chmod(0)
        for directory in (locked / "inner" / "deep", locked / "inner", locked):
            directory.chmod(mode)
        count += 4
    for name in ODD_NAMES:
        path = os.path.join(os.fsencode(tree), name)
        os.mkdir(path)
        with open(os.path.join(path, name[:250]), "wb") as file:
            file.write(b"x")
        count += 2
    with (tree / "sparse").open("wb") as file:
        file.truncate(SPARSE_BYTES)
    return count + 1


def _deep(tree: Path) -> int:
    here = os.open(tree, os.O_RDONLY)
    for _ in range(LEVELS):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=here))
    os.close(here)
    return LEVELS + 1


def _links(tree: Path, outside: Path) -> int:
    (tree / "sub").mkdir()
    targets = {"out": outside, "loop": ".", "self": "self", "sub/up": "..", "dangling": "/no/such"}
    for name, target in targets.items():
        (tree / name).symlink_to(target)
    (tree / "one").write_bytes(b"x" * 100_000)
    os.link(tree / "one", tree / "sub" / "two")
    return 1 + len(targets) + 2


def _nodes(tree: Path) -> int:
    """Make what is no file, and nothing that could be opened without waiting or harm."""
    os.mkfifo(tree / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.open(tree, os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    try:
        os.mknod(tree / "device", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    except PermissionError:  # not root, or not in a container
        return 2
    return 3


def main(place: Path) -> None:
    """Fill, measure and remove."""
    from sandbox_host.runtime.data import DataDirectories

    state, outside = place / "state", place / "outside"
    tree = state / "data" / "sample"
    for directory in (state, state / "data", tree, outside):
        directory.mkdir(mode=0o700)
    (outside / "precious").write_text("precious")
    names = fill(tree, outside)
    tree.chmod(0)
    directories = DataDirectories(state)
    (found,) = directories.measure()
    done = directories.remove("sample")
    told: dict[str, Any] = {
        "names": names,
        "files": found.files,
        "bytes": found.bytes,
        "complete": found.complete,
        "fault": found.fault,
        "removed": done.removed,
        "left": [[one.path, one.reason] for one in done.left],
        "data": os.listdir(state / "data"),
        "precious": (outside / "precious").read_text(),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    root = Path(tempfile.mkdtemp(prefix="sandbox-host-test-"))
    try:
        main(root)
    finally:
        subprocess.run(["rm", "-rf", "--", str(root)], check=True)
