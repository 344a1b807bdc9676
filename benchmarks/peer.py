"""What a peer is, and how the process at its other end is started and ended.

Processes are started with `posix_spawn` or by the peer's own library, so that no process with
threads is ever forked, and ended by their own pid.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from frame import NotThereError  # beside this file

HERE = Path(__file__).resolve().parent
ANSWER_SECONDS = 30.0


class Peer:
    """One way to have a payload answered.

    Args:
        call: have one answered.
    """

    def __init__(self, call: Callable[[bytes], Any]) -> None:
        self.call = call

    def trips(self, payload: bytes, calls: int) -> list[float]:
        """Return what each of so many calls took, one after the other, in microseconds."""
        clock, call, times = time.perf_counter_ns, self.call, []
        for _ in range(calls):
            start = clock()
            call(payload)
            times.append((clock() - start) / 1_000)
        return times

    def many(self, payload: bytes, calls: int, window: int) -> float:  # noqa: ARG002 - for others
        """Return how long so many calls take, so many of them outstanding, in seconds.

        Raises:
            NotThereError: the peer knows only one after the other.
        """
        raise NotThereError("it has one call outstanding, no more")


def distinct(payload: bytes, count: int) -> list[bytes]:
    """Return so many equal payloads that are not one object: pickle would send that only once."""
    return [bytes(bytearray(payload)) for _ in range(count)]


async def awaited_trips(call: Callable[[], Any], calls: int) -> list[float]:
    """Return what each of so many awaited calls took, in microseconds."""
    clock, times = time.perf_counter_ns, []
    for _ in range(calls):
        start = clock()
        await call()
        times.append((clock() - start) / 1_000)
    return times


# -- processes ------------------------------------------------------------------------------------


def python() -> str:
    """Return the interpreter without the virtual environment around it."""
    return str(getattr(sys, "_base_executable", sys.executable))


@contextmanager
def child(
    arguments: Sequence[str], keep: Sequence[int] = (), files: dict[int, int] | None = None
) -> Iterator[int]:
    """Start a process, and end it; yield its pid.

    Args:
        arguments: its command line.
        keep: descriptors that it gets under the same numbers.
        files: descriptors that it gets under other numbers: theirs, ours.
    """
    actions = [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in (files or {}).items()]
    for descriptor in keep:
        os.set_inheritable(descriptor, True)
    try:
        pid = os.posix_spawn(arguments[0], list(arguments), os.environ, file_actions=actions)
    finally:
        for descriptor in keep:
            os.set_inheritable(descriptor, False)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def child_line(kind: str, *arguments: str) -> list[str]:
    """Return the command line of a child: of this Python, with what is installed beside it."""
    return [sys.executable, "-E", str(HERE / "children.py"), kind, *arguments]


@contextmanager
def bare_main() -> Iterator[None]:
    """Have children of `multiprocessing` not import the script that runs: they need none of it."""
    main = sys.modules["__main__"]
    kept, spec = main.__dict__.pop("__file__", None), getattr(main, "__spec__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        main.__spec__ = spec
        if kept is not None:
            main.__file__ = kept


def preload_forkserver() -> None:
    """Start the fork server of `multiprocessing` with what its children import in memory."""
    kept = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(HERE)  # it does not get the path otherwise, and says nothing
    try:
        multiprocessing.set_forkserver_preload(["children", "multiprocessing.connection"])
        forkserver.ensure_running()
    finally:
        if kept is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = kept


@contextmanager
def worker(target: Callable[..., None], *arguments: Any) -> Iterator[Any]:
    """Start a process of `multiprocessing` at the other end of a pipe; yield our end."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    with bare_main():
        process.start()
    theirs.close()
    try:
        yield ours
    finally:
        process.kill()
        process.join()
        ours.close()
