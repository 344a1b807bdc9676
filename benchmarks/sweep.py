"""What does it cost the host to look after its plugins? CPU time per second, by how many there are.

Run it with ``.venv/bin/python benchmarks/sweep.py [--milliseconds N] [--most N] [--quick]``.
Plugins are idle, or asleep in a call, or at work a tenth of the time in a call. The peer looks at
the same processes at the same pace (every 20 ms where there is a call, else every 50 ms) with
psutil: resident memory, CPU times, threads and descriptors, as a watchdog is usually written.
"""

from __future__ import annotations

import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
from frame import Results, options_of  # beside this file
from signed import write_signed  # it finds the rest

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
PSUTIL_IDLE, PSUTIL_BUSY = "idle, by psutil", "asleep or at work, by psutil"
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


def main() -> None:
    """Measure and print the tables."""
    options = options_of(
        __doc__,
        milliseconds=(4_000, 400, "of each measurement"),
        most=(32, 8, "plugins in the end"),
    )
    results, levels = Results("What does looking after plugins cost?"), {0, 1, 8, options.most}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = HostConfig(trust_store=directory / "trust.toml", state_dir=directory / "state")
        bundles = write_plugins(directory, config.trust_store, max(levels))
        for count in sorted(levels):
            with SandboxHost.blocking(config) as host:
                measure(results, host, bundles[:count], options.milliseconds / 1_000)
    results.tell(options.json)


def measure(results: Results, host: BlockingHost, bundles: list[Path], seconds: float) -> None:
    """Fill the table for so many plugins."""
    plugins, count = [host.load(bundle) for bundle in bundles], len(bundles)
    title = f"{count} plugins, µs of a CPU in a second"
    table = results.table(
        f"sweep-{count}", title, "µs/s", PSUTIL_IDLE if count else "idle", places=0
    )
    time.sleep(1.0)
    for kind in KINDS if count else ("idle",):
        table.add(kind.replace("_", " "), [measured(plugins, kind, seconds) * 1e6])
    if count:
        table.add(PSUTIL_IDLE, [with_psutil(plugins, 0.05, seconds) * 1e6])
        table.add(PSUTIL_BUSY, [with_psutil(plugins, 0.02, seconds) * 1e6])


if __name__ == "__main__":
    main()
