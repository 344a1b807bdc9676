"""The watch with the kernel's notices, real plugins, real keys and the command line beside it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox_host import HostConfig
from sandbox_host.catalog.judging import Judging
from sandbox_host.catalog.roster import Change, ChangeKind
from sandbox_host.catalog.watch import Pace, PluginWatch
from tests.support.bundles import make_key, sign_directory, signed_plugin, trust_store
from tests.support.command_line import LocalCommandLine
from tests.support.traces import eventually

QUICK = Pace(quiet=0.05, tick=0.02, scan=0.1, share=0.5)


class Watched:
    """A plugin directory with a watch in a thread of its own."""

    def __init__(self, root: Path, pace: Pace, *, notices: bool = True) -> None:
        self.directory = root / "the plugins"
        self.directory.mkdir()
        self.sources = root / "sources"
        self.config = HostConfig(
            trust_store=trust_store(root, make_key()), state_dir=root / "state/sandbox-host"
        )
        self.told: list[Change] = []
        self.watch = PluginWatch(self.directory, Judging(self.config), pace=pace, notices=notices)
        self.told += self.watch.look()
        self.watch.start(self.told.append)

    def source(self, name: str, version: str = "1.0.0") -> Path:
        return signed_plugin(self.sources / version / name, make_key(), version=version)

    def hears(self, kind: ChangeKind, identity: str) -> bool:
        """Tell whether that was told, sooner or later; and forget what was told so far."""
        heard = eventually(lambda: any((c.kind, c.identity) == (kind, identity) for c in self.told))
        self.told.clear()
        return heard


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def make(pace: Pace = QUICK, **options: bool) -> Watched:
        made.append(Watched(tmp_path, pace, **options))
        return made[-1]

    before = set(threading.enumerate())
    yield make
    for one in made:
        one.watch.close()
    assert eventually(lambda: set(threading.enumerate()) <= before)


@pytest.mark.parametrize("notices", [True, False], ids=["notices", "polling"])
def test_everything_that_can_happen(watched: Callable[..., Watched], notices: bool) -> None:
    here = watched(notices=notices)
    assert here.watch.polling is not notices
    shutil.copytree(here.source("sample"), here.directory / "sample")
    assert here.hears(ChangeKind.ADDED, "sample")
    (here.directory / "sample/__init__.py").write_text("METADATA = {}\n")
    assert here.hears(ChangeKind.REFUSED, "sample")
    assert set(here.watch.present) == {"sample"}
    sign_directory(here.directory / "sample", make_key())
    assert here.hears(ChangeKind.CHANGED, "sample")
    (here.directory / "sample").rename(here.directory / "other")
    assert here.hears(ChangeKind.CHANGED, "sample")
    shutil.rmtree(here.directory / "other")
    assert here.hears(ChangeKind.REMOVED, "sample")
    assert not here.watch.present


def test_the_kernel_tells_what_no_scan_would_see_so_soon(watched: Callable[..., Watched]) -> None:
    here = watched(Pace(quiet=0.05, tick=0.02, scan=3_600.0))
    source = here.source("sample")
    shutil.copytree(source, here.directory / ".hidden")
    (here.directory / ".hidden").rename(here.directory / "sample")
    assert here.hears(ChangeKind.ADDED, "sample")
    shutil.rmtree(here.directory / "sample")
    assert here.hears(ChangeKind.REMOVED, "sample")


def test_beside_the_command_line(
    watched: Callable[..., Watched],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cli, here = LocalCommandLine(tmp_path, capsys, monkeypatch), watched()
    where = ("--plugin-directory", here.directory)
    options = (*where, "--trust-store", here.config.trust_store)
    assert cli("install", here.source("sample"), *options).code == 0
    assert here.hears(ChangeKind.ADDED, "sample")
    assert cli("install", here.source("sample", "1.1.0"), *options).code == 0
    assert here.hears(ChangeKind.CHANGED, "sample")
    assert cli("disable", "sample", *where).code == 0
    assert here.hears(ChangeKind.DISABLED, "sample")
    assert cli("enable", "sample", *where).code == 0
    assert here.hears(ChangeKind.ENABLED, "sample")
    assert cli("remove", "sample", *where, "--yes").code == 0
    assert here.hears(ChangeKind.REMOVED, "sample")


def test_a_flood_of_notices_costs_them_and_nothing_else(watched: Callable[..., Watched]) -> None:
    here = watched()
    noise = here.directory / "noise.txt"
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            noise.write_bytes(os.urandom(8))

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        assert here.hears(ChangeKind.WATCH, "")
        assert here.watch.polling
        shutil.copytree(here.source("sample"), here.directory / "sample")
        assert here.hears(ChangeKind.ADDED, "sample")
    finally:
        stop.set()
        thread.join()


def test_another_directory_takes_its_place(watched: Callable[..., Watched]) -> None:
    here = watched()
    shutil.copytree(here.source("old"), here.directory / "old")
    assert here.hears(ChangeKind.ADDED, "old")
    new = here.directory.with_name("new plugins")
    shutil.copytree(here.source("fresh"), new / "fresh")
    here.directory.rename(here.directory.with_name("old plugins"))
    new.rename(here.directory)
    assert here.hears(ChangeKind.ADDED, "fresh")
    assert eventually(lambda: set(here.watch.present) == {"fresh"})
