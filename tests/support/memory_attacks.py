"""Ways to take memory, inside and outside: ``python -m tests.support.memory_attacks``.

No pytest in here: an ordinary user runs it too. Prints one line of JSON: by attack, whether it
works without a sandbox, and what came of it in a plugin; and how far this process grew meanwhile.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from sandbox_host import BlockingHost, BlockingPlugin, SandboxHost
from sandbox_host.errors import BudgetExceededError, PluginEndedError, SandboxHostError
from sandbox_host.model import MIB, Limits
from tests.support.host import Workshop
from tests.support.traces import eventually

# What a plugin and a plain process run alike: `scratch` and `data` are directories.
ATTACKS = """
import errno, mmap, os

def touch(held):
    for at in range(0, len(held), 4096):
        held[at] = 1
    return len(held)

def fill(path, size, read_back=False):
    piece = bytes(1 << 20)
    with open(path, "wb+", buffering=0) as file:
        for _ in range(size >> 20):
            if file.write(piece) != len(piece):
                file.write(piece)
        file.seek(0)
        while read_back and file.read(1 << 20):
            pass
    return size

def anonymous(size, scratch, data):
    return touch(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

def shared(size, scratch, data):
    return touch(mmap.mmap(-1, size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS))

def in_scratch(size, scratch, data):
    return fill(scratch + "/large", size)

def mapped_in_scratch(size, scratch, data):
    with open(scratch + "/mapped", "wb+") as file:
        file.truncate(size)
        return touch(mmap.mmap(file.fileno(), size))

def dev_shm(size, scratch, data):
    path = f"/dev/shm/test-{os.getpid()}"
    try:
        return fill(path, size)
    finally:
        if os.path.exists(path):
            os.unlink(path)

def memory_file(size, scratch, data):
    descriptor = os.memfd_create("large")
    return fill(f"/proc/self/fd/{descriptor}", size)

def page_cache(size, scratch, data):
    try:
        return fill(data + "/large", size, read_back=True)
    finally:
        os.unlink(data + "/large")

def mapped_file(size, scratch, data):
    fill(data + "/mapped", size)
    try:
        with open(data + "/mapped", "rb") as file:
            held = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
            return len(held) if sum(held[::4096]) == 0 else 0
    finally:
        os.unlink(data + "/mapped")

def small_objects(size, scratch, data):
    held = [{} for _ in range(1000)]
    while len(held) * 64 < size:
        held.extend([{}, [len(held)]])
    return size

def one_huge(size, scratch, data):
    return len(bytearray(size))

def child(size, scratch, data):
    pid = os.fork()
    if pid == 0:
        os._exit(touch(bytearray(size)) != size)
    return size * (os.waitpid(pid, 0)[1] == 0)
"""
NAMES = (
    *("anonymous", "shared", "in_scratch", "mapped_in_scratch", "dev_shm", "memory_file"),
    *("page_cache", "mapped_file", "small_objects", "one_huge", "child"),
)
BUDGET = 64 * MIB
SCRATCH = 16 * MIB
SIZE = 300 * MIB
HUGE = 64 * SIZE
PLAIN_SIZE = 8 * MIB
HOGS = 10
"""So many of them, one after the other, at the end."""

LIMITS = {"memory": BUDGET, "scratch": SCRATCH, "file_size": 2 * SIZE}
_PLUGIN = """
@operation
def attack(name, size):
    places = context().scratch_dir, context().data_dir
    try:
        return [globals()[name](size, *places), None]
    except OSError as error:
        return [None, errno.errorcode[error.errno]]
"""
_PLAIN = """
import sys
name, size = sys.argv[1], int(sys.argv[2])
assert globals()[name](size, *sys.argv[3:]) == size
"""


def works_plainly(name: str) -> str:
    """Return "" if an attack works in a process without a sandbox, else what it said."""
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as data:
        done = subprocess.run(
            [sys.executable, "-c", ATTACKS + _PLAIN, name, str(PLAIN_SIZE), scratch, data],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    return done.stderr if done.returncode else ""


class Arena:
    """A host with a neighbour, in which attacks are run."""

    def __init__(self, host: BlockingHost, workshop: Workshop) -> None:
        self._host = host
        self._neighbour = host.load(workshop.write(name="neighbour"))
        self._bundle = workshop.write(ATTACKS + _PLUGIN, name="hog", limits=LIMITS)

    def attack(self, name: str) -> dict[str, Any]:
        """Load the hog, have it attack, and return what came of it."""
        hog = self._host.load(self._bundle)
        told: dict[str, Any] = {"cause": None, "error": None, "place": ""}
        try:
            size = HUGE if name == "one_huge" else SIZE
            told["value"], told["errno"] = hog.call("attack", name, size, deadline=50.0)
        except SandboxHostError as error:
            told["error"], told["text"] = type(error).__name__, str(error)
            if isinstance(error, BudgetExceededError):
                told |= {"budget": error.budget, "ended": error.ended, "place": error.place}
        told["cause"] = hog.cause
        told["goes_on"] = self._answers(hog)
        told["neighbour"] = self._answers(self._neighbour)
        told["peak"] = hog.usage().memory_peak_bytes
        told["layers"] = [str(layer) for layer in hog.receipt.active]
        self._host.unload("hog")
        return told

    def _answers(self, plugin: BlockingPlugin) -> bool:
        try:
            return bool(plugin.call("echo", 1, deadline=20.0) == 1)
        except PluginEndedError:
            return False


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def _is_memory(directory: Path) -> bool:
    """Tell whether files there are memory themselves, so that no page cache of theirs goes."""
    mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    path = directory.resolve()
    return mounts[next(str(p) for p in (path, *path.parents) if str(p) in mounts)] == "tmpfs"


def main() -> None:
    """Run every attack, then hogs in a row, and print what came of it all."""
    with tempfile.TemporaryDirectory() as directory:
        _run(Path(directory))


def _run(directory: Path) -> None:
    workshop = Workshop(directory)
    plainly = {name: works_plainly(name) for name in NAMES}
    with SandboxHost.blocking(workshop.config(ceilings=Limits(file_bytes=2 * SIZE))) as host:
        arena = Arena(host, workshop)
        arena.attack("anonymous")  # so that what is made once is there
        before = _resident()
        attacks = {name: arena.attack(name) for name in NAMES}
        hogs = [arena.attack("anonymous")["cause"] for _ in range(HOGS)]
        left = eventually(lambda: set(host.plugins) == {"neighbour"})
        told = {"plainly": plainly, "attacks": attacks, "hogs": hogs, "only_neighbour": left}
        told |= {"grew": _resident() - before, "data_in_memory": _is_memory(directory)}
        print(json.dumps(told))


if __name__ == "__main__":
    main()
