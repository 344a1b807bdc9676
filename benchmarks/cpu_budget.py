"""How late is a plugin ended that has used up its CPU time? Each way to spin, in turns.

Run it with ``.venv/bin/python benchmarks/cpu_budget.py [--rounds N] [--budget SECONDS]``. What
counts is the CPU time of the operation until its process was gone, from the kernel's accounting at
its end: what it used before the call is taken off. An overrun of 10 per cent or 50 ms is promised,
whichever is more. The peer is what the kernel itself offers, RLIMIT_CPU, which knows whole seconds
of a whole life: a process of its own, spinning under ``ulimit -t 1``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import statistics
import tempfile
from pathlib import Path

from signed import write_signed  # beside this file: it finds the rest

from sandbox_host import BlockingHost, Cause, HostConfig, SandboxHost
from sandbox_host.errors import BudgetExceededError

PLUGIN = """
import ctypes, threading

@operation
def spin():
    while True:
        pass

@operation
def threads():
    for _ in range(7):
        threading.Thread(target=spin, daemon=True).start()
    spin()

@operation
def power():
    return 7 ** 100_000_000

@operation
def foreign_code():
    library, sized = ctypes.PyDLL(None), ctypes.c_size_t
    library.memmem.argtypes = [ctypes.c_char_p, sized, ctypes.c_char_p, sized]
    hay, needle = b"a" * (1 << 27), b"a" * (1 << 12) + b"b"
    while True:
        library.memmem(hay, len(hay), needle, len(needle))

@operation
def free_threads():
    # Hashing lets go of the interpreter's lock: these use as many CPUs as there are.
    import hashlib
    data = bytes(1 << 26)
    def work():
        while True:
            hashlib.sha256(data)
    for _ in range(7):
        threading.Thread(target=work, daemon=True).start()
    work()
"""
WAYS = ("spin", "threads", "free_threads", "power", "foreign_code")


def overrun(host: BlockingHost, bundle: Path, way: str, budget: float) -> float:
    """Return by how many seconds of CPU time one plugin went over its budget."""
    plugin = host.load(bundle)
    before = plugin.usage().cpu_seconds
    with contextlib.suppress(BudgetExceededError):
        plugin.call(way)
    if plugin.cause is not Cause.CPU:
        raise SystemExit(f"{way} was ended for another cause: {plugin.cause}")
    used = plugin.usage().cpu_seconds - before
    host.unload("spinner")
    return used - budget


def kernels_overrun() -> float:
    """Return by how much a process goes over RLIMIT_CPU's one second, its start not counted."""
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
        while True:
            pass
    _, _, usage = os.wait4(pid, 0)
    return usage.ru_utime + usage.ru_stime - 1.0


def main() -> None:
    """Measure all ways in turns and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--budget", type=float, default=0.5, help="seconds of CPU time")
    options = parser.parse_args()
    over: dict[str, list[float]] = {"RLIMIT_CPU, one second": []}
    for _ in range(options.rounds):  # before there are threads
        over["RLIMIT_CPU, one second"].append(kernels_overrun())
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        config = HostConfig(trust_store=directory / "trust.toml", state_dir=directory / "state")
        bundle = write_signed(
            directory,
            config.trust_store,
            "spinner",
            PLUGIN,
            limits={"cpu_time": options.budget},
            permissions={"threads": True},
        )
        with SandboxHost.blocking(config) as host:
            for _ in range(options.rounds):
                for way in WAYS:
                    late = overrun(host, bundle, way, options.budget)
                    over.setdefault(way, []).append(late)
    allowed = max(0.1 * options.budget, 0.05)
    print(f"{'ms over the budget':24} {'median':>8} {'most':>8}   promised: {allowed * 1e3:.0f}")
    for way, values in over.items():
        print(f"{way:24} {statistics.median(values) * 1e3:8.1f} {max(values) * 1e3:8.1f}")


if __name__ == "__main__":
    main()
