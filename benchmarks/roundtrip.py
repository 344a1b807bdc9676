"""What does a call cost? Our call beside a raw pipe and multiprocessing.Pipe, in one run.

Run it with ``.venv/bin/python benchmarks/roundtrip.py [--rounds N] [--calls N]``. Every way echoes
32 bytes with one call outstanding. The ways take turns, so that the machine's mood hits all alike;
read the ratios, not the microseconds. Ours is the real thing: verified, fully confined, with a
deadline, budgets and usage counted.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import multiprocessing.connection
import os
import statistics
import struct
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from signed import write_signed  # beside this file: it finds the rest

from sandbox_host import HostConfig, SandboxHost

PAYLOAD = b"x" * 32
LENGTH = struct.Struct(">I")

PLUGIN = """
@operation
def echo(value):
    return value
"""

Way = Callable[[], object]


@contextmanager
def raw_pipe() -> Iterator[Way]:
    """A forked child that reads a length and a body and writes them back; both sides block."""
    to_child, to_parent = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(to_child[1])
        while data := os.read(to_child[0], 65_536):
            os.write(to_parent[1], data)
        os._exit(0)

    def call() -> bytes:
        os.write(to_child[1], LENGTH.pack(len(PAYLOAD)) + PAYLOAD)
        return os.read(to_parent[0], 65_536)[LENGTH.size :]

    yield call
    os.close(to_child[1])
    os.waitpid(pid, 0)


def _echo(connection: multiprocessing.connection.Connection) -> None:
    while (data := connection.recv()) is not None:
        connection.send(data)


@contextmanager
def multiprocessing_pipe() -> Iterator[Way]:
    """multiprocessing.Pipe, as most Python programs would do it: pickle, no confinement."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_echo, args=(theirs,))
    process.start()

    def call() -> object:
        ours.send(PAYLOAD)
        return ours.recv()

    yield call
    ours.send(None)
    process.join()


def sign_echo(directory: Path, trust_store: Path) -> Path:
    """Write the plugin that answers what it is asked, and return its directory."""
    return write_signed(directory, trust_store, "echo", PLUGIN)


def measure(call: Way, calls: int) -> list[float]:
    """Return the duration of each call, in microseconds."""
    clock, times = time.perf_counter_ns, []
    for _ in range(calls):
        start = clock()
        call()
        times.append((clock() - start) / 1_000)
    return times


async def measure_async(call: Callable[[], Awaitable[object]], calls: int) -> list[float]:
    """The same for a coroutine function."""
    clock, times = time.perf_counter_ns, []
    for _ in range(calls):
        start = clock()
        await call()
        times.append((clock() - start) / 1_000)
    return times


def report(times: dict[str, list[float]], base: str) -> None:
    """Print a row per way, with ratios to the raw pipe."""
    reference = statistics.median(times[base])
    print(f"{'one call, 32 bytes':34} {'p50 µs':>9} {'p99 µs':>9} {'× raw pipe':>11}")
    for name, values in times.items():
        ordered = sorted(values)
        p50, p99 = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
        print(f"{name:34} {p50:9.1f} {p99:9.1f} {p50 / reference:11.2f}")


def main() -> None:
    """Measure all ways in turns and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10, help="turns that each way takes")
    parser.add_argument("--calls", type=int, default=1_000, help="calls in one turn")
    options = parser.parse_args()
    times: dict[str, list[float]] = {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # The forks first: a process with threads is not to be forked.
        plain: dict[str, Way] = {
            "raw pipe, blocking": stack.enter_context(raw_pipe()),
            "multiprocessing.Pipe": stack.enter_context(multiprocessing_pipe()),
        }
        config = HostConfig(trust_store=directory / "trust.toml", state_dir=directory / "state")
        signed = sign_echo(directory, config.trust_store)
        plugin = stack.enter_context(SandboxHost.blocking(config)).load(signed)
        plain["sandbox-host, blocking API"] = lambda: plugin.call("echo", PAYLOAD)
        asyncio.run(rounds(options, plain, config, signed, times))
    report(times, "raw pipe, blocking")


async def rounds(
    options: argparse.Namespace,
    plain: dict[str, Way],
    config: HostConfig,
    directory: Path,
    times: dict[str, list[float]],
) -> None:
    """Take turns; the first turn warms up and is not counted."""
    other = config.model_copy(update={"state_dir": config.state_dir.with_name("state-async")})
    async with SandboxHost(other) as host:
        echo = await host.load(directory)
        for turn in range(options.rounds + 1):
            for name, call in plain.items():
                measured = measure(call, options.calls)
                if turn:
                    times.setdefault(name, []).extend(measured)
            measured = await measure_async(lambda: echo.call("echo", PAYLOAD), options.calls)
            if turn:
                times.setdefault("sandbox-host, asyncio API", []).extend(measured)


if __name__ == "__main__":
    main()
