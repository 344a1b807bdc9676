"""The data directory has a limit in bytes and in files, whatever a plugin does there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import BlockingHost, Cause
from sandbox_host.errors import BudgetExceededError, PluginEndedError
from tests.support.host import Load, Workshop

pytestmark = pytest.mark.needs("landlock", "seccomp")

WRITER = """
import time

def at(name):
    return os.path.join(context().data_dir, name)

@operation
def fill(how, count):
    held = []
    for number in range(count):
        file = open(at(f"{how}-{number}"), "wb")
        if how != "empty":
            file.write(b"x" * 1024 * 1024)
            file.flush()
        if how == "unlinked":
            os.unlink(file.name)
            held.append(file)
        else:
            file.close()
    time.sleep(20)

@operation
def harmless():
    with open(at("sparse"), "wb") as file:
        file.truncate(200 * 1024 * 1024)
    os.makedirs(at("locked/inside"))
    os.chmod(at("locked"), 0)
    here = context().data_dir
    os.chdir(here)
    for _ in range(1000):
        os.mkdir("d")
        os.chdir("d")
    os.chdir(here)
    return "written"
"""
MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("how", "count", "limits", "budget"),
    [
        ("named", 40, {"data": "16 MiB"}, "data"),
        ("unlinked", 40, {"data": "16 MiB"}, "data"),
        ("empty", 300, {"data_files": 100}, "data_files"),
    ],
    ids=["bytes", "bytes without a name", "files"],
)
def test_too_much_ends_that_plugin(
    load: Load, how: str, count: int, limits: dict[str, Any], budget: str
) -> None:
    neighbour = load(name="neighbour")
    plugin = load(WRITER, limits=limits)
    with pytest.raises(BudgetExceededError, match="exceeded the budget") as caught:
        plugin.call("fill", how, count, deadline=30.0)
    assert caught.value.budget == budget
    assert caught.value.used > caught.value.limit
    assert plugin._process.ended.wait(10)
    assert plugin.cause is Cause.DISK
    assert neighbour.call("echo", 1) == 1


def test_what_looks_like_much_is_measured_as_it_is(host: BlockingHost, load: Load) -> None:
    """A sparse file, a directory of mode 000, a tree a thousand deep: small, and survived."""
    plugin = load(WRITER, limits={"data": "32 MiB", "data_files": 5_000})
    assert plugin.call("harmless") == "written"
    turn = host._core._disk._turns[plugin._process]
    first = turn.due
    while turn.due == first:
        os.sched_yield()
    assert plugin.call("echo", 1) == 1


def test_a_directory_that_is_full_already_is_told(workshop: Workshop, load: Load) -> None:
    data = workshop.data_dir("sample")
    data.mkdir(parents=True, mode=0o700)
    data.parent.chmod(0o700)
    for number in range(20):
        (data / str(number)).touch()
    with pytest.raises((PluginEndedError, BudgetExceededError), match="data_files"):
        load("import time\ntime.sleep(10)\n", limits={"data_files": 10})


def test_the_receipt_says_how_it_is_bounded(load: Load) -> None:
    limits = {one.name: one.mechanism for one in load().receipt.limits}
    assert "measured by the host" in limits["data_bytes"]
    assert "measured by the host" in limits["data_files"]


def test_nothing_of_it_runs_before_there_is_a_plugin(host: BlockingHost) -> None:
    assert host._core._disk._thread is None
    assert Path(host._core.config.state_dir).is_dir()
