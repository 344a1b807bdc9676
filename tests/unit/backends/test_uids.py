"""User ids for plugins: one each, kept by the data directory."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from sandbox_host.backends.linux.uids import UidLeases, choose

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
