"""What does a start cost? From nothing to the first answer, ours beside peers, in one run.

Run it with ``.venv/bin/python benchmarks/start.py [--rounds N] [--quick]``. What is timed ends with
the first answer of 32 bytes from a process (Extism: an instance) that was not there before; ending
it again is not timed. A bare interpreter, bubblewrap around one and C say one byte instead.

Ours has three beginnings: forked from the nursery, taken from a pool of blank processes, and a
whole new interpreter. Each is measured whole, `host.load` with its verification, private copy,
confinement, attestation and import, and the first call; and of that the process alone: made, locked
down and attested, which is what a bare process would have to be compared with.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import bubblewrap  # beside this file, like the others
import children
import peers
from frame import NotThereError, Results, Table, Turn, clock_ms, options_of, reason, take_turns
from ours import ECHO, OURS, Ground, ground

from sandbox_host import BlockingHost, SandboxHost
from sandbox_host.backends.linux import backend

PAYLOAD = b"x" * 32
BUBBLEWRAP = "bubblewrap and bare python"
BARE = "bare python -I -S -E"
SAYS = "import posix; posix.write(1, b'+')"
SETTLE_SECONDS = 0.1
"""After each start: what it left to be done in the background is not another's to wait for."""

NURSERY, POOL, EXEC = "from the nursery", "from the warm pool", "a new interpreter (exec)"
STARTS: dict[str, dict[str, Any]] = {
    NURSERY: {},
    POOL: {"pool": 2},
    EXEC: {"start": "exec"},
}


def name_of(start: str, *, process: bool) -> str:
    """Return the name of a row of ours."""
    what = "the process alone" if process else "load and first call"
    return f"{OURS}, {start}: {what}"


# -- peers ----------------------------------------------------------------------------------------


def first_byte(line: list[str]) -> list[float]:
    """Start a program that says a byte; return the milliseconds until then."""
    out, said = os.pipe()
    with ExitStack() as stack:

        def start() -> None:
            stack.enter_context(peers.child(line, files={1: said}))
            if os.read(out, 1) != b"+":
                raise OSError(f"{line[0]} said nothing")

        took = clock_ms(start)
    os.close(out)
    os.close(said)
    return [took]


def first_answer(opening: Callable[[], AbstractContextManager[peers.Peer]]) -> list[float]:
    """Open a peer and have a payload answered; return the milliseconds that both took."""
    with ExitStack() as stack:
        return [clock_ms(lambda: stack.enter_context(opening()).call(PAYLOAD))]


def of_multiprocessing(method: str) -> list[float]:
    """Start a process of `multiprocessing` by one of its methods, and call it."""
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=children.pipe_objects, args=(theirs,), daemon=True)

    def start() -> None:
        process.start()
        ours.send(PAYLOAD)
        ours.recv()

    with peers.bare_main():
        took = clock_ms(start)
    process.kill()
    process.join()
    return [took]


def of_executor() -> list[float]:
    """Make a pool of one process, and call it."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack, peers.bare_main():

        def start() -> None:
            pool = stack.enter_context(ProcessPoolExecutor(1, mp_context=context))
            pool.submit(children.echo, PAYLOAD).result(peers.ANSWER_SECONDS)

        return [clock_ms(start)]


def bare_with_msgpack() -> list[str]:
    """Return the command line of a bare interpreter that imports msgpack."""
    import msgpack

    place = str(Path(msgpack.__file__).parent.parent)
    return [
        peers.python(),
        "-I",
        "-S",
        "-E",
        "-c",
        f"import sys; sys.path.append({place!r})\nimport msgpack\n{SAYS}",
    ]


def peer_ways(table: Table) -> dict[str, Turn]:
    """Return the ways of the peers."""
    bare = [peers.python(), "-I", "-S", "-E", "-c", SAYS]
    ways: dict[str, Turn] = {BARE: lambda: first_byte(bare)}
    try:
        inside = bubblewrap.inside(bare)
        ways[BUBBLEWRAP] = lambda: first_byte(inside)
    except NotThereError as error:
        table.lacks(BUBBLEWRAP, str(error))
    with_msgpack = bare_with_msgpack()
    ways["bare python with msgpack"] = lambda: first_byte(with_msgpack)
    peers.preload_forkserver()
    for method in ("forkserver", "spawn"):
        ways[f"multiprocessing, {method}"] = lambda method=method: of_multiprocessing(method)  # type: ignore[misc]
    ways[peers.EXECUTOR] = of_executor
    for name in (peers.ZMQ, peers.GRPC, peers.PLUGIN, peers.PLUGIN_TLS, peers.EXTISM):
        ways[name] = lambda opening=peers.OPENERS[name]: first_answer(opening)  # type: ignore[misc]
    return ways


# -- ours -----------------------------------------------------------------------------------------


class Clock:
    """Tells of the last start how long the process alone took: the backend's part of the load."""

    def __init__(self) -> None:
        self.took = 0.0
        start = backend.LinuxBackend.start

        def timed(*arguments: Any) -> Any:
            begun = time.perf_counter_ns()
            try:
                return start(*arguments)
            finally:
                self.took = (time.perf_counter_ns() - begun) / 1e6

        backend.LinuxBackend.start = timed  # type: ignore[method-assign]


def our_turn(
    host: BlockingHost, bundle: Path, clock: Clock, alone: Callable[[list[float]], None]
) -> list[float]:
    """Load a plugin and call it; return the milliseconds until its answer."""
    time.sleep(SETTLE_SECONDS)  # a pool fills itself meanwhile
    took = clock_ms(lambda: host.load(bundle).call("echo", PAYLOAD))
    alone([clock.took])
    host.unload("echo")
    return [took]


def our_ways(stack: ExitStack, where: Ground, table: Table, processes: Table) -> dict[str, Turn]:
    """Open a host for each kind of start; their processes are told of in another table."""
    bundle, clock = where.publisher.release("echo", ECHO), Clock()
    ways: dict[str, Turn] = {}
    for start, decided in STARTS.items():
        name = name_of(start, process=False)
        try:
            host = stack.enter_context(SandboxHost.blocking(where.config(**decided)))
        except Exception as error:  # noqa: BLE001 - told, as of any other way
            table.lacks(name, reason(error))
            continue

        def turn(host: BlockingHost = host, start: str = start) -> list[float]:
            row = name_of(start, process=True)
            return our_turn(host, bundle, clock, lambda took: processes.add(row, took))

        ways[name] = turn
    return ways


def main() -> None:
    """Measure all ways in turns and print the tables."""
    options = options_of(__doc__, rounds=(25, 3, "turns that each way takes"))
    results = Results("What does a start cost?")
    table = results.table("start", "start to first answer", "ms", BARE, places=2)
    with ExitStack() as stack:
        measure(stack, table, options)
    results.tell(options.json)


def measure(stack: ExitStack, table: Table, options: argparse.Namespace) -> None:
    """Let all ways take turns; then add what ours took for the process alone."""
    where = stack.enter_context(ground())
    processes = Table("", "ms", BARE)
    ways = peer_ways(table)
    ways |= our_ways(stack, where, table, processes)
    slept = {
        name: lambda way=way: (time.sleep(SETTLE_SECONDS), way())[1] for name, way in ways.items()
    }  # type: ignore[misc]
    take_turns(table, slept, options.rounds)
    for name, turns in processes.turns.items():
        # The warm-up's value is the first, as in the table.
        table.turns[name] = turns[1:]


if __name__ == "__main__":
    main()
