"""A plugin's store on the host's side: what it keeps, how much, and through what."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugin_sdk.wire.services import MAX_KEYS
from sandbox_host.model import MIB
from sandbox_host.runtime import store as module
from sandbox_host.runtime.store import (
    PluginStore,
    StoreFaultError,
    StoreQuotaError,
    remove_store,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state of: a host" / "stores" / "sample"


@pytest.fixture
def store(directory: Path) -> Iterator[PluginStore]:
    store = PluginStore(directory, 1_000)
    yield store
    store.close()


def test_nothing_is_made_before_it_is_needed(store: PluginStore, directory: Path) -> None:
    assert not directory.exists()
    assert store.get("a") is None
    assert directory.exists()


def test_what_is_put_is_there_until_it_is_removed(store: PluginStore) -> None:
    store.put("a", b"1")
    store.put("b", b"\x00\xff")
    store.put("a", b"three")
    assert (store.get("a"), store.get("b"), store.get("c")) == (b"three", b"\x00\xff", None)
    assert store.usage() == (len("a") + len("three") + len("b") + 2, 2)
    assert (store.delete("b"), store.delete("b")) == (True, False)
    assert (store.clear(), store.clear()) == (1, 0)
    assert store.usage() == (0, 0)


def test_another_object_finds_it(store: PluginStore, directory: Path) -> None:
    store.put("a", b"1")
    store.close()
    again = PluginStore(directory, 1_000)
    assert (again.get("a"), again.usage()) == (b"1", (2, 1))
    again.close()
    with pytest.raises(StoreFaultError, match="has ended"):
        store.get("a")


def test_it_is_the_hosts_alone(store: PluginStore, directory: Path) -> None:
    store.put("a", b"1")
    files = list(directory.iterdir())
    assert {file.name for file in files} >= {"store.sqlite3", "store.sqlite3-wal"}
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_the_quota_counts_keys_and_values(store: PluginStore) -> None:
    store.put("k" * 100, b"v" * 800)
    with pytest.raises(StoreQuotaError, match=r"would hold 1001 bytes of 1000 B; delete"):
        store.put("l", b"v" * 100)
    store.put("l", b"v" * 99)
    with pytest.raises(StoreQuotaError):
        store.put("l", b"v" * 100)
    assert store.get("l") == b"v" * 99
    store.delete("k" * 100)
    store.put("l", b"v" * 999)
    assert store.usage() == (1_000, 1)


def test_under_a_lower_limit_it_can_only_shrink(store: PluginStore, directory: Path) -> None:
    store.put("a", b"v" * 900)
    store.close()
    smaller = PluginStore(directory, 500)
    with pytest.raises(StoreQuotaError):
        smaller.put("a", b"v" * 900)
    with pytest.raises(StoreQuotaError):
        smaller.put("b", b"")
    smaller.put("a", b"v" * 899)
    smaller.put("a", b"v" * 10)
    smaller.put("b", b"")
    smaller.close()


def test_keys_are_bounded_in_number(store: PluginStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_KEYS == module.MAX_KEYS
    monkeypatch.setattr(module, "MAX_KEYS", 2)
    store.put("a", b"")
    store.put("b", b"")
    with pytest.raises(StoreQuotaError, match="more than 2 keys"):
        store.put("c", b"")
    store.put("a", b"1")


def test_keys_come_in_pages_by_prefix(store: PluginStore) -> None:
    for key in ("b", "a", "ab", "ab\U0010ffff", "ac", "a\x00b", "ä", "%", "_"):
        store.put(key, b"")
    assert store.keys("", "", 100) == [
        "%",
        "_",
        "a",
        "a\x00b",
        "ab",
        "ab\U0010ffff",
        "ac",
        "b",
        "ä",
    ]
    assert store.keys("ab", "", 100) == ["ab", "ab\U0010ffff"]
    assert store.keys("a", "ab", 1) == ["ab\U0010ffff"]
    assert store.keys("%", "", 100) == ["%"]
    assert store.keys("z", "", 100) == []


KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS, st.binary(max_size=40)),
    st.tuples(st.just("delete"), KEYS),
    st.just(("clear",)),
    st.tuples(st.just("keys"), KEYS | st.just(""), KEYS | st.just("")),
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(STEPS, max_size=12))
def test_it_does_what_a_dict_does(steps: list[tuple[str, ...]], directory: Path) -> None:
    store, model = PluginStore(directory, 120), dict[str, bytes]()
    store.clear()
    for step in steps:
        match step:
            case ("put", key, bytes(value)):
                after = {**model, key: value}
                try:
                    store.put(key, value)
                    model = after
                except StoreQuotaError:
                    assert _size(after) > 120
            case ("delete", key):
                assert store.delete(key) is (model.pop(key, None) is not None)
            case ("clear",):
                assert store.clear() == len(model)
                model = {}
            case ("keys", prefix, behind):
                found = sorted(k for k in model if k.startswith(prefix) and k > behind)
                assert store.keys(prefix, behind, 100) == found
        assert store.usage() == (_size(model), len(model))
    store.close()


def _size(model: dict[str, bytes]) -> int:
    return sum(len(key.encode()) + len(value) for key, value in model.items())


KILLED = """
import os, sys
from pathlib import Path
from sandbox_host.runtime.store import PluginStore
store = PluginStore(Path(sys.argv[1]), 1000)
store.put("a", b"1")
os.kill(os.getpid(), 9)
"""


def test_it_survives_the_end_of_the_host(directory: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, directory], check=False)
    assert done.returncode == -signal.SIGKILL
    store = PluginStore(directory, 1_000)
    assert store.get("a") == b"1"
    store.close()


# -- what is wrong with it ------------------------------------------------------------------------


def test_a_full_disk_is_told_and_mends_itself(directory: Path) -> None:
    store = PluginStore(directory, MIB)
    store.put("a", b"1")
    assert store._database is not None
    store._database.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StoreFaultError, match="no room left on the host's disk"):
        store.put("b", b"v" * 100_000)
    store.put("b", b"v" * 100_000)
    assert store.usage() == (100_003, 2)
    store.close()


def test_the_file_cannot_grow_far_beyond_its_quota(directory: Path) -> None:
    store = PluginStore(directory, MIB)
    assert store.usage() == (0, 0)
    assert store._database is not None
    (pages,) = store._database.execute("PRAGMA max_page_count").fetchone()
    assert pages * 4_096 <= 34 * MIB
    store.close()


def test_a_damaged_file_is_told_and_kept(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True)
    directory.parent.chmod(0o700)
    (directory / "store.sqlite3").write_bytes(b"no database" * 1_000)
    store = PluginStore(directory, 1_000)
    with pytest.raises(StoreFaultError, match="not a database"):
        store.get("a")
    assert (directory / "store.sqlite3").read_bytes().startswith(b"no database")


@pytest.mark.parametrize("what", ["link", "fifo", "directory"])
def test_nothing_else_is_taken_for_it(directory: Path, tmp_path: Path, what: str) -> None:
    directory.mkdir(mode=0o700, parents=True)
    directory.parent.chmod(0o700)
    path, outside = directory / "store.sqlite3", tmp_path / "precious"
    sqlite3.connect(outside).close()
    if what == "link":
        path.symlink_to(outside)
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    store = PluginStore(directory, 1_000)
    with pytest.raises(StoreFaultError):
        store.put("a", b"1")
    assert outside.stat().st_size == 0


def test_removing(store: PluginStore, directory: Path) -> None:
    state_dir = directory.parent.parent
    remove_store(state_dir, "sample")
    store.put("a", b"1")
    store.close()
    remove_store(state_dir, "sample")
    assert not directory.exists()
    assert directory.parent.exists()
