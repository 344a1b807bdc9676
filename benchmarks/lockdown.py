"""What does the lock-down cost? Each step, the whole load, a bare interpreter and bubblewrap.

Run it with ``.venv/bin/python benchmarks/lockdown.py [--rounds N] [--quick]``, as root and as
another user: the two are confined in different ways. The ways take turns, so that the machine's
mood hits all alike; read the ratios, not the microseconds. What is timed is the real thing: hosts
that load a signed plugin, verified, fully confined and attested. The clocks are put around the
host's functions here, and around the child's steps in the private copy of the SDK that its nursery
starts from.

Both peers run ``python -I -S -c pass`` to its end and load nothing. bubblewrap gives it namespaces,
a root and devices like ours; it has no control group, Landlock, seccomp, user id or attestation.
"""

from __future__ import annotations

import functools
import os
import py_compile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import bubblewrap  # beside this file, like the others
from frame import NotThereError, Results, options_of, reason
from ours import ECHO, ground

from sandbox_host import SandboxHost
from sandbox_host.backends.linux import backend, cgroup_v1, cgroup_v2
from sandbox_host.backends.linux.cgroup_group import Group
from sandbox_host.backends.linux.uids import UidLeases
from sandbox_host.bundle import stage
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.model import LayerStatus, Receipt
from sandbox_host.observe.journal import Journal
from sandbox_host.runtime import core, launch
from sandbox_host.runtime.blocking import BlockingHost

BARE = "bare interpreter, to its end"
BUBBLEWRAP = "bubblewrap, bare interpreter, to its end"
START = "process, locked down and attested"
NURSERY, EXEC = 'host.load, start="nursery"', 'host.load, start="exec"'
BOOT = "  of it, a nursery of its own"
UNLOAD = "host.unload"
IN_CHILD = "The lock-down, in the child; the pid namespace is made by its nursery"
IN_LOAD, IN_UNLOAD = f"{NURSERY}, in the host", f"{UNLOAD}, in the host"
PARTS = {"child": IN_CHILD, "load": IN_LOAD, "unload": IN_UNLOAD}
APPLIED, REST = "all of it", "all the rest"

# What the host does in a load and an unload, in order. Only the first two call others.
HOST: tuple[tuple[Any, str, str], ...] = (
    (backend.LinuxBackend, "start", START),
    (backend, "Nursery", BOOT),
    (launch, "read_bundle", "read the bundle"),
    (TrustStore, "load", "read the trust store"),
    (launch, "verify", "verify"),
    (Journal, "append", "write the journal"),
    (stage, "stage", "make the private copy"),
    (launch.Launcher, "_places", "make the directories"),
    (backend.LinuxBackend, "offers", "say what the machine offers"),
    (backend, "spawn", "have the nursery fork"),
    (cgroup_v1.CgroupsV1, "create", "control group: make"),
    (cgroup_v2.CgroupsV2, "create", "control group: make"),
    (Group, "add", "control group: attach"),
    (UidLeases, "take", "lease a user id"),
    (backend, "compile_plan", "compile the plan"),
    (backend, "_exchange", "wait for the lock-down"),
    (backend, "_report", "read the child's report"),
    (backend, "gather", "attest: read what is in force"),
    (backend, "attest", "attest: compare"),
    (backend, "write_receipt", "write the receipt"),
    (launch, "PluginProcess", "begin to look after it"),
    (launch.Launcher, "become_ready", "have the plugin imported"),
    (Group, "remove", "control group: remove"),
    (core, "_remove", "remove its files"),
)

# Appended to modules of the SDK's copy: sums the time of each step, and sends it with the report.
# The first step of all, the pid namespace, is the nursery's; the child inherits its time.
CLOCKS = {
    "child/confine.py": """
from time import perf_counter_ns as _now
from plugin_sdk.lockdown import root as _root

spent = {}

def timed(function, name):
    def clocked(*arguments):
        start = _now()
        try:
            return function(*arguments)
        finally:
            label = name(*arguments)
            spent[label] = spent.get(label, 0) + _now() - start
    return clocked

def unshare(flag, plain=unshare, mounts=timed(unshare, lambda flag: "own-root: unshare")):
    return mounts(flag) if flag == 0x20000 else plain(flag)

prepare = timed(prepare, lambda *_: "all of it")

def apply_plan(plan, parent, apply=timed(apply_plan, lambda *_: "all of it")):
    return {**apply(plan, parent), "spent": spent}

_step = timed(_step, lambda layer, action: layer)
_set_environment = timed(_set_environment, lambda variables: "environment")
try_all = timed(try_all, lambda *_: "probes")
open_descriptors = timed(open_descriptors, lambda: "read back descriptors")
_root._mount_entry = timed(_root._mount_entry, lambda at, entry: "own-root: " + entry["kind"])
_root._enter = timed(_root._enter, lambda at: "own-root: enter")
""",
    "nursery/serve.py": """
from plugin_sdk.child.confine import spent, timed

def unshare(flags, make=timed(unshare, lambda flags: "pid-namespace")):
    spent.clear()
    make(flags)
""",
}

Spent = dict[str, float]
Way = Callable[[], Spent]


