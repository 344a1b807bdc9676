"""User ids for plugins: one each, kept by the data directory."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_host.backends.linux import uids
from sandbox_host.backends.linux.uids import UidLeases, choose, take_back
from sandbox_host.runtime.workspace import remove_tree

UIDS = (61_184, 3)
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Where the plugins' data directories are, three of them."""
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    return tmp_path


def owner(path: Path) -> int:
    return path.lstat().st_uid


# -- the choice ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("present", "taken", "chosen"),
    [
        pytest.param(0, (), 61_184, id="first of the range"),
        pytest.param(61_185, (), 61_185, id="what it has already"),
        pytest.param(61_187, (), 61_184, id="what it has is just outside"),
        pytest.param(61_183, (), 61_184, id="what it has is just below"),
        pytest.param(61_185, (61_185,), 61_184, id="what it has is another's too"),
        pytest.param(0, (61_184, 61_185), 61_186, id="the last that is left"),
        pytest.param(0, (0, 5), 61_184, id="others outside the range"),
    ],
)
def test_choice(present: int, taken: tuple[int, ...], chosen: int) -> None:
    assert choose(present, taken, UIDS) == chosen


def test_all_are_taken() -> None:
    with pytest.raises(OSError, match=r"all 3 user ids from 61184 on are taken.*plugin_uids"):
        choose(0, (61_184, 61_185, 61_186), UIDS)


# -- leases --------------------------------------------------------------------------------------


@root_only
def test_each_plugin_has_its_own_and_keeps_it(data: Path) -> None:
    leases = UidLeases(UIDS)
    taken = [leases.take(data / name) for name in ("one", "two", "three")]
    assert sorted(taken) == [61_184, 61_185, 61_186]
    assert [owner(data / name) for name in ("one", "two", "three")] == taken
    for uid in taken:
        leases.give_back(uid)
    # Another host, another order: the directories say whose they are.
    again = UidLeases(UIDS)
    assert [again.take(data / name) for name in ("three", "one", "two")] == [
        taken[2],
        taken[0],
        taken[1],
    ]


@root_only
def test_id_of_a_plugin_that_does_not_run_is_not_given_to_another(data: Path) -> None:
    leases = UidLeases(UIDS)
    first = leases.take(data / "one")
    leases.give_back(first)
    assert leases.take(data / "two") != first


@root_only
def test_next_process_of_a_plugin_has_the_same_while_the_last_is_put_away(data: Path) -> None:
    leases = UidLeases(UIDS)
    first = leases.take(data / "one")
    assert leases.take(data / "one") == first
    leases.give_back(first)
    # Still leased: nobody else gets it, even if the directory is gone.
    (data / "one").rmdir()
    assert leases.take(data / "two") != first
    leases.give_back(first)
    assert leases.take(data / "three") == first


@root_only
def test_more_plugins_than_ids(data: Path) -> None:
    leases = UidLeases((61_184, 2))
    leases.take(data / "one")
    leases.take(data / "two")
    with pytest.raises(OSError, match="plugin_uids"):
        leases.take(data / "three")
    assert owner(data / "three") == 0


@root_only
def test_tree_changes_its_owner_and_nothing_else_does(data: Path, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "file").write_text("")
    tree = data / "one"
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "deep" / "er" / "file").write_text("")
    (tree / "file").write_text("")
    (tree / "to-directory").symlink_to(outside)
    (tree / "to-file").symlink_to(outside / "file")
    (tree / "dangling").symlink_to("/no/such/thing")
    os.link(outside / "file", tree / "hard")
    os.mkfifo(tree / "fifo")
    uid = UidLeases(UIDS).take(tree)
    own = [tree, tree / "deep", tree / "deep" / "er", tree / "deep" / "er" / "file"]
    own += [tree / "file", tree / "to-directory", tree / "to-file", tree / "dangling"]
    assert {owner(path) for path in (*own, tree / "fifo")} == {uid}
    assert {path.lstat().st_gid for path in own} == {uid}
    # What has another name elsewhere may be another's file.
    assert owner(tree / "hard") == 0
    assert {owner(path) for path in (outside, outside / "file", data)} == {0}


@root_only
def test_what_is_its_own_already_is_not_looked_at(data: Path) -> None:
    tree = data / "one"
    os.chown(tree, 61_185, 61_185)
    (tree / "file").write_text("")
    assert UidLeases(UIDS).take(tree) == 61_185
    assert owner(tree / "file") == 0


def test_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        UidLeases(UIDS).take(tmp_path / "missing")


@root_only
def test_taken_from_many_threads_at_once(tmp_path: Path) -> None:
    names = [f"plugin-{number}" for number in range(20)]
    for name in names:
        (tmp_path / name).mkdir()
    leases, taken = UidLeases((61_184, 20)), []
    threads = [
        threading.Thread(target=lambda n=name: taken.append(leases.take(tmp_path / n)))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(61_184, 61_204))


# -- a tree that is large, deep, or half given -----------------------------------------------------


