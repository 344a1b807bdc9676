"""What a host leaves on the machine: processes, descriptors, threads, mounts, groups, files."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")

PROMISED_SECONDS = 3.0
"""In which everything of a host is gone after its end."""

PATIENCE_SECONDS = 20.0
"""In which whatever else was begun is done, however busy the machine is."""

_SPAWNER = "sandbox-host-spawner"
_PAUSE_SECONDS = 0.01


def is_running(pid: int) -> bool:
    """Tell whether a process exists and is no zombie that only waits for its reaper."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def processes_of(pid: int) -> set[int]:
    """Return the pids of everything that a process has started and that started from there."""
    return {process.pid for process in psutil.Process(pid).children(recursive=True)}


def still_there(pids: Iterable[int], seconds: float = PROMISED_SECONDS) -> set[int]:
    """Return which of the processes still run, after as long as it takes but not longer."""
    left = set(pids)
    until = time.monotonic() + seconds
    while (left := {pid for pid in left if is_running(pid)}) and time.monotonic() < until:
        time.sleep(_PAUSE_SECONDS)
    return left


def eventually(true: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> bool:
    """Tell whether it became true in time."""
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(_PAUSE_SECONDS)
    return True


def groups_of(pid: int) -> list[Path]:
    """Return the directories of control groups that are, or were, of the host with this pid."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in mounts if " - cgroup" in line]
    return sorted(
        Path(folder)
        for point in points
        for folder, _, _ in os.walk(point)
        if f"/sandbox-host-{pid}-" in folder
    )


@dataclass(frozen=True)
class Traces:
    """What this process and the machine hold because of its hosts, without what has to vary.

    Attributes:
        descriptors: of this process, what each is.
        threads: of this process, by name, without the one that starts nurseries, which stays.
        children: how many processes it has started, with those that these have, by state.
        mounts: as this process sees them.
        groups: directories of its control groups.
        temporary: names in the directory for temporary files.
    """

    descriptors: tuple[str, ...]
    threads: tuple[str, ...]
    children: tuple[str, ...]
    mounts: str
    groups: tuple[Path, ...]
    temporary: tuple[str, ...]


def traces() -> Traces:
    """Look at this process now."""
    children = psutil.Process().children(recursive=True)
    names = [thread.name for thread in threading.enumerate()]
    return Traces(
        descriptors=_descriptors(),
        threads=tuple(sorted(name for name in names if not name.startswith(_SPAWNER))),
        children=tuple(sorted(_state(child) for child in children)),
        mounts=Path("/proc/self/mountinfo").read_text(),
        groups=tuple(groups_of(os.getpid())),
        temporary=tuple(sorted(os.listdir(tempfile.gettempdir()))),
    )


def held() -> Counter[str]:
    """Count what this process holds right now: descriptors by what each is, threads by name.

    Something else may hold one for a moment (a look at a directory, say): of two counts compare
    with ``<=``, and not before what ends in threads of its own had its time, see `eventually`.
    """
    return Counter((*_descriptors(), *(thread.name for thread in threading.enumerate())))


def _descriptors() -> tuple[str, ...]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            # A pipe's own number differs from one to the next.
            found.append(os.readlink(f"/proc/self/fd/{number}").partition(":[")[0])
        except FileNotFoundError:
            continue  # it was the one that listed
    return tuple(sorted(found))


def _state(process: psutil.Process) -> str:
    try:
        zombie = process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return "gone"
    return "zombie" if zombie else "alive"


def steady(look: Callable[[], T]) -> T:
    """Look until two looks in a row agree: some of what a host does, it does for a moment."""
    last = look()
    time.sleep(_PAUSE_SECONDS)
    while (now := look()) != last:
        last = now
        time.sleep(_PAUSE_SECONDS)
    return now


def left_since(then: Traces) -> str:
    """Return what differs from then, after as long as it takes but not longer; "" if nothing."""
    until = time.monotonic() + PROMISED_SECONDS
    while (now := traces()) != then and time.monotonic() < until:
        time.sleep(_PAUSE_SECONDS)
    return difference(now, then)


def difference(now: object, then: object) -> str:
    """Return what differs, field by field, for a person."""
    return "".join(
        f"\n{name}: {value!r}, was {getattr(then, name)!r}"
        for name, value in vars(now).items()
        if value != getattr(then, name)
    )
