"""What does it cost the host to look after its plugins? CPU time per second, by how many there are.

Run it with ``.venv/bin/python benchmarks/sweep.py [--seconds N] [--plugins N ...]``. Plugins are
idle, or asleep in a call, or at work a tenth of the time in a call. The peer looks at the same
processes at the same pace (every 20 ms where there is a call, else every 50 ms) with psutil:
resident memory, CPU times, threads and descriptors, as a watchdog is usually written.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil
from signed import write_signed  # beside this file: it finds the rest

from sandbox_host import BlockingHost, BlockingPlugin, HostConfig, SandboxHost

PLUGIN = """
import time

@operation
def asleep(seconds):
    time.sleep(seconds)

@operation
def at_work(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        begun = time.monotonic()
        while time.monotonic() < begun + 0.001:
            pass
        time.sleep(0.009)
"""
KINDS = ("idle", "asleep", "at_work")


def write_plugins(directory: Path, trust_store: Path, count: int) -> list[Path]:
    """Write so many plugins, and return their directories."""
    names = (f"plugin_{number}" for number in range(count))
    return [write_signed(directory, trust_store, name, PLUGIN) for name in names]


def cpu_share(seconds: float) -> float:
    """Return the CPU time of this process in the time to come, in seconds per second."""
    began, used = time.monotonic(), time.process_time()
    time.sleep(seconds)
    return (time.process_time() - used) / (time.monotonic() - began)


def measured(plugins: list[BlockingPlugin], kind: str, seconds: float) -> float:
    """Return the host's share of a CPU while its plugins are of a kind."""
    if kind == "idle":
        return cpu_share(seconds)
    length = seconds + 2.0
    calls = [threading.Thread(target=plugin.call, args=(kind, length)) for plugin in plugins]
    for call in calls:
        call.start()
    time.sleep(0.5)
    share = cpu_share(seconds)
    for call in calls:
        call.join()
    return share


def with_psutil(plugins: list[BlockingPlugin], pace: float, seconds: float) -> float:
    """Return the share of a CPU that looking at the same processes with psutil takes."""
    processes = [psutil.Process(plugin.receipt.pid) for plugin in plugins]
    began, used, spent = time.monotonic(), time.thread_time(), 0.0
    while time.monotonic() < began + seconds:
        for process in processes:
            process.memory_info()
            process.cpu_times()
            process.num_threads()
            process.num_fds()
        time.sleep(pace)
    spent = time.thread_time() - used
    return spent / (time.monotonic() - began)


def row(name: str, share: Callable[[], float], count: int) -> None:
    """Measure and print a row."""
    taken = share()
    per_plugin = f"{taken / count * 1e6:12.0f}" if count else f"{'-':>12}"
    print(f"{count:8} {name:32} {taken * 100:9.2f} {per_plugin}", flush=True)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--plugins", type=int, nargs="+", default=[0, 1, 8, 32])
    options = parser.parse_args()
    seconds = options.seconds
    print(f"{'plugins':>8} {'':32} {'% of a CPU':>9} {'µs/s each':>12}")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = HostConfig(trust_store=directory / "trust.toml", state_dir=directory / "state")
        bundles = write_plugins(directory, config.trust_store, max(options.plugins))
        for count in options.plugins:
            with SandboxHost.blocking(config) as host:
                rows(host, bundles[:count], seconds)


def rows(host: BlockingHost, bundles: list[Path], seconds: float) -> None:
    """Print the rows for so many plugins."""
    plugins = [host.load(bundle) for bundle in bundles]
    time.sleep(1.0)
    count = len(plugins)
    for kind in KINDS if count else ("idle",):
        row(kind.replace("_", " "), lambda kind=kind: measured(plugins, kind, seconds), count)  # type: ignore[misc]  # mypy and defaults of lambdas
    if count:
        row("idle, by psutil", lambda: with_psutil(plugins, 0.05, seconds), count)
        row("asleep or at work, by psutil", lambda: with_psutil(plugins, 0.02, seconds), count)


if __name__ == "__main__":
    main()