def ids(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


@root_only
def test_3000_levels(data: Path) -> None:
    here = os.open(data / "one", os.O_RDONLY)
    for _ in range(3_000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    try:
        uid = UidLeases(UIDS).take(data / "one")
        assert os.fstat(here).st_uid == uid
    finally:
        os.close(here)
        remove_tree(data / "one")


@root_only
def test_files_with_another_name_are_told(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    (data / "outside").touch()
    for number in range(3):
        os.link(data / "outside", data / "one" / str(number))
    UidLeases(UIDS).take(data / "one")
    assert "3 files have another name" in caplog.text
    assert str(data / "one") in caplog.text


class HalfwayError(Exception):
    """The host was killed."""


@contextlib.contextmanager
def killed() -> Iterator[None]:
    """What is done here is done by a host that does not survive the first entry of a tree."""

    def walk(top: int, visit: object, max_entries: int) -> None:
        raise HalfwayError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(uids, "walk", walk)
        with pytest.raises(HalfwayError):
            yield


@root_only
def test_half_given_tree_holds_its_id_and_is_given_again(data: Path) -> None:
    (data / "one" / "file").touch()
    leases = UidLeases(UIDS)
    with killed():
        leases.take(data / "one")
    assert ids(data / "one") == (0, 61_184)
    assert leases.take(data / "two") == 61_185
    assert UidLeases(UIDS).take(data / "one") == 61_184
    assert ids(data / "one") == ids(data / "one" / "file") == (61_184, 61_184)


@root_only
def test_half_given_to_another_range_is_given_again(data: Path) -> None:
    (data / "one" / "file").touch()
    os.chown(data / "one", 61_184, 61_184)
    with killed():
        UidLeases((90_000, 3)).take(data / "one")
    assert UidLeases((90_000, 3)).take(data / "one") == 90_000
    assert ids(data / "one") == ids(data / "one" / "file") == (90_000, 90_000)


@root_only
@pytest.mark.parametrize("then", ["taken back", "given"])
def test_half_taken_back_tree_is_whole_afterwards(data: Path, then: str) -> None:
    (data / "one" / "file").touch()
    os.chown(data / "one", 61_185, 61_185)
    with killed():
        take_back(data / "one")
    # It still holds its id.
    assert UidLeases(UIDS).take(data / "two") == 61_184
    if then == "given":
        assert UidLeases(UIDS).take(data / "one") == 61_185
        assert ids(data / "one") == ids(data / "one" / "file") == (61_185, 61_185)
    else:
        take_back(data / "one")
        assert ids(data / "one") == ids(data / "one" / "file") == (0, 0)


@root_only
def test_begun_both_ways_and_ended_in_neither(data: Path) -> None:
    (data / "one" / "file").touch()
    os.chown(data / "one", 61_185, 61_185)
    with killed():
        take_back(data / "one")
    with killed():
        UidLeases(UIDS).take(data / "one")
    assert UidLeases(UIDS).take(data / "one") == 61_185
    assert ids(data / "one" / "file") == (61_185, 61_185)


@root_only
def test_half_given_tree_can_be_taken_back(data: Path) -> None:
    (data / "one" / "file").touch()
    with killed():
        UidLeases(UIDS).take(data / "one")
    os.chown(data / "one" / "file", 61_184, 61_184)
    take_back(data / "one")
    assert ids(data / "one") == ids(data / "one" / "file") == (0, 0)


@root_only
def test_taken_back_and_given_again(data: Path) -> None:
    (data / "one" / "file").touch()
    leases = UidLeases(UIDS)
    uid = leases.take(data / "one")
    leases.give_back(uid)
    take_back(data / "one")
    assert ids(data / "one") == ids(data / "one" / "file") == (0, 0)
    leases.take(data / "one")
    assert ids(data / "one") == ids(data / "one" / "file") == (uid, uid)


@root_only
def test_other_plugins_start_while_a_large_tree_is_given(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = UidLeases(UIDS)
    started, done = threading.Event(), threading.Event()
    walk = uids.walk

    def slow(*arguments: Any) -> Any:
        if not started.is_set():
            started.set()
            assert done.wait(30)
        return walk(*arguments)

    monkeypatch.setattr(uids, "walk", slow)
    thread = threading.Thread(target=leases.take, args=(data / "one",))
    thread.start()
    assert started.wait(30)
    # Of this host and of another one with the same directories.
    assert leases.take(data / "two") == 61_185
    assert UidLeases(UIDS).take(data / "three") == 61_186
    done.set()
    thread.join()
    assert ids(data / "one") == (61_184, 61_184)


@root_only
def test_two_hosts_at_once_never_choose_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        (tmp_path / str(number)).mkdir()
    hosts = [UidLeases((61_184, 12)) for _ in range(12)]
    real = uids.choose

    def late(*arguments: Any) -> int:
        chosen = real(*arguments)
        threading.Event().wait(0.01)  # between the choice and the mark of it
        return chosen

    monkeypatch.setattr(uids, "choose", late)
    threads = [
        threading.Thread(target=host.take, args=(tmp_path / str(number),))
        for number, host in enumerate(hosts)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    owners = sorted(owner(path) for path in tmp_path.iterdir())
    assert owners == list(range(61_184, 61_196))


@root_only
def test_exhausted_range_names_what_can_be_removed(data: Path) -> None:
    leases = UidLeases((61_184, 2))
    leases.give_back(leases.take(data / "one"))
    leases.take(data / "two")
    # What runs is not offered, whatever its age.
    os.utime(data / "two", (1, 1))
    with pytest.raises(OSError, match=rf"plugin_uids.*remove.*{data / 'one'}$"):
        leases.take(data / "three")


@root_only
def test_tree_with_too_many_entries_is_not_given_by_halves(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        (data / "one" / str(number)).touch()
    leases = UidLeases(UIDS)
    monkeypatch.setattr(uids, "_MAX_ENTRIES", 4)
    with pytest.raises(OSError, match=r"more than 4 files.*chown -R -h 61184:61184"):
        leases.take(data / "one")
    monkeypatch.setattr(uids, "_MAX_ENTRIES", 5)
    assert leases.take(data / "one") == 61_184
    assert owner(data / "one" / "4") == 61_184


@root_only
def test_lease_ends_where_the_tree_cannot_be_given(data: Path) -> None:
    leases = UidLeases(UIDS)
    with killed():
        leases.take(data / "one")
    (data / "one").rmdir()
    assert leases.take(data / "two") == 61_184
