"""The plugins of the chaos driver: what they do, well and badly, and their good and bad updates."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

from sandbox_host import Permissions
from tests.support.host import Workshop

MIB = 1 << 20

MEMORY_BYTES = 48 * MIB
CPU_SECONDS = 0.3
WALL_SECONDS = 2.0
LIMITS = {
    "memory": MEMORY_BYTES,
    "cpu_time": CPU_SECONDS,
    "wall_time": WALL_SECONDS,
    "messages_per_second": 300,
    "log_bytes_per_second": 64 * 1024,
}
GRANTS = {"*": Permissions(publish=("chaos.*",), subscribe=("chaos.*",))}

SOURCE = """
VERSION = {0!r}
held = []

@operation
def version():
    return VERSION

@operation
def add(one, other):
    return one + other

@operation
def nap(seconds):
    time.sleep(seconds)
    return seconds

@operation
def numbers(count):
    for number in range(count):
        yield number

@operation
def total(values):
    return sum(values)

@operation
def fail(text):
    raise ValueError(text)

@operation
def stray():
    return object()

@operation
def segfault():
    ctypes.string_at(8)

@operation
def abort():
    os.abort()

@operation
def leave():
    os._exit(7)

@operation
def hang():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            pass

@operation
def stall():
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    time.sleep(60)

@operation
def spin():
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass

@operation
def hog():
    while True:
        held.append(bytearray(b"x") * (1 << 20))

@operation
def shout(count):
    for number in range(count):
        print("x" * 100, number)
    return count

@operation
def flood(count):
    for number in range(count):
        context().publish("chaos.noise", number)
    return count

@on("chaos.tick")
def tick(event):
    if event.data == "fail":
        raise ValueError("a handler that fails")

def health_check():
    return {"status": "healthy"}
"""
"""What each of them has; the first ten answer, and the others do no good."""

_SICK = 'def health_check():\n    return {"status": "error", "message": "sick"}\n'
_BAD: dict[str, tuple[str, frozenset[str]]] = {
    "broken": ("raise RuntimeError('broken')", frozenset({"start"})),
    "crashing": ("os.abort()", frozenset({"start", "ended"})),
    "leaving": ("os._exit(3)", frozenset({"start", "ended"})),
    "sick": (_SICK, frozenset({"reload"})),
    "hoarding": ("held += [bytearray(b'x') * (1 << 20) for _ in range(100)]", frozenset()),
    "late": ("time.sleep(60)", frozenset({"start", "deadline"})),
}
_UNTAKEN = {
    "wider": frozenset({"held"}),
    "ungranted": frozenset({"admission"}),
    "stranger": frozenset({"usage"}),
    "tampered": frozenset({"tampered"}),
    "older": frozenset({"rollback"}),
    "twin": frozenset({"rollback", "equivocation"}),
    "nowhere": frozenset({"bundle"}),
}
BAD = (*_BAD, *_UNTAKEN)
"""Names of the updates that must not be taken; most of them several versions ahead."""

_AT_START = frozenset({"start", "ended", "budget", "deadline"})


class Release:
    """All versions of one plugin, each in a directory of its own.

    Args:
        workshop: writes and signs them.
        name: the plugin's.
    """

    def __init__(self, workshop: Workshop, name: str) -> None:
        self.name = name
        self._workshop = workshop
        self._lock = threading.Lock()
        self._number = 1
        self.good = self._write(1)

    def next(self) -> Path:
        """Return a good version, newer than all before."""
        return self._write(self._next())

    def bad(self, how: str) -> tuple[Path, frozenset[str]]:
        """Return an update that must not be taken, and the codes of the errors that say so."""
        if how in _BAD:
            source, codes = _BAD[how]
            return self._write(self._next(), source), codes or _AT_START
        make: dict[str, Callable[[], Path]] = {
            "wider": lambda: self._write(
                self._next(), permissions={"publish": ["chaos.noise", "chaos.more"]}
            ),
            "ungranted": lambda: self._write(self._next(), permissions={"write": ["/srv"]}),
            "stranger": lambda: self._write(self._next(), name=f"not_{self.name}"),
            "tampered": lambda: _tampered(self._write(self._next())),
            "older": lambda: self._write(0),
            "twin": lambda: self._write(self._version_of(self.good), "\n# another\n"),
            "nowhere": lambda: self.good.with_name("nowhere"),
        }
        return make[how](), _UNTAKEN[how]

    def _next(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    def _write(self, number: int, more: str = "", **keys: object) -> Path:
        manifest: dict[str, object] = {
            "name": self.name,
            "version": f"1.{number}.0",
            "limits": LIMITS,
            "permissions": {"publish": ["chaos.noise"]},
            "events": ["chaos.tick"],
            "config": {"level": 1},
            **keys,
        }
        return self._workshop.write(SOURCE.replace("{0!r}", str(number)) + more, **manifest)  # type: ignore[arg-type]

    @staticmethod
    def _version_of(path: Path) -> int:
        return int(json.loads((path / "plugin.json").read_text())["version"].split(".")[1])


def _tampered(path: Path) -> Path:
    main = path / "main.py"
    main.write_text(main.read_text() + "\n# more\n")
    return path
