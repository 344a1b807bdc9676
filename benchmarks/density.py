"""How many plugins can live at once, and what does one more cost the others?

Run it with ``.venv/bin/python benchmarks/density.py [--most N] [--calls N] [--quick]``. In one host
with 1, 10, 100 and 1,000 plugins alive, fully confined, each loaded and called once: what a call
costs (to one plugin, and to all in turn), what an event to one plugin costs, what the host's own
watching takes of a CPU while nobody calls, and the memory of a plugin. In the same moments a raw
pipe of Python is called, which knows nothing of the plugins: if it slows down too, the machine did.

Memory is PSS, the kernel's proportional share of each page (``smaps_rollup``), so pages that all
plugins share count once in all. It does not count the kernel's own memory; so the machine's free
memory before and after is told as well. Peers are idle processes of the same kind, ten of each.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import children  # beside this file, like the others
import peers
from fanout import COUNTER, Publisher
from frame import Results, options_of, percentile, progress, reason, take_turns
from ours import ECHO, OURS, Ground, ground

from sandbox_host import BlockingHost, BlockingPlugin, SandboxHost

PAYLOAD = b"x" * 32
LEVELS = (1, 10, 100, 1_000)
KIN = 10
"""Processes of each peer: so many share what they can share."""

TURNS = 8
KIB = 1_024
ONE, ALL, EVENT = f"{OURS}, always one plugin", f"{OURS}, all in turn", f"{OURS}, an event"


# -- memory ---------------------------------------------------------------------------------------


def pss_mib(pid: int) -> float:
    """Return the proportional set size of a process in MiB.

    Raises:
        OSError: the kernel does not tell, or the process is gone.
    """
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) / KIB
    raise OSError("the kernel tells no Pss")


def available_mib() -> float:
    """Return how much memory the machine could still give away, in MiB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / KIB
    raise OSError("the kernel tells no MemAvailable")


@contextmanager
def idle_children(line: list[str]) -> Iterator[list[int]]:
    """Start some processes that say a byte when they are ready; yield their pids."""
    with ExitStack() as stack:
        out, said = os.pipe()
        stack.callback(os.close, out)
        pids = [stack.enter_context(peers.child(line, files={1: said})) for _ in range(KIN)]
        os.close(said)
        for _ in pids:
            os.read(out, 1)
        yield pids


@contextmanager
def idle_workers(method: str) -> Iterator[list[int]]:
    """Start some processes of `multiprocessing`, each called once; yield their pids."""
    context = multiprocessing.get_context(method)
    with ExitStack() as stack, peers.bare_main():
        pids = []
        for _ in range(KIN):
            ours, theirs = context.Pipe()
            process = context.Process(target=children.pipe_objects, args=(theirs,), daemon=True)
            process.start()
            stack.callback(ours.close)
            stack.callback(process.join)
            stack.callback(process.kill)
            ours.send(PAYLOAD)
            ours.recv()
            pids.append(process.pid or 0)
        yield pids


def kin() -> dict[str, Callable[[], Any]]:
    """Return what opens the idle processes of each peer."""
    asleep = "import posix, time; posix.write(1, b'+'); time.sleep(3_600)"
    bare = [peers.python(), "-I", "-S", "-E", "-c", asleep]
    grpc = peers.child_line("grpc", "unix-abstract:bench-{}")  # each has an address of its own
    return {
        "bare python -I -S -E": lambda: idle_children(bare),
        "multiprocessing, forkserver": lambda: idle_workers("forkserver"),
        "multiprocessing, spawn": lambda: idle_workers("spawn"),
        peers.GRPC: lambda: idle_servers(grpc),
    }


@contextmanager
def idle_servers(line: list[str]) -> Iterator[list[int]]:
    """Start some servers of gRPC; yield their pids."""
    if not children.PEERS.is_dir():
        raise FileNotFoundError("the peers are not installed (make bench does it)")
    with ExitStack() as stack:
        pids = []
        for number in range(KIN):
            own = [*line[:-1], line[-1].format(f"{os.getpid()}-{number}")]
            out, said = os.pipe()
            stack.callback(os.close, out)
            pids.append(stack.enter_context(peers.child(own, files={1: said})))
            os.close(said)
            os.read(out, 1)
        yield pids


def measure_kin(results: Results) -> None:
    """Measure the memory of the peers' idle processes."""
    table = results.tables["memory"]
    peers.preload_forkserver()
    for name, opening in kin().items():
        try:
            with opening() as pids:
                table.add(name, [pss_mib(pid) for pid in pids])
        except Exception as error:  # noqa: BLE001 - a peer fails as it pleases; it is told
            table.lacks(name, reason(error))


# -- one level ------------------------------------------------------------------------------------


