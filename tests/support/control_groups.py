"""Control groups of this machine's kernel, for tests that put processes of their own into them.

Version 1 needs root and writable hierarchies. Version 2 needs root and controllers in
its hierarchy, and uses those that it offers: memory and pids, or whatever version 1 left.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox_host.backends.linux import cgroup, cgroup_directory
from sandbox_host.backends.linux.cgroup import CONTROLLERS, Cgroups

# Starts its work when it is told to: until then it can be moved.
SLEEPER = "import sys; sys.stdin.readline()"


@contextmanager
def running(source: str, *arguments: str, **options) -> Iterator[subprocess.Popen[str]]:
    """Run Python source; whatever happens, it is ended and reaped."""
    command = [sys.executable, "-c", source, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[str]) -> None:
    """Tell a process to go on."""
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def go(process: subprocess.Popen[str]) -> str:
    """Tell a process to go on, and return the line that it prints, or "" if it ends instead."""
    assert process.stdout
    tell(process)
    return process.stdout.readline()


@dataclass
class Offer:
    """Groups found, and the controllers that they have."""

    groups: Cgroups
    controllers: tuple[str, ...]


@contextmanager
def offer_of_version_1() -> Iterator[Offer]:
    try:
        groups = cgroup._open_v1(cgroup._look(), None, CONTROLLERS)
    except (OSError, cgroup_directory.UnusableError) as error:
        pytest.skip(f"no writable version 1 hierarchies of memory and pids: {error}")
    try:
        yield Offer(groups, CONTROLLERS)
    finally:
        groups.close()


@dataclass
class Delegated:
    """A group of version 2 of the test's own, with the controllers that this machine offers."""

    path: Path
    controllers: tuple[str, ...]


@contextmanager
def delegated_group() -> Iterator[Delegated]:
    view = cgroup._look()
    own = view.unified()
    place = own and view.place(own, "/")
    if not place or os.geteuid() != 0:
        pytest.skip("needs root and the root of a version 2 hierarchy")
    root = place.directory
    offered = cgroup_directory.read(root / "cgroup.controllers").split()
    controllers = tuple(c for c in CONTROLLERS if c in offered) or ("hugetlb",)
    if not set(controllers) <= set(offered):
        pytest.skip("the version 2 hierarchy has no controller: version 1 has them all")
    lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Workers of one test run take turns: what one of them hands out, another takes back.
        fcntl.flock(lock, fcntl.LOCK_EX)
        control = root / "cgroup.subtree_control"
        before = control.read_text().split()
        path = root / f"test-{os.getpid()}"
        try:
            control.write_text(" ".join(f"+{name}" for name in controllers))
            path.mkdir()
        except OSError as error:
            pytest.skip(f"the version 2 hierarchy is not writable: {error}")
        yield Delegated(path, controllers)
        for directory in sorted(path.rglob("*"), reverse=True):
            if directory.is_dir():
                cgroup_directory.remove(directory, 5.0)
        assert cgroup_directory.remove(path, 5.0)
        for name in set(controllers) - set(before):
            with suppress(OSError):
                control.write_text(f"-{name}")
    finally:
        os.close(lock)
