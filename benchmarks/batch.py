"""What do many quick calls cost? Batches and streams of ours beside pools of processes, in one run.

Run it with ``.venv/bin/python benchmarks/batch.py [--rounds N] [--calls N]``. Every way adds one to
each of so many numbers in another process, in order. The ways take turns, so that the machine's
mood hits all alike; read the ratios. The pools run pickled functions of whoever asks, unconfined;
ours is the real thing: verified, confined, with a deadline, budgets and usage counted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from signed import write_signed  # beside this file: it finds the rest

from sandbox_host import HostConfig, SandboxHost

CHUNK = 500
BASE = "multiprocessing.Pool.map"

PLUGIN = """
@operation
def more(value):
    return value + 1

@operation
def each(values):
    for value in values:
        yield value + 1
"""


def more(value: int) -> int:
    """Do what the plugin does."""
    return value + 1


def report(rates: dict[str, list[float]]) -> None:
    """Print a row per way, with ratios to the pool."""
    reference = statistics.median(rates[BASE])
    print(
        f"{'quick calls, one after the other':40} {'per second':>11} {'spread':>17} {'× pool':>7}"
    )
    for name, values in rates.items():
        middle = statistics.median(values)
        spread = f"{min(values):,.0f}-{max(values):,.0f}"
        print(f"{name:40} {middle:11,.0f} {spread:>17} {middle / reference:7.2f}")


def main() -> None:
    """Measure all ways in turns and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns that each way takes")
    parser.add_argument("--calls", type=int, default=10_000, help="calls in one turn")
    options = parser.parse_args()
    numbers = range(options.calls)
    calls = [(number,) for number in numbers]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # The forks first: a process with threads is not to be forked.
        fork = multiprocessing.get_context("fork")
        pool = stack.enter_context(fork.Pool(1))
        executor = stack.enter_context(ProcessPoolExecutor(1, mp_context=fork))
        executor.submit(more, 1).result()
        config = HostConfig(trust_store=directory / "trust.toml", state_dir=directory / "state")
        signed = write_signed(directory, config.trust_store, "adder", PLUGIN)
        plugin = stack.enter_context(SandboxHost.blocking(config)).load(signed)
        ways: dict[str, Callable[[], list[int]]] = {
            BASE: lambda: pool.map(more, numbers, CHUNK),
            "ProcessPoolExecutor.map, chunks": lambda: list(
                executor.map(more, numbers, chunksize=CHUNK)
            ),
            "multiprocessing.Pool.map, one by one": lambda: pool.map(more, numbers, 1),
            "sandbox-host, call_many": lambda: plugin.call_many("more", calls),
            "sandbox-host, a stream in and out": lambda: list(plugin.stream("each", iter(numbers))),
            "sandbox-host, call by call": lambda: [plugin.call("more", n) for n in numbers],
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(options.rounds + 1):
            for name, way in ways.items():
                start = time.perf_counter()
                if way() != list(range(1, options.calls + 1)):
                    raise SystemExit(f"{name} came to something else")
                if turn:  # the first warms up
                    rates[name].append(options.calls / (time.perf_counter() - start))
    report(rates)


if __name__ == "__main__":
    main()
