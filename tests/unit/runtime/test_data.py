"""Data directories listed, measured and removed, whatever is in them and whoever has them."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from sandbox_host.errors import (
    ConfigError,
    DataInUseError,
    JournalError,
    PluginNotFoundError,
    UsageError,
)
from sandbox_host.model import Limits
from sandbox_host.runtime import data as module
from sandbox_host.runtime import data_locks
from sandbox_host.runtime.data import DataDirectories
from sandbox_host.runtime.data_locks import DataLocks
from sandbox_host.runtime.workspace import remove_tree
from tests.support.users import USERS, Users, users


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_locks, "PATIENCE_SECONDS", 0.1)


@pytest.fixture(scope="module")
def by() -> Iterator[Users]:
    with users() as running:
        yield running


def entries(state: Path) -> list[str]:
    return sorted(os.listdir(state / "data"))


# -- what is in them -----------------------------------------------------------------------------


@pytest.mark.parametrize("user", USERS)
def test_whatever_a_plugin_left(by: Users, user: str) -> None:
    told = json.loads(by.run(user, "tests.support.hostile_tree"))
    assert told["fault"] == ""
    assert told["complete"]
    assert told["files"] == told["names"]
    assert told["bytes"] < 100_000_000
    assert told["left"] == []
    assert told["removed"] == told["names"] + 1
    assert told["data"] == []
    assert told["precious"] == "precious"


def test_sparse_files_are_small_and_a_file_of_two_names_counts_once(
    state: Path, sample: Path
) -> None:
    with (sample / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    (sample / "full").write_bytes(os.urandom(1 << 20))
    one = DataDirectories(state).measure_one("sample")
    assert one.files == 2
    assert 1 << 20 <= one.bytes < 2 << 20
    os.link(sample / "full", sample / "again")
    linked = DataDirectories(state).measure_one("sample")
    assert linked.files == 3
    assert linked.bytes == one.bytes


def test_file_that_is_held_open_by_somebody(state: Path, sample: Path) -> None:
    with (sample / "open").open("wb") as file:
        file.write(b"x" * 5_000)
        file.flush()
        assert DataDirectories(state).remove("sample").left == ()
        file.write(b"y")
    assert entries(state) == []


def test_many_names(state: Path, sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2_000):
        os.close(os.open(sample / f"{number}", os.O_CREAT | os.O_WRONLY))
    assert DataDirectories(state).measure_one("sample").files == 2_000
    monkeypatch.setattr(module, "MAX_MEASURED_FILES", 1_000)
    bounded = DataDirectories(state).measure_one("sample")
    assert (bounded.files, bounded.complete) == (1_001, False)
    assert DataDirectories(state).remove("sample").removed == 2_001


def test_measured_while_another_moves_things_about(
    state: Path, sample: Path, outside: Path
) -> None:
    for number in range(50):
        (sample / f"{number}" / "x").mkdir(parents=True)
    stop = threading.Event()

    def move() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            source = sample / f"{number % 50}"
            try:
                (source / "x").rename(sample / f"{(number + 1) % 50}" / "x")
                source.rmdir()
                source.symlink_to(outside)
            except OSError:
                continue

    mover = threading.Thread(target=move)
    mover.start()
    try:
        looks = [DataDirectories(state).measure_one("sample") for _ in range(100)]
    finally:
        stop.set()
        mover.join()
    assert {one.fault for one in looks} == {""}
    assert max(one.files for one in looks) <= 200
    assert (outside / "precious").read_text() == "precious"


# -- which there are -----------------------------------------------------------------------------


def test_no_state_directory_and_none_is_made(tmp_path: Path) -> None:
    directories = DataDirectories(tmp_path / "state")
    assert directories.measure() == directories.foreign() == directories.sweep() == ()
    directories.start_sweeping()
    directories.close()
    with pytest.raises(PluginNotFoundError):
        directories.remove("sample")
    assert not (tmp_path / "state").exists()


def test_only_what_has_a_plugins_name(state: Path, sample: Path) -> None:
    odd = ["Sample", ".hidden", "new\nline", os.fsdecode(b"\xff"), "1st", "n" * 200, "é"]
    for name in (*odd, "b" * 128, ".removed-0011"):
        (state / "data" / name).mkdir()
    directories = DataDirectories(state)
    assert [one.identity for one in directories.measure()] == ["b" * 128, "sample"]
    foreign = directories.foreign()
    assert len(foreign) == len(odd)
    assert {"new\\nline", "\\udcff", ".hidden", "Sample"} <= set(foreign)


def test_what_is_known_of_its_last_load(state: Path, sample: Path) -> None:
    directories = DataDirectories(state)
    never = directories.measure_one("sample")
    assert (never.loaded, never.host, never.limit_bytes, never.last_used) == (False, *[None] * 3)
    locks = DataLocks(state / "locks")
    locks.take("sample", Limits(data_bytes=1_000, data_files=10))
    used = directories.measure_one("Sample")
    assert (used.loaded, used.host) == (True, os.getpid())
    assert (used.limit_bytes, used.limit_files) == (1_000, 10)
    locks.give_back("sample")
    after = directories.measure_one("sample")
    assert (after.loaded, after.host, after.limit_bytes) == (False, None, 1_000)
    assert after.last_used is not None


@pytest.mark.parametrize("how", ["open to others", "a link", "a file", "another's"])
@pytest.mark.parametrize("which", ["", "data"])
def test_state_directory_that_is_not_the_hosts_own(
    state: Path, outside: Path, which: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = state / which
    if how == "open to others":
        place.chmod(0o777)
    elif how == "another's":
        monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    else:
        remove_tree(place)
        place.touch() if how == "a file" else place.symlink_to(outside)
    directories = DataDirectories(state)
    for use in (directories.measure, directories.sweep, lambda: directories.remove("sample")):
        with pytest.raises(ConfigError, match="state directory"):
            use()
    assert (outside / "precious").exists()


# -- which are removed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "/", "../data/sample", "/etc", "sample/", "./sample", "sample/.."),
        *("sample\n", "sample\x00", "sämple", "sam ple", "-rf", "_", "1st", ".removed-0011"),
        *("n" * 129, "\udcff", "*"),
    ],
    ids=ascii,
)
def test_no_name_leads_elsewhere(state: Path, sample: Path, name: str) -> None:
    (state / "data" / ".removed-0011").mkdir()
    before = entries(state)
    for use in (DataDirectories(state).remove, DataDirectories(state).measure_one):
        with pytest.raises(UsageError, match="is no plugin's name") as caught:
            use(name)
        assert str(caught.value).isprintable()
    assert entries(state) == before


def test_any_spelling_of_an_identity(state: Path) -> None:
    (state / "data" / "my_plugin").mkdir()
    (state / "data" / "my_plugins").mkdir()
    assert DataDirectories(state).remove("MyPlugin").identity == "my_plugin"
    assert entries(state) == ["my_plugins"]


@pytest.mark.parametrize("kind", ["file", "link", "fifo", "dangling"])
def test_what_is_no_directory_is_neither_followed_nor_removed(
    state: Path, outside: Path, kind: str
) -> None:
    path = state / "data" / "sample"
    if kind == "file":
        path.touch()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(outside if kind == "link" else "/no/such/thing")
    (found,) = DataDirectories(state).measure()
    assert (found.bytes, found.files, found.complete) == (0, 0, False)
    assert "link" in found.fault if kind in {"link", "dangling"} else "directory" in found.fault
    with pytest.raises(ConfigError, match=f"data directory {path} cannot be removed"):
        DataDirectories(state).remove("sample")
    assert entries(state) == ["sample"]
    assert (outside / "precious").read_text() == "precious"


def test_refused_while_somebody_has_it(state: Path, sample: Path) -> None:
    (sample / "file").touch()
    locks = DataLocks(state / "locks")
    locks.take("sample")
    for directories in (DataDirectories(state), DataDirectories(state, locks)):
        with pytest.raises(DataInUseError, match="is in use"):
            directories.remove("sample")
    assert (sample / "file").exists()
    locks.give_back("sample")
    assert DataDirectories(state).remove("sample").removed == 2
    # And whoever comes next is not kept from the name.
    locks.take("sample")
    locks.give_back("sample")


def test_what_the_plugin_locks_keeps_nobody(state: Path, sample: Path) -> None:
    """All that it can lock is what it can open: its directory, and what is in there."""
    (sample / "file").touch()
    with (sample / "file").open() as file:
        top = os.open(sample, os.O_RDONLY)
        for descriptor in (top, file.fileno()):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            locks = DataLocks(state / "locks")
            assert not DataDirectories(state).measure_one("sample").loaded
            locks.take("sample")
            locks.give_back("sample")
            assert DataDirectories(state).remove("sample").left == ()
        finally:
            os.close(top)
    assert entries(state) == []


def test_it_is_written_down_first(state: Path, sample: Path) -> None:
    seen = []

    def tell(event: str, identity: str, detail: str) -> None:
        seen.append((event, identity, sample.exists()))

    DataDirectories(state, tell=tell).remove("sample")
    assert seen == [("data_removal", "sample", True)]


def test_nothing_is_removed_that_cannot_be_written_down(state: Path, sample: Path) -> None:
    def fail(*_: str) -> NoReturn:
        raise JournalError("The disk is full.")

    with pytest.raises(JournalError):
        DataDirectories(state, tell=fail).remove("sample")
    assert entries(state) == ["sample"]
    assert DataDirectories(state).remove("sample").removed == 1


def test_what_cannot_be_renamed_is_left_as_it_is(
    state: Path, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a directory that something is mounted on."""

    def busy(*_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    (sample / "file").touch()
    monkeypatch.setattr(os, "rename", busy)
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError, match="Device or resource busy"):
        DataDirectories(state).remove("sample")
    assert (sample / "file").exists()
    assert not DataDirectories(state).measure_one("sample").loaded
    assert sorted(os.listdir("/proc/self/fd")) == before
