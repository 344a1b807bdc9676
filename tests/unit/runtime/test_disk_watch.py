"""Who holds too much is ended although things are moved about; who is busy is not."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.budget.disk import DiskUse
from sandbox_host.budget.enforce import Excess
from sandbox_host.model import Limits
from sandbox_host.runtime import disk
from sandbox_host.runtime.disk import MAX_PAUSE_SECONDS, PAUSE_SECONDS, DiskWatch
from tests.support.traces import eventually

KIB = 1024
LIMITS = Limits(data_bytes=512 * KIB, data_files=200)
CALM = DiskUse(1, 1, complete=True)
DOUBT = DiskUse(1, 1, complete=False)
MUCH = DiskUse(LIMITS.data_bytes + 1, 1, complete=True)
UNSURE = DiskUse(LIMITS.data_bytes + 1, 1, complete=False)


class Plugin:
    """A directory, and a thread that works there while it is let."""

    identity = "sample"
    limits = LIMITS

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.running = threading.Lock()
        self.looks = self.stops = 0
        self.excess: list[Excess] = []
        self.over = False
        self.still = False

    def cpu_seconds(self) -> float:
        return 1.0 if self.still else time.monotonic()

    def unlinked_bytes(self, device: int) -> int:
        assert device == self.data_dir.stat().st_dev
        self.looks += 1
        return 0

    def suspend(self) -> None:
        self.running.acquire()
        self.stops += 1

    def resume(self) -> None:
        self.running.release()

    def exceeded(self, excess: Excess) -> None:
        self.excess.append(excess)

    def work(self, step: Callable[[], object]) -> None:
        while not self.over:
            with self.running:
                step()


@contextlib.contextmanager
def working(plugin: Plugin, step: Callable[[], object]) -> Iterator[DiskWatch]:
    """Let it work, watched; afterwards nothing is stopped and nobody watches."""
    thread = threading.Thread(target=plugin.work, args=(step,))
    watch = DiskWatch()
    thread.start()
    try:
        watch.add(plugin)
        yield watch
    finally:
        plugin.over = True
        thread.join()
        watch.close()
    assert not plugin.running.locked()


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    monkeypatch.setattr(disk, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(disk, "_PAUSE_FACTOR", 0.0)
    return Plugin(tmp_path)


def test_what_is_always_elsewhere_is_found(plugin: Plugin) -> None:
    for name in "abcd":
        (plugin.data_dir / name).mkdir()
    (plugin.data_dir / "a" / "big").mkdir()
    with (plugin.data_dir / "a" / "big" / "file").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 1024 * KIB)
    here = ["a"]

    def move() -> None:
        there = "abcd"["abcd".index(here[0]) - 1]
        (plugin.data_dir / here[0] / "big").rename(plugin.data_dir / there / "big")
        here[0] = there

    with working(plugin, move):
        assert eventually(lambda: bool(plugin.excess))
    assert plugin.excess[0].budget == "data"
    assert plugin.excess[0].used >= 1024 * KIB
    assert plugin.stops >= 1


def test_who_is_busy_below_the_budget_lives(plugin: Plugin) -> None:
    """The files of one moment are a third of the budget; those of a look may be far above it."""
    data = plugin.data_dir
    for name in "abcd":
        (data / name).mkdir()
    number = 0

    def churn() -> None:
        nonlocal number
        old = data / "abcd"[number % 4] / str(number)
        number += 1
        new = data / "abcd"[number % 4] / str(number)
        new.write_bytes(b"x" * 80 * KIB)
        old.unlink(missing_ok=True)
        new.rename(data / "abcd"[number % 4] / f"{number}~")
        (data / "abcd"[number % 4] / f"{number}~").rename(new)

    with working(plugin, churn):
        assert eventually(lambda: plugin.looks >= 30 and plugin.stops >= 5)
    assert plugin.excess == []


@pytest.mark.parametrize(
    ("uses", "stops", "ended"),
    [
        ([CALM] * 6, 0, False),
        ([DOUBT, CALM] * 3, 0, False),
        ([DOUBT, DOUBT, CALM] * 3, 3, False),
        ([MUCH, CALM] * 3, 3, False),
        ([UNSURE, CALM] * 3, 3, False),
        ([MUCH, MUCH], 1, True),
        ([UNSURE, MUCH], 1, True),
        ([DOUBT, DOUBT, MUCH], 1, True),
        ([DOUBT] * 9, 4, True),
        ([UNSURE] * 10, 5, True),
        ([DiskUse(0, 201, complete=False)] * 2, 1, True),
    ],
    ids=[
        "nothing",
        "changed at every other look",
        "calm when stopped",
        "too much for a moment",
        "counted twice",
        "too much",
        "too much, while it changed",
        "too much, hidden",
        "changes although stopped",
        "seems too much, always changing",
        "more names than are counted",
    ],
)
def test_verdicts(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch, uses: list[DiskUse], stops: int, ended: bool
) -> None:
    """One use for each measurement; after the last one the plugin is ended, or all was well."""
    left = list(uses)
    monkeypatch.setattr(disk, "measure", lambda *_: left.pop(0) if left else CALM)
    watch = DiskWatch()
    watch.add(plugin)
    if ended:
        assert eventually(lambda: bool(plugin.excess))
        assert plugin.looks == len(uses)
    else:
        assert eventually(lambda: plugin.looks > len(uses) + 3)
    watch.close()
    assert bool(plugin.excess) is ended
    assert plugin.stops == stops


def test_it_is_resumed_whatever_happens(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*_: object) -> DiskUse:
        if plugin.running.locked():
            raise OSError(24, "Too many open files")
        return MUCH

    monkeypatch.setattr(disk, "measure", measure)
    watch = DiskWatch()
    watch.add(plugin)
    assert eventually(lambda: plugin.stops >= 2)
    watch.close()
    assert not plugin.running.locked()
    assert plugin.excess == []


@given(st.floats(0, 1e6))
def test_the_pause_has_bounds(took: float) -> None:
    assert PAUSE_SECONDS <= disk._pause(took) <= MAX_PAUSE_SECONDS


def test_the_pause_cannot_be_foreseen() -> None:
    assert len({disk._pause(took) for took in (0.0, 1.0, 100.0) for _ in range(5)}) == 15


def test_who_has_not_run_is_not_measured_again(plugin: Plugin) -> None:
    plugin.still = True
    other = Plugin(plugin.data_dir)
    with working(plugin, lambda: None) as watch:
        assert eventually(lambda: plugin.looks == 1)
        watch.add(other)
        assert eventually(lambda: other.looks >= 10)
        assert plugin.looks == 1
        plugin.still = False
        assert eventually(lambda: plugin.looks >= 3)


def test_who_is_removed_is_let_go(tmp_path: Path) -> None:
    """Now, not at the next look: who crashes and starts again in a row would be there often."""
    watch = DiskWatch()
    plugins = [Plugin(tmp_path) for _ in range(8)]
    kept = weakref.WeakSet(plugins)
    for plugin in plugins:
        watch.add(plugin)
    assert eventually(lambda: all(plugin.looks for plugin in plugins))
    while plugins:
        watch.remove(plugin := plugins.pop())
    del plugin
    gc.collect()
    assert len(kept) <= 2  # whom it has looked at last, and whom it waits for
    watch.close()
