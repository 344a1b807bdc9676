"""The history on disk: one step from old to new, one writer at a time, and never begun afresh."""

from __future__ import annotations

import fcntl
import os
import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from sandbox_host.admission.changes import Asks
from sandbox_host.admission.history import History, Record, Release
from sandbox_host.bundle.trust import StoreMark
from sandbox_host.errors import HistoryError
from sandbox_host.runtime import history_file, history_store
from sandbox_host.runtime.history_store import HistoryStore

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def record(version="1.0"):
    return Record(Release(version, "0" * 64), Asks())


@pytest.fixture
def store(tmp_path):
    state = tmp_path / "state of a host"
    state.mkdir(mode=0o700)
    return HistoryStore(state)


def put(store, name="weather", version="1.0"):
    with store.change() as draft:
        draft.history = draft.history.with_plugin(name, record(version))


def test_nothing_yet(store):
    assert store.read() is None
    with store.change() as draft:
        assert draft.before is None
    assert store.read() == History()  # written, so that it can be missed


def test_what_was_changed_is_kept(store):
    put(store)
    assert store.read() == History({"weather": record()})
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert sorted(one.name for one in store.path.parent.iterdir()) == [
        "history.jsonl",
        "history.lock",
    ]


def test_nothing_is_written_where_nothing_changed(store):
    put(store)
    before = store.path.stat().st_ino
    put(store)
    assert store.path.stat().st_ino == before


def test_nothing_is_written_where_the_change_fails(store):
    put(store)
    before = store.path.read_bytes()

    def fail():
        with store.change() as draft:
            draft.history = History()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.path.read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data.replace(b"1.0", b"0.1"),
        lambda data: b"\0" * len(data),
    ],
    ids=["empty", "cut", "edited", "zeros"],
)
def test_a_broken_one_is_refused_with_the_next_step(store, damage):
    put(store)
    broken = damage(store.path.read_bytes())
    store.path.write_bytes(broken)
    for act in (store.read, lambda: put(store)):
        with pytest.raises(HistoryError, match="is not as the host wrote it") as caught:
            act()
        assert "sandbox-host history new" in caught.value.remedy
    assert store.path.read_bytes() == broken


@pytest.mark.parametrize("make", ["link", "fifo", "directory", "open to all"])
def test_what_is_no_file_of_ours_is_refused(store, make, tmp_path):
    put(store)
    data = store.path.read_bytes()
    if make == "open to all":
        store.path.chmod(0o666)
    else:
        store.path.unlink()
        (tmp_path / "elsewhere").write_bytes(data)
        {
            "link": lambda: store.path.symlink_to(tmp_path / "elsewhere"),
            "fifo": lambda: os.mkfifo(store.path),
            "directory": store.path.mkdir,
        }[make]()
    with pytest.raises(HistoryError):
        store.read()


def test_one_that_is_too_large_is_not_read(store, monkeypatch):
    put(store)
    monkeypatch.setattr(history_file, "MAX_FILE_BYTES", 10)
    with pytest.raises(HistoryError, match="at most 10 bytes"):
        store.read()
    with pytest.raises(HistoryError, match="at most 10 bytes"):
        put(store, "other")


def test_two_writers_lose_nothing(store):
    def work(name):
        for number in range(10):
            put(store, f"{name}{number}")

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.read().plugins) == 20


def test_a_lock_that_is_kept_is_told(store, monkeypatch):
    put(store)
    monkeypatch.setattr(history_store, "LOCK_SECONDS", 0.0)
    with (store.path.parent / "history.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(HistoryError, match="is locked by another process"):
            put(store)
    put(store)


def test_a_full_disk_leaves_the_old_one(store, monkeypatch):
    put(store)
    before = store.path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(HistoryError, match="cannot be written: No space left"):
        put(store, "other")
    monkeypatch.undo()
    assert store.path.read_bytes() == before
    assert len(list(store.path.parent.iterdir())) == 2


@pytest.mark.parametrize(
    "paths",
    [
        [f"/store {number}" for number in range(history_file.MAX_STORES + 1)],
        ["/store \udc80"],
    ],
    ids=["one store too many", "a path that is no text"],
)
def test_what_could_not_be_read_again_is_not_written(store, paths):
    put(store)
    stores = {path: StoreMark(1, "0" * 64) for path in paths}
    with pytest.raises(HistoryError, match="cannot take more"), store.change() as draft:
        draft.history = replace(draft.history, stores=stores)
    assert store.read() == History({"weather": record()})


def test_put_aside(store):
    put(store)
    broken = store.path.read_bytes()[:-5]
    store.path.write_bytes(broken)
    aside = store.put_aside(NOW)
    assert aside.name.startswith("history.jsonl.aside-20260131T120000Z-")
    assert aside.read_bytes() == broken
    assert store.read() == History()
    store.path.unlink()
    assert store.put_aside(NOW) is None
    assert store.read() == History()


def test_a_state_directory_that_is_gone(tmp_path):
    store = HistoryStore(tmp_path / "none")
    assert store.read() is None
    with pytest.raises(HistoryError, match="cannot be locked"):
        put(store)


def test_only_what_changed_is_read_and_written_anew(store, monkeypatch):
    """Else the price of a load would grow with the number of plugins that were ever loaded."""
    monkeypatch.setattr(history_file, "_known", {})
    monkeypatch.setattr(history_file, "_written", {})
    for number in range(20):
        put(store, f"plugin_{number}")
    read, written = [], []
    parse_plugin, plugin = history_file._parse_plugin, history_file._plugin
    monkeypatch.setattr(
        history_file,
        "_parse_plugin",
        lambda line, path: read.append(path) or parse_plugin(line, path),
    )
    monkeypatch.setattr(
        history_file, "_plugin", lambda name, one: written.append(name) or plugin(name, one)
    )
    put(store, "plugin_7", "2.0")
    assert len(read) == 1
    assert "plugin_7" in written
    # What was read anew the last time is written anew once: as another record than was written.
    assert set(written) <= {"plugin_7", "plugin_19"}
    found = store.read()
    assert len(found.plugins) == 20
    assert found.plugins["plugin_7"].highest.version == "2.0"


def test_what_is_remembered_of_lines_is_bounded(store, monkeypatch):
    monkeypatch.setattr(history_file, "_known", {})
    monkeypatch.setattr(history_file, "_written", {})
    monkeypatch.setattr(history_file, "MAX_PLUGINS", 3)
    for version in ("1.0", "2.0", "3.0", "4.0", "5.0"):
        put(store, "a", version)
        put(store, "b", version)
    assert len(history_file._known) <= 3
    assert len(history_file._written) <= 3
    assert {one.highest.version for one in store.read().plugins.values()} == {"5.0"}