class Clocks:
    """The microseconds that the host's functions and the child's steps took, by label."""

    def __init__(self) -> None:
        self.host: Spent = {}
        self.child: Spent = {}
        self.unknown: list[str] = []
        for owner, name, label in HOST:
            if hasattr(owner, name):
                setattr(owner, name, self._clocked(getattr(owner, name), label))
            else:
                self.unknown.append(label)

    def _clocked(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        def clocked(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter_ns()
            result = function(*arguments, **keywords)
            took = (time.perf_counter_ns() - start) / 1_000
            self.host[label] = self.host.get(label, 0.0) + took
            if isinstance(result, dict) and "spent" in result:
                spent = result.pop("spent")  # the child's report; ours is not for attestation
                self.child = {step: spent[step] / 1_000 for step in spent}
            return result

        return clocked

    def around(self, action: Callable[[], object]) -> tuple[float, Spent]:
        """Return how long an action takes, and what the host's functions took of it."""
        self.host, self.child = {}, {}
        whole = clock(action)
        return whole, self.host


def clock(action: Callable[[], object]) -> float:
    """Return how long an action takes, in microseconds."""
    start = time.perf_counter_ns()
    action()
    return (time.perf_counter_ns() - start) / 1_000


def run(command: list[str]) -> None:
    """Run a program to its end, which must be a good one."""
    _, status = os.waitpid(os.posix_spawn(command[0], command, {}), 0)
    if status:
        raise OSError(f"{command[0]} ended with {os.waitstatus_to_exitcode(status)}")


def put_clocks_in(state_dir: Path) -> None:
    """Change the copy of the SDK that an open host has made and no nursery has started from."""
    (sdk,) = state_dir.glob("run/*/sdk/plugin_sdk")
    for name, text in CLOCKS.items():
        with (sdk / name).open("a") as module:
            module.write(text)
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(sdk / name), doraise=True, invalidation_mode=mode)


def turn(host: BlockingHost, plugin: Path, clocks: Clocks, start: str) -> Spent:
    """Load and unload once; return the whole, and the parts as "heading|label"."""
    whole, load = clocks.around(lambda: host.load(plugin))
    child = clocks.child
    unloading, unload = clocks.around(lambda: host.unload("echo"))
    if start == "exec":
        return {EXEC: whole, BOOT: load[BOOT]}
    times = {NURSERY: whole, START: load.pop(START), UNLOAD: unloading}
    load[REST] = whole - sum(load.values())
    unload[REST] = unloading - sum(unload.values())
    applied = child.pop(APPLIED)
    # Parts of a step have a colon; the pid namespace was made before the child.
    steps = sum(took for name, took in child.items() if ":" not in name)
    child |= {REST: applied - steps + child.get("pid-namespace", 0.0), APPLIED: applied}
    for heading, parts in ((IN_CHILD, child), (IN_LOAD, load), (IN_UNLOAD, unload)):
        times |= {f"{heading}|{label}": took for label, took in parts.items()}
    return times


def rounds(number: int, ways: list[Way]) -> dict[str, list[float]]:
    """Take turns, another one first each time; the first turns warm up and are not counted."""
    times: dict[str, list[float]] = {}
    for done in range(number + 1):
        first = done % len(ways)
        for way in (*ways[first:], *ways[:first]):
            for name, took in way().items():
                if done:
                    times.setdefault(name, []).append(took)
    return times


def tabled(times: dict[str, list[float]], results: Results) -> None:
    """Put what was measured into tables, the whole first, each with ratios to the bare interpreter.

    One value is one turn; the bare interpreter's stand in each table.
    """
    for key, heading in {"whole": "lock-down and load", **PARTS}.items():
        table = results.table(key, heading, "µs", BARE, places=0)
        for name, values in sorted(times.items(), key=lambda item: item[0] != BARE):
            part, _, label = name.rpartition("|")
            if name == BARE or part == (heading if key in PARTS else ""):
                shown = f"  {label}" if label.startswith("own-root:") else label
                for value in values:
                    table.add(shown, [value])


def describe(receipt: Receipt) -> str:
    """Say which user this is, and which layers are not in force."""
    without = [r.layer for r in receipt.layers if r.status is not LayerStatus.ACTIVE]
    missing = ", ".join(without) or "none"
    return f"user {os.geteuid()}; {len(receipt.active)} layers in force; not there: {missing}"


def main() -> None:
    """Measure all ways in turns and print the tables."""
    options = options_of(__doc__, rounds=(100, 5, "turns that each way takes"))
    results = Results("What does the lock-down cost?")
    bare = [str(launch.base_python()), "-I", "-S", "-c", "pass"]
    ways: list[Way] = [lambda: {BARE: clock(lambda: run(bare))}]
    missing = ""
    try:
        inside = bubblewrap.inside(bare)
        run(inside)
        ways.append(lambda: {BUBBLEWRAP: clock(lambda: run(inside))})
    except (OSError, NotThereError) as error:
        missing = reason(error)
    with ExitStack() as stack:
        where = stack.enter_context(ground())
        plugin = where.publisher.release("echo", ECHO)
        clocks = Clocks()
        for start in ("nursery", "exec"):
            config = where.config(start=start)
            host = stack.enter_context(SandboxHost.blocking(config))
            if start == "nursery":
                put_clocks_in(config.state_dir)
                results.remarks.append(describe(host.load(plugin).receipt))
                host.unload("echo")
            ways.append(functools.partial(turn, host, plugin, clocks, start))
        times = rounds(options.rounds, ways)
    tabled(times, results)
    if missing:
        results.tables["whole"].lacks(BUBBLEWRAP, missing)
    if clocks.unknown:
        results.remarks.append(f"not found, so not clocked: {', '.join(clocks.unknown)}")
    results.tell(options.json)


if __name__ == "__main__":
    main()
