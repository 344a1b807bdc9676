"""The data directory has a limit in bytes and in files, whatever a plugin does there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import BlockingHost, Cause
from sandbox_host.errors import BudgetExceededError, PluginEndedError
from sandbox_host.runtime import disk
from tests.support.host import Load, Workshop
from tests.support.traces import eventually

pytestmark = pytest.mark.needs("landlock", "seccomp")


@pytest.fixture(autouse=True)
def _looks_come_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or most of a test is the pause between two of them."""
    monkeypatch.setattr(disk, "PAUSE_SECONDS", 0.2)


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


MOVER = """
def at(name):
    return os.path.join(context().data_dir, name)

@operation
def hide(count, guided):
    names = [at(name) for name in "abcdef"]
    for name in names:
        os.mkdir(name)
    for number in range(1000):
        os.close(os.open(os.path.join(names[number % 6], str(number)), os.O_CREAT))
    os.mkdir(names[0] + "/big")
    inside = os.open(names[0] + "/big", os.O_DIRECTORY)
    here, number, moves = 0, 0, 0
    began = time.monotonic()
    while not os.path.exists(at("enough")):
        if guided:
            there = listed_first(names, here)
        else:
            # As a listing takes its time, what moves on at every step is mostly somewhere else.
            there = (here + 1) % 6
        if there != here:
            os.rename(names[here] + "/big", names[there] + "/big")
            here, moves = there, moves + 1
        if guided and moves % 2:
            time.sleep(0.3)  # the look is over then; out of the place that is listed first
            there = (here + 1) % 6
            os.rename(names[here] + "/big", names[there] + "/big")
            here, moves = there, moves + 1
        while number < count and (knows(moves, began) if guided else moves % 20 == 0):
            file = os.open(f"{number}", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=inside)
            os.write(file, bytes(1024 * 1024))
            os.close(file)
            number += 1
            if number == count:
                os.mkdir(at("done"))
            if not guided:
                break
    return number

def knows(moves, began):
    return moves >= 4 or time.monotonic() > began + 5

def listed_first(names, here):
    "Return which of them somebody reads, or where it is after some milliseconds."
    for name in names:
        os.mkdir(name + "/t")  # else a time of access is not kept up to date (relatime)
        os.rmdir(name + "/t")
    time.sleep(0.005)
    were = [os.stat(name).st_atime_ns for name in names]
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        for place, name in enumerate(names):
            if place != here and os.stat(name).st_atime_ns != were[place]:
                return place
    return here
"""


@pytest.mark.parametrize(
    "guided",
    [False, pytest.param(True, marks=pytest.mark.soak)],
    ids=["always", "when it is looked for"],
)
def test_a_tree_that_is_elsewhere_is_found(workshop: Workshop, load: Load, guided: bool) -> None:
    """Moved on at every step, or, told by the times of access, to where the host has been."""
    budget = {"wall_time": 60, "cpu_time": 60}
    free = load(MOVER, name="free", limits={"data": "1 GiB", **budget})
    # Without this budget it keeps all that it wrote, however often it is looked at.
    data = workshop.data_dir("free")
    found: list[int] = []
    call = threading.Thread(target=lambda: found.append(free.call("hide", 40, guided)))
    call.start()
    assert eventually((data / "done").exists, seconds=50.0)
    (data / "enough").touch()
    call.join()
    assert found == [40]
    assert _mib(data) >= 40

    plugin = load(MOVER, name="mover", limits={"data": "16 MiB", **budget})
    with pytest.raises(BudgetExceededError, match="exceeded the budget") as caught:
        plugin.call("hide", 40, guided, deadline=50.0)
    assert caught.value.budget == "data"
    assert caught.value.used > caught.value.limit
    assert plugin._process.ended.wait(10)
    assert plugin.cause is Cause.DISK


def _mib(directory: Path) -> float:
    """Return what the files of a tree take that nobody changes."""
    return sum(path.lstat().st_blocks for path in directory.rglob("*")) * 512 / MIB


BUSY = """
def at(name):
    return os.path.join(context().data_dir, name)

@operation
def churn():
    for name in "abcd":
        os.makedirs(at(name), exist_ok=True)
    number = 0
    while not os.path.exists(at("enough")):
        number += 1
        new = at("abcd"[number % 4] + "/" + str(number))
        with open(new, "wb") as file:
            file.write(bytes(1024 * 1024))
        # A cache of four, a file that replaces another, a directory that comes and goes.
        if number > 4:
            os.rename(new, at("abcd"[number % 4] + "/" + str(number - 4)))
            os.rename(at("abcd"[number % 4] + "/" + str(number - 4)), new)
            os.unlink(at("abcd"[number % 4] + "/" + str(number - 4)) + "~")
        os.rename(new, new + "~")
        os.mkdir(at("e"))
        os.rename(at("e"), at("a/e"))
        os.rmdir(at("a/e"))
    return number
"""


def test_who_is_busy_below_the_budget_lives(
    host: BlockingHost, workshop: Workshop, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"data": "8 MiB", "wall_time": 60, "cpu_time": 60}
    plugin = load(BUSY, limits=limits)
    process = plugin._process
    done = {"looks": 0, "stops": 0}
    for counted, name in (("looks", "unlinked_bytes"), ("stops", "suspend")):
        monkeypatch.setattr(process, name, _counting(done, counted, getattr(process, name)))
    found: list[int] = []
    call = threading.Thread(target=lambda: found.append(plugin.call("churn")))
    call.start()
    assert eventually(
        lambda: (done["looks"] >= 4 and done["stops"] >= 1) or not call.is_alive(), seconds=50.0
    )
    (workshop.data_dir("sample") / "enough").touch()
    call.join()
    # It wrote more in that time than it may have, and was stopped to be looked at.
    assert found
    assert found[0] > 8
    assert done["stops"] >= 1
    assert plugin.call("echo", 1) == 1
    assert plugin.cause is None


def _counting(done: dict[str, int], counted: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        done[counted] += 1
        return method(*arguments)

    return call


def test_what_looks_like_much_is_measured_as_it_is(host: BlockingHost, load: Load) -> None:
    """A sparse file, a directory of mode 000, a tree a thousand deep: small, and survived."""
    plugin = load(WRITER, limits={"data": "32 MiB", "data_files": 5_000})
    assert plugin.call("harmless") == "written"
    turn = host._core._disk._turns[plugin._process]
    first = turn.due
    assert eventually(lambda: turn.due != first)
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
