"""Putting plugins into a plugin directory: in one step, or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sandbox_host.catalog.placing as room
from sandbox_host.bundle.reader import read_directory
from sandbox_host.bundle.source import read_bundle
from sandbox_host.bundle.verify import verify
from sandbox_host.catalog.discover import discover
from sandbox_host.catalog.placing import LOCK_NAME, Placed, PluginPlace, find_plugin
from sandbox_host.errors import (
    BundleError,
    ConfigError,
    JournalError,
    PluginNotFoundError,
    UsageError,
)
from tests.support.bundles import NOW, make_key, signed_plugin, store_of, write_plugin


def erase(name: str, directory_fd: int) -> str:
    try:
        os.unlink(name, dir_fd=directory_fd)
    except IsADirectoryError:
        shutil.rmtree(name, dir_fd=directory_fd)
    return ""


class Bench:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.directory = root / "the plugins"
        self.told: list[tuple[str, str, str]] = []
        self.place = PluginPlace(self.directory, lambda *words: self.told.append(words), erase)

    def put(self, version: str = "1.0.0", name: str = "sample") -> Placed:
        source = signed_plugin(self.root / "sources" / version / name, make_key(), version=version)
        contents = read_directory(source)
        bundle = verify(contents, store_of(make_key()), NOW)
        with self.place.held(make=True):
            return self.place.put(bundle, contents)

    def remove(self, name: str) -> Placed:
        with self.place.held():
            return self.place.remove(find_plugin(self.directory, name))

    @property
    def names(self) -> list[str]:
        return sorted(os.listdir(self.directory))

    @property
    def versions(self) -> dict[str, str]:
        return {d.path.name: d.manifest.version for d in discover(self.directory) if d.manifest}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_put_replaced_and_removed(bench: Bench) -> None:
    placed = bench.put()
    assert placed == Placed(bench.directory / "sample.plugin")
    assert verify(read_bundle(placed.path), store_of(make_key()), NOW).manifest.version == "1.0.0"
    assert placed.path.stat().st_mode & 0o777 == 0o644
    inode = placed.path.stat().st_ino
    bench.put("1.1.0")
    assert bench.versions == {"sample.plugin": "1.1.0"}
    assert placed.path.stat().st_ino != inode  # another file, not written over
    bench.remove("Sample")
    assert bench.names == [LOCK_NAME]
    assert [words[:2] for words in bench.told] == [
        ("installed", "sample"),
        ("installed", "sample"),
        ("uninstalled", "sample"),
    ]
    assert bench.told[1][2].endswith("replaces sample.plugin")


def test_modes_do_not_depend_on_the_umask(bench: Bench) -> None:
    before = os.umask(0o077)
    try:
        placed = bench.put()
    finally:
        os.umask(before)
    assert placed.path.stat().st_mode & 0o777 == 0o644
    assert (bench.directory / LOCK_NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("old", ["sample", "Copied", "other.plugin", "sample.plugin"])
def test_what_was_copied_by_hand_is_replaced(bench: Bench, old: str) -> None:
    bench.directory.mkdir()
    if old == "other.plugin":
        bench.put("0.9.0")
        (bench.directory / "sample.plugin").rename(bench.directory / old)
    else:
        signed_plugin(bench.directory / old, make_key(), name="sample", version="0.9.0")
    bench.put()
    assert bench.versions == {"sample.plugin": "1.0.0"}
    assert bench.names == [LOCK_NAME, "sample.plugin"]
    assert bench.told[-1][2].endswith(f"replaces {old}")


def test_a_broken_archive_of_its_name_is_replaced(bench: Bench) -> None:
    bench.directory.mkdir()
    (bench.directory / "sample.plugin").write_bytes(b"half")
    bench.put()
    assert bench.versions == {"sample.plugin": "1.0.0"}


def test_another_plugin_of_its_file_name_is_not(bench: Bench) -> None:
    bench.put(name="other")
    (bench.directory / "other.plugin").rename(bench.directory / "sample.plugin")
    with pytest.raises(UsageError, match=r"'sample\.plugin' in .* is the plugin other"):
        bench.put()
    assert bench.names == [LOCK_NAME, "sample.plugin"]


def test_two_of_its_name(bench: Bench) -> None:
    bench.directory.mkdir()
    for name in ("a", "b"):
        write_plugin(bench.directory / name, name="sample")
    with pytest.raises(UsageError, match=r"'a' and 'b' in .* are both called sample") as caught:
        bench.put()
    assert "by its file's name" in caught.value.remedy
    with pytest.raises(UsageError, match="both called sample"):
        bench.remove("sample")
    bench.remove("b")
    bench.put()
    assert bench.versions == {"sample.plugin": "1.0.0"}


def _no_journal(*_: str) -> None:
    raise JournalError("It cannot be written.")


def test_what_cannot_be_written_down_is_not_done(bench: Bench) -> None:
    bench.put()
    bench.place._tell = _no_journal
    with pytest.raises(JournalError):
        bench.put("1.1.0")
    with pytest.raises(JournalError):
        bench.remove("sample")
    assert bench.versions == {"sample.plugin": "1.0.0"}
    assert bench.names == [LOCK_NAME, "sample.plugin"]


def _failing_rename(number: int) -> Callable[..., None]:
    """Return a rename of which the call of that number fails."""
    real, calls = os.rename, []

    def rename(*args: str, **keys: int) -> None:
        calls.append(args)
        if len(calls) == number:
            raise OSError(28, "No space left on device")
        real(*args, **keys)

    return rename


def test_a_full_disk_leaves_the_old_version(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put()
    monkeypatch.setattr(room.os, "rename", _failing_rename(1))
    with pytest.raises(ConfigError, match="cannot be changed: No space left on device"):
        bench.put("1.1.0")
    monkeypatch.undo()
    assert bench.versions == {"sample.plugin": "1.0.0"}
    assert bench.names == [LOCK_NAME, "sample.plugin"]


@pytest.mark.parametrize("number", [1, 2])
def test_a_full_disk_leaves_the_old_directory(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    signed_plugin(bench.directory / "sample", make_key(), version="0.9.0")
    monkeypatch.setattr(room.os, "rename", _failing_rename(number))
    with pytest.raises(ConfigError, match="No space left on device"):
        bench.put("1.1.0")
    monkeypatch.undo()
    assert bench.versions == {"sample": "0.9.0"}
    assert bench.names == [LOCK_NAME, "sample"]


def test_what_was_written_is_read_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put()
    monkeypatch.setattr(room, "archive_parts", lambda contents: [b"something else"])
    with pytest.raises((ConfigError, BundleError)):
        bench.put("1.1.0")
    monkeypatch.undo()
    assert bench.versions == {"sample.plugin": "1.0.0"}
    assert bench.names == [LOCK_NAME, "sample.plugin"]


def test_what_a_killed_process_left_is_cleared_away(bench: Bench) -> None:
    bench.put()
    (bench.directory / ".sandbox-host-staged-sample-0123456789abcdef").write_bytes(b"half")
    (bench.directory / ".sandbox-host-removed-0123456789abcdef").mkdir()
    (bench.directory / ".somebody-elses").touch()
    old = bench.directory / ".sandbox-host-replaced-sample-0123456789abcdef"
    write_plugin(old, name="sample", version="0.9.0")
    with bench.place.held():
        pass
    assert bench.names == [LOCK_NAME, ".somebody-elses", "sample.plugin"]


def test_a_replacement_that_was_killed_is_undone(bench: Bench) -> None:
    """Between the two steps that replacing a directory takes, neither version has its name."""
    old = bench.directory / ".sandbox-host-replaced-sample-0123456789abcdef"
    signed_plugin(old, make_key(), name="sample", version="0.9.0")
    assert bench.versions == {}
    with bench.place.held():
        pass
    assert bench.versions == {"sample": "0.9.0"}


@pytest.mark.parametrize("step", ["rename", "fsync", "unlink", "rmdir"])
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("old", ["sample", "sample.plugin"])
def test_killed_at_any_step_it_is_the_old_version_or_the_new(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, old: str, step: str, number: int
) -> None:
    if old == "sample":
        signed_plugin(bench.directory / old, make_key(), version="1.0.0")
    else:
        bench.put()
    pid = os.fork()
    if not pid:  # in a process of its own, which ends right before that step
        real, calls = getattr(os, step), []

        def dying(*args: Any, **keys: Any) -> Any:
            calls.append(args)
            return os._exit(0) if len(calls) == number else real(*args, **keys)

        try:
            monkeypatch.setattr(os, step, dying)
            bench.put("1.1.0")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    with bench.place.held():
        pass
    ((name, version),) = bench.versions.items()
    assert version in {"1.0.0", "1.1.0"}
    verify(read_bundle(bench.directory / name), store_of(make_key()), NOW)
    assert bench.names == [LOCK_NAME, name]
    bench.put("1.2.0")
    assert bench.versions == {"sample.plugin": "1.2.0"}


def test_names_are_looked_up_and_never_paths(bench: Bench, tmp_path: Path) -> None:
    bench.put()
    outside = write_plugin(tmp_path / "outside")
    for name in ("../outside", str(outside), "", ".", "..", LOCK_NAME, "sample.plugin/.."):
        with pytest.raises(PluginNotFoundError, match="There is no plugin"):
            bench.remove(name)
    assert outside.exists()
    (bench.directory / "linked").symlink_to(outside)
    bench.remove("linked")
    assert outside.exists()
    assert bench.names == [LOCK_NAME, "sample.plugin"]


def test_one_that_keeps_the_lock(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LOCK_SECONDS", 0.0)
    bench.directory.mkdir()
    with open(bench.directory / LOCK_NAME, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="is being changed by another process"):
            bench.put()
    bench.put()
    assert bench.versions == {"sample.plugin": "1.0.0"}


def test_a_lock_that_is_a_link_is_refused(bench: Bench, tmp_path: Path) -> None:
    bench.directory.mkdir()
    (bench.directory / LOCK_NAME).symlink_to(tmp_path / "other")
    with pytest.raises(ConfigError, match="cannot be changed"):
        bench.put()
    assert not (tmp_path / "other").exists()


def test_a_directory_that_is_not_there(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="cannot be read"), bench.place.held():
        pass
    deep = PluginPlace(bench.root / "a/b", lambda *_: None, erase)
    with pytest.raises(ConfigError, match="cannot be changed"), deep.held(make=True):
        pass
