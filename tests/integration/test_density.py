"""Many plugins at once: started in parallel, all alive and fully confined, and little each.

What is asserted of memory and descriptors does not depend on how fast the machine is. The short
form has forty, the long one a thousand, as many as one machine of two cores is to carry.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox_host import BlockingHost, SandboxHost
from tests.support.host import Workshop

pytestmark = pytest.mark.needs("landlock", "seccomp", "pid-namespace", "own-root", "cgroup")

MAIN = """
from plugin_sdk import operation

@operation
def echo(value):
    return value
"""
STARTERS = 8
MOST_KIB = 4 * 1024 + 512
"""Of memory for each plugin, its share of what is shared included. Nearly all of it are pages that
CPython writes counts of references into, which were its nursery's before."""

MOST_DESCRIPTORS = 14
MOST_HOST_KIB = 200


def names(count: int) -> list[str]:
    return [f"plugin_{number}" for number in range(count)]


def shared_out(pid: int) -> int:
    """Return a process's proportional set size, in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


@contextmanager
def few_descriptors() -> Iterator[None]:
    """As in a session of most distributions; the host raises it again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1_024), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def load_all(host: BlockingHost, bundles: list[Path]) -> None:
    with ThreadPoolExecutor(STARTERS) as pool:
        list(pool.map(host.load, bundles))


def check(workshop: Workshop, count: int) -> None:
    bundles = [workshop.write(name=name, files={"main.py": MAIN}) for name in names(count)]
    with few_descriptors(), SandboxHost.blocking(workshop.config()) as host:
        warm = workshop.write(name="warm", files={"main.py": MAIN})
        layers = set(host.load(warm).receipt.active)
        descriptors, size = len(os.listdir("/proc/self/fd")), resident()
        load_all(host, bundles)
        more = len(os.listdir("/proc/self/fd")) - descriptors
        grown = resident() - size
        processes = [host._core.get(name) for name in names(count)]
        assert all(process.ended.is_set() is False for process in processes)
        assert all(set(process.receipt.active) == layers for process in processes)
        for name in names(count)[:: count // 10]:
            assert host.plugins[name].call("echo", name) == name
        sizes = sorted(shared_out(process.receipt.pid) for process in processes)
        assert sizes[count // 2] <= MOST_KIB
        assert more / count <= MOST_DESCRIPTORS
        assert grown / count <= MOST_HOST_KIB


def test_forty_at_once(tmp_path: Path) -> None:
    check(Workshop(tmp_path), 40)


@pytest.mark.soak
def test_a_thousand_at_once(tmp_path: Path) -> None:
    check(Workshop(tmp_path), 1_000)
