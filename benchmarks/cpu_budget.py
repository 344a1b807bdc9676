"""How late is a plugin ended that has used up its CPU time? Each way to spin, in turns.

Run it with ``.venv/bin/python benchmarks/cpu_budget.py [--rounds N] [--milliseconds N]``. What
counts is the CPU time of the operation until its process was gone, from the kernel's accounting at
its end: what it used before the call is taken off. An overrun of 10 per cent or 50 ms is promised,
whichever is more. The peer is what the kernel itself offers, RLIMIT_CPU, which knows whole seconds
of a whole life: a process of its own, spinning under ``ulimit -t 1``.
"""

from __future__ import annotations

import contextlib
import os
import resource
import tempfile
from pathlib import Path

from frame import Results, options_of  # beside this file
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
KERNEL = "RLIMIT_CPU, one second"
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
    options = options_of(
        __doc__,
        rounds=(10, 1, "turns that each way takes"),
        milliseconds=(500, 300, "of CPU time that a call may use"),
    )
    budget, results = options.milliseconds / 1_000, Results("How late is a plugin ended?")
    allowed = max(0.1 * budget, 0.05)
    title = f"over the CPU time; promised: {allowed * 1e3:.0f} ms"
    table = results.table("overrun", title, "ms", "")
    for _ in range(options.rounds):  # before there are threads
        table.add(KERNEL, [kernels_overrun() * 1e3])
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        config = HostConfig(trust_store=directory / "trust.toml", state_dir=directory / "state")
        bundle = write_signed(
            directory,
            config.trust_store,
            "spinner",
            PLUGIN,
            limits={"cpu_time": budget},
            permissions={"threads": True},
        )
        with SandboxHost.blocking(config) as host:
            for _ in range(options.rounds):
                for way in WAYS:
                    table.add(way, [overrun(host, bundle, way, budget) * 1e3])
    most = max(value for way in WAYS for turn in table.turns[way] for value in turn)
    results.facts["most ms over the CPU time"] = most
    results.facts["ms promised"] = allowed * 1e3
    results.tell(options.json)


if __name__ == "__main__":
    main()
