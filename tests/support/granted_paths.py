"""A plugin that was granted paths, and what it met: ``python -m tests.support.granted_paths``.

Prints one JSON object: what came of each of `ATTEMPTS` by name ("works", the name of an errno, or
of another exception), and what the host's files were afterwards. With ``landlock-only`` as argument
the plugin has no root of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

from msgpack import _cmsgpack

from sandbox_host import BlockingHost, SandboxHost
from tests.support.host import Workshop

LANDLOCK_ONLY = "landlock-only"

SOURCE = """
import mmap, shutil

def write(path, data=b"written", flags=os.O_CREAT | os.O_TRUNC, mode=0o666):
    descriptor = os.open(path, os.O_WRONLY | flags, mode)
    try:
        return os.write(descriptor, data)
    finally:
        os.close(descriptor)

def read(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 100).decode()
    finally:
        os.close(descriptor)

def map_as_code(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        mmap.mmap(descriptor, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
    finally:
        os.close(descriptor)

@operation
def attempt(code, names):
    here = {**globals(), **names, "data": context().data_dir, "scratch": context().scratch_dir}
    try:
        exec(code, here)
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    except Exception as error:
        return type(error).__name__
    return "works"
"""

NAMES = {"longest": "n" * 255, "too_long": "n" * 256}

ATTEMPTS = {
    # What a grant to write is for.
    "make a file": "write(out + '/new')",
    "write a file that is there": "write(out + '/old', b'changed')",
    "append": "write(out + '/log', b'more', os.O_APPEND)",
    "truncate": "os.truncate(out + '/long', 1)",
    "make a directory": "os.mkdir(out + '/made')",
    "write below": "write(out + '/made/file')",
    "rename": "os.rename(out + '/made/file', out + '/moved')",
    "remove a file": "os.remove(out + '/unwanted')",
    "remove a directory": "os.mkdir(out + '/empty'); os.rmdir(out + '/empty')",
    "write a file that was granted": "write(one, b'more', os.O_APPEND)",
    "the longest name": "write(out + '/' + longest)",
    "write and read where both are granted": "write(both + '/f'); assert read(both + '/f')",
    "read what is below both": "assert read(both + '/below/file') == 'below'",
    "write what is read-granted below a written path": "write(both + '/below/file', b'below')",
    "read where reading is granted": "assert read(seen + '/file') == 'seen'",
    "list where reading is granted": "assert os.listdir(seen) == ['file']",
    # Writing is not reading.
    "read a file": "read(out + '/old')",
    "read what it wrote": "write(out + '/mine'); read(out + '/mine')",
    "read and write": "os.close(os.open(out + '/old', os.O_RDWR))",
    "list": "os.listdir(out)",
    "read a file that was granted for writing": "read(one)",
    "copy out": "shutil.copyfile(out + '/old', data + '/copy')",
    "map what is open for writing": (
        "d = os.open(out + '/old', os.O_WRONLY); mmap.mmap(d, 1, prot=mmap.PROT_READ)"
    ),
    "link it to where reading is allowed": "os.link(out + '/old', data + '/old')",
    "move it to where reading is allowed": "os.rename(out + '/old', data + '/old')",
    "link it to another granted path": "os.link(out + '/old', both + '/old')",
    "move it to another granted path": "os.rename(out + '/old', both + '/old')",
    "link it below itself to where reading is granted": "os.link(mix + '/f', mix + '/seen/f')",
    "move it below itself to where reading is granted": "os.rename(mix + '/f', mix + '/seen/f')",
    # Reading is not writing.
    "write where reading is granted": "write(seen + '/file')",
    "make a file where reading is granted": "write(seen + '/new')",
    "remove where reading is granted": "os.remove(seen + '/file')",
    "truncate where reading is granted": "os.truncate(seen + '/file', 0)",
    "link it to where writing is granted": "os.link(seen + '/file', both + '/linked')",
    "move it to where writing is granted": "os.rename(seen + '/file', both + '/moved')",
    # Nothing beyond.
    "through a link that leads out": "write(out + '/leads-out')",
    "read through a link that leads out": "read(both + '/leads-out')",
    "write through a link to what is read-granted": "write(out + '/leads-to-seen')",
    "make a link": "os.symlink('/etc', out + '/made-link')",
    "link from outside": "os.link(outside + '/secret', both + '/secret')",
    "move from outside": "os.rename(outside + '/secret', both + '/secret')",
    "move to outside": "os.rename(both + '/f', outside + '/f')",
    "dot dot": "write(out + '/../outside/new')",
    "dot dot beside": "write(out + '/../new')",
    "read by dot dot": "read(both + '/../outside/secret')",
    "dot dot of a directory that was moved": (
        "os.mkdir(both + '/x'); d = os.open(both + '/x', os.O_RDONLY);"
        "os.rename(both + '/x', data + '/x')"
    ),
    "open relative to a granted directory": (
        "d = os.open(both, os.O_RDONLY); os.close(os.open('../outside/secret', 0, dir_fd=d))"
    ),
    "the twin of another case": "write(twin + '/new')",
    "a name that begins alike": "write(out + '2/new')",
    "a name that is too long": "write(out + '/' + too_long)",
    "replace a file that was granted": "write(both + '/r'); os.rename(both + '/r', one)",
    "remove a file that was granted": "os.remove(one)",
    "remove what was granted": "os.rmdir(hollow)",
    "make a FIFO": "os.mkfifo(out + '/fifo')",
    "make a device": "os.mknod(out + '/device', 0o666 | 0o020000, os.makedev(1, 3))",
    "set-user-id": "write(out + '/tool'); os.chmod(out + '/tool', 0o4755)",
    # Writing is not executing.
    "map as code": "map_as_code(both + '/code.so')",
    "map its own copy as code": (
        "shutil.copyfile(both + '/code.so', both + '/copy.so'); map_as_code(both + '/copy.so')"
    ),
    "load a shared object": "ctypes.CDLL(both + '/code.so')",
    "execute": "os.execv(both + '/program', ['program'])",
}

AFTER_SWAP = {"write after the swap": "write(out + '/after')"}


def a_shared_object() -> Path:
    """Return one that this interpreter has."""
    assert _cmsgpack.__file__
    return Path(_cmsgpack.__file__)


def make_tree(root: Path) -> dict[str, str]:
    """Make what is granted and what is not, for everybody to write; return the names of it."""
    names = ("out", "OUT", "out2", "both", "both/below", "seen", "mix", "mix/seen", "outside")
    names = (*names, "hollow")
    for name in names:
        (root / name).mkdir()
    texts = {
        **{f"out/{name}": name for name in ("old", "log", "unwanted")},
        "out/long": "long",
        "both/below/file": "below",
        "both/program": "#!/bin/sh\n",
        "seen/file": "seen",
        "mix/f": "hidden",
        "outside/secret": "secret",
        "one.log": "one",
    }
    for name, text in texts.items():
        (root / name).write_text(text)
    (root / "out/leads-out").symlink_to("../outside/secret")
    (root / "both/leads-out").symlink_to(root / "outside/secret")
    (root / "out/leads-to-seen").symlink_to(root / "seen/file")
    shutil.copyfile(a_shared_object(), root / "both/code.so")
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o777)
    return {
        **{name: str(root / name) for name in ("out", "both", "seen", "mix", "outside", "hollow")},
        "twin": str(root / "OUT"),
        "one": str(root / "one.log"),
        **NAMES,
    }


def permissions(names: dict[str, str]) -> dict[str, Any]:
    """Return what is requested, and granted."""
    out, both, mix = names["out"], names["both"], names["mix"]
    return {
        "write": [out, both, mix, names["one"], names["hollow"]],
        "read": [both, f"{both}/below", f"{mix}/seen", names["seen"]],
    }


def attack_works_without(root: Path) -> dict[str, Any]:
    """Return what the same does to who is not confined, for tests to be about something."""
    code = root / "both/code.so"
    with code.open("rb") as file:
        mmap.mmap(file.fileno(), 4_096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
    ctypes.CDLL(str(code))
    os.link(root / "outside/secret", root / "both/linked-by-host")
    os.unlink(root / "both/linked-by-host")
    met = ""
    try:
        (root / "out" / NAMES["too_long"]).touch()
    except OSError as error:
        met = errno.errorcode[error.errno or 0]
    return {"read": (root / "both/leads-out").read_text(), "too long": met}


def _config(workshop: Workshop, names: dict[str, str], *, own_root: bool) -> Any:
    options: dict[str, Any] = {"grants": {"sample": permissions(names)}}
    if not own_root:
        without = ["own-root"]
        options |= {"disable_layers": without, "accept_missing": [*without, "files", "disk"]}
    return workshop.config(**options)


def _attempts(host: BlockingHost, workshop: Workshop, names: dict[str, str]) -> dict[str, Any]:
    plugin = host.load(workshop.write(SOURCE, permissions=permissions(names)))
    met = {name: plugin.call("attempt", code, names) for name, code in ATTEMPTS.items()}
    root = Path(names["out"]).parent
    kept = {
        "secret": (root / "outside/secret").read_text(),
        "outside": sorted(os.listdir(root / "outside")),
        "seen": (root / "seen/file").read_text(),
        "in seen": sorted(os.listdir(root / "seen")),
        "twin": os.listdir(root / "OUT"),
        "alike": os.listdir(root / "out2"),
        "out": sorted(name for name in os.listdir(root / "out") if len(name) < 100),
        "old": (root / "out/old").read_text(),
        "one": (root / "one.log").read_text(),
        "links": sorted(p.name for p in (root / "out").iterdir() if p.is_symlink()),
        "set-user-id": [
            str(path) for path in root.rglob("*") if path.lstat().st_mode & stat.S_ISUID
        ],
    }
    # Another stands now where the path was that the plugin was granted.
    (root / "out").rename(root / "old-out")
    (root / "out").symlink_to(root / "outside")
    swapped = {name: plugin.call("attempt", code, names) for name, code in AFTER_SWAP.items()}
    told = [(e.name, e.value, e.mechanism) for e in plugin.receipt.permissions]
    disk = next(one for one in plugin.receipt.guarantees if one.guarantee == "disk")
    return {
        "met": met,
        "kept": kept,
        "swapped": swapped,
        "outside after the swap": sorted(os.listdir(root / "outside")),
        "moved along": (root / "old-out/after").exists(),
        "receipt": told,
        "disk": [disk.status, disk.detail],
    }


def main() -> int:
    """Make the attempts and print what came of them."""
    own_root = LANDLOCK_ONLY not in sys.argv[1:]
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(tempfile.TemporaryDirectory(prefix="granted paths "))
        Path(base).chmod(0o755)
        root = Path(base) / "tree"
        root.mkdir()
        os.umask(0o022)
        names = make_tree(root)
        workshop = Workshop(Path(base) / "host")
        alone = attack_works_without(root)
        config = _config(workshop, names, own_root=own_root)
        host = stack.enter_context(SandboxHost.blocking(config))
        print(json.dumps({**_attempts(host, workshop, names), "alone": alone}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