class Crowd:
    """A host with more and more plugins.

    Args:
        where: they are written there.
        host: loads them.
    """

    def __init__(self, where: Ground, host: BlockingHost) -> None:
        self._where, self._host = where, host
        self.plugins: list[BlockingPlugin] = []
        bundle = where.publisher.release("listener", COUNTER, events=["measured"])
        self._publisher = Publisher(host, [host.load(bundle)])

    def grow(self, number: int) -> float:
        """Load plugins until there are so many; return the seconds that one took."""
        names = [f"echo_{index}" for index in range(len(self.plugins), number)]
        bundles = [self._where.publisher.release(name, ECHO) for name in names]
        start = time.perf_counter()
        for bundle in bundles:
            plugin = self._host.load(bundle)
            plugin.call("echo", PAYLOAD)
            self.plugins.append(plugin)
        return (time.perf_counter() - start) / max(1, len(bundles))

    def one(self, calls: int) -> list[float]:
        """Call the first plugin; return microseconds."""
        return _timed(itertools.repeat(self.plugins[0]), calls)

    def all(self, calls: int) -> list[float]:
        """Call all plugins in turn; return microseconds."""
        return _timed(itertools.cycle(self.plugins), calls)

    def event(self, events: int) -> list[float]:
        """Publish events that one plugin handles; return the microseconds of each, on average."""
        (rate,) = self._publisher.turn(events)
        return [1e6 / rate]

    def memory(self) -> list[float]:
        """Return the PSS of each plugin, in MiB."""
        return [pss_mib(plugin.receipt.pid) for plugin in self.plugins]


def _timed(plugins: Iterator[BlockingPlugin], calls: int) -> list[float]:
    clock, times = time.perf_counter_ns, []
    for plugin in itertools.islice(plugins, calls):
        start = clock()
        plugin.call("echo", PAYLOAD)
        times.append((clock() - start) / 1_000)
    return times


def host_share(seconds: float) -> float:
    """Return how much of a CPU this process takes while nobody calls, in per cent."""
    began, used = time.monotonic(), time.process_time()
    time.sleep(seconds)
    return (time.process_time() - used) / (time.monotonic() - began) * 100


def measure_level(
    results: Results, crowd: Crowd, pipe: peers.Peer, number: int, options: argparse.Namespace
) -> None:
    """Measure everything with so many plugins alive."""
    facts, free = results.facts, available_mib()
    facts[f"milliseconds a load, up to {number} plugins"] = crowd.grow(number) * 1e3
    time.sleep(1.0)
    table = results.table(f"calls-{number}", f"one call, {number} plugins alive", "µs", peers.RAW)
    ways = {
        peers.RAW: lambda: pipe.trips(PAYLOAD, options.calls),
        ONE: lambda: crowd.one(options.calls),
        ALL: lambda: crowd.all(options.calls),
        EVENT: lambda: crowd.event(min(options.calls, 500)),
    }
    take_turns(table, ways, 2 if options.quick else TURNS)
    share = host_share(1.0 if options.quick else 4.0)
    results.tables["memory"].add(f"{OURS}, {number} alive, each called", crowd.memory())
    facts[f"per cent of a CPU, {number} idle plugins"] = share
    facts[f"MiB of the machine that {number} plugins took"] = free - available_mib()
    for row in table.rows():
        if "p50" in row:
            for value, name in (("p50", row["name"]), ("p99", f"{row['name']}, p99")):
                if value in row:
                    lines = results.series["plugins"]["lines"]
                    lines.setdefault(name, []).append([number, row[value]])


def main() -> None:
    """Measure level by level, and print the tables."""
    options = options_of(
        __doc__,
        most=(1_000, 30, "plugins alive in the end"),
        calls=(2_000, 300, "calls in one turn"),
    )
    raise_descriptors()
    results = Results("How many plugins can live at once?")
    results.line("plugins", "One call or event, by plugins alive", "plugins alive", "µs")
    results.table(
        "memory", "memory (PSS) of an idle process", "MiB", "bare python -I -S -E", places=2
    )
    measure_kin(results)
    with ExitStack() as stack:
        pipe = stack.enter_context(peers.raw_pipe())
        where = stack.enter_context(ground())
        host = stack.enter_context(SandboxHost.blocking(where.config()))
        try:
            crowd = Crowd(where, host)
            for number in sorted({*(n for n in LEVELS if n < options.most), options.most}):
                progress(f"{number} plugins")
                measure_level(results, crowd, pipe, number, options)
                results.facts["plugins alive"] = len(crowd.plugins)
        except Exception as error:  # noqa: BLE001 - what was reached is told, and why no more
            results.remarks.append(f"ended early: {reason(error)}")
        began = time.perf_counter()
    results.facts["seconds to end all of them"] = time.perf_counter() - began
    judge(results)
    results.tell(options.json)


def raise_descriptors() -> None:
    """Use as many descriptors as this user may: a thousand plugins have several each."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def judge(results: Results) -> None:
    """Say what one more idle plugin costs: the ratio to the raw pipe with many, and with one."""
    keys = [key for key in results.tables if key.startswith("calls-")]
    if len(keys) > 1:
        few, many = (results.tables[key].ratio(ONE) for key in (keys[0], keys[-1]))
        if few and many:
            results.facts["call with most alive, by call with one"] = many / few
        spread = [statistics.median(t) for t in results.tables[keys[0]].turns.get(ONE, [])]
        if spread:
            middle = statistics.median(spread)
            results.facts["spread of a turn with one alive"] = percentile(spread, 0.9) / middle


if __name__ == "__main__":
    main()
