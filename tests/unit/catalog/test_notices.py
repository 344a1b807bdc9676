"""The kernel's notices: a hint, bounded, and gone when there are too many of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from watchdog.events import FileCreatedEvent, FileMovedEvent

import sandbox_host.catalog.notices as room
from sandbox_host.catalog.notices import DEAF_SECONDS, FLOODED, MAX_NAMES, MAX_NOTICES, Notices
from tests.support.traces import eventually


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def notices(tmp_path: Path, clock: Clock) -> Iterator[Notices]:
    made = Notices(tmp_path, lambda: None, clock)
    yield made
    made.stop()


def identity(directory: Path) -> tuple[int, int]:
    status = directory.stat()
    return status.st_dev, status.st_ino


def gathered(notices: Notices, name: str) -> bool:
    seen: set[str] = set()

    def told() -> bool:
        seen.update(notices.take() or ())
        return name in seen

    return eventually(told)


def test_names_of_what_happens(notices: Notices, tmp_path: Path) -> None:
    assert notices.tend(identity(tmp_path)) == ""
    assert notices.listening
    assert notices.take() is None  # everything: what happened before it listened
    assert notices.take() == set()
    (tmp_path / "new").mkdir()
    assert gathered(notices, "new")
    (tmp_path / "new").rename(tmp_path / "other")
    assert gathered(notices, "other")
    (tmp_path / "a.plugin").write_bytes(b"x")
    assert gathered(notices, "a.plugin")
    (tmp_path / "a.plugin").unlink()
    assert gathered(notices, "a.plugin")


def test_through_a_link(tmp_path: Path, clock: Clock) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    notices = Notices(tmp_path / "link", lambda: None, clock)
    try:
        assert notices.tend(identity(real)) == ""
        notices.take()
        (real / "new").mkdir()
        assert gathered(notices, "new")
    finally:
        notices.stop()


def test_our_own_looks_give_none(notices: Notices, tmp_path: Path) -> None:
    (tmp_path / "plugin").mkdir()
    notices.tend(identity(tmp_path))
    notices.take()
    os.listdir(tmp_path)
    os.listdir(tmp_path / "plugin")
    (tmp_path / "plugin/inside").write_text("x")  # nor what happens below: the scan sees that
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "last").mkdir()
    seen: set[str] = set()

    def told() -> bool:
        seen.update(notices.take() or ())
        return "last" in seen

    assert eventually(told)
    assert seen == {"last"}


def test_a_directory_that_takes_the_place_of_another(notices: Notices, tmp_path: Path) -> None:
    directory = tmp_path / "plugins"
    directory.mkdir()
    mine = Notices(directory, lambda: None)
    try:
        mine.tend(identity(directory))
        directory.rename(tmp_path / "old")
        directory.mkdir()
        assert mine.tend(identity(directory)) == ""
        mine.take()
        (directory / "new").mkdir()
        assert gathered(mine, "new")
    finally:
        mine.stop()


def test_it_wakes(tmp_path: Path) -> None:
    woken = threading.Event()
    notices = Notices(tmp_path, woken.set)
    try:
        notices.tend(identity(tmp_path))
        (tmp_path / "new").mkdir()
        assert woken.wait(20)
    finally:
        notices.stop()


def test_a_flood_makes_it_deaf_for_a_while(notices: Notices, tmp_path: Path, clock: Clock) -> None:
    here = identity(tmp_path)
    for deaf in (DEAF_SECONDS, DEAF_SECONDS * 2):
        assert notices.tend(here) == ""
        for number in range(MAX_NOTICES + 2):
            notices._noted(FileCreatedEvent(str(tmp_path / f"f{number}")))
        assert notices.tend(here) == FLOODED
        assert not notices.listening
        clock.now += deaf - 1
        assert notices.tend(here) == FLOODED
        clock.now += 2
    assert notices.tend(here) == ""
    assert notices.take() is None  # what happened meanwhile


def test_many_in_many_seconds_are_no_flood(notices: Notices, tmp_path: Path, clock: Clock) -> None:
    notices.tend(identity(tmp_path))
    for _ in range(3 * MAX_NOTICES):
        clock.now += 0.01
        notices._noted(FileCreatedEvent(str(tmp_path / "same")))
    assert notices.tend(identity(tmp_path)) == ""


def test_names_are_bounded(notices: Notices, tmp_path: Path, clock: Clock) -> None:
    notices.take()
    for number in range(MAX_NAMES + 1):
        clock.now += 1
        notices._noted(FileMovedEvent(str(tmp_path / "from"), str(tmp_path / f"to{number}")))
    assert notices.take() is None


def test_without_inotify(notices: Notices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object, **__: object) -> None:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr("watchdog.observers.Observer.schedule", start)
    before = threading.active_count()
    why = notices.tend(identity(tmp_path))
    assert why == "the kernel gives no notices of it (inotify watch limit reached)"
    assert not notices.listening
    assert eventually(lambda: threading.active_count() == before)
    assert why != room.FLOODED
