"""The host's directories, and removing whatever a plugin left in one of them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from sandbox_host.errors import ConfigError
from sandbox_host.runtime.workspace import Workspace, remove_tree


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that links lead to, which must not be touched."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "precious.txt").write_text("precious")
    (directory / "precious.txt").chmod(0o640)
    return directory


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    directory = tmp_path / "tree"
    directory.mkdir()
    return directory


def make_deep(directory: Path, levels: int) -> None:
    """Make directories deeper than any path can name."""
    here = os.open(directory, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        after = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = after
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=here))
    os.close(here)


def test_remove_a_tree_of_1500_levels(tree: Path) -> None:
    make_deep(tree, 1_500)
    limit = os.sysconf("SC_OPEN_MAX")
    assert limit > 0
    before = len(os.listdir("/proc/self/fd"))
    remove_tree(tree)
    assert not tree.exists()
    assert len(os.listdir("/proc/self/fd")) == before


def test_remove_follows_no_link(tree: Path, outside: Path) -> None:
    (tree / "directory").symlink_to(outside)
    (tree / "file").symlink_to(outside / "precious.txt")
    (tree / "dangling").symlink_to("nowhere")
    (tree / "sub").mkdir()
    (tree / "sub" / "up").symlink_to("..")
    (tree / "sub" / "out").symlink_to(outside)
    os.link(outside / "precious.txt", tree / "hard")
    remove_tree(tree)
    assert not tree.exists()
    assert (outside / "precious.txt").read_text() == "precious"
    assert (outside / "precious.txt").stat().st_mode & 0o777 == 0o640


def test_link_in_place_of_the_tree_is_not_followed(tmp_path: Path, outside: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(outside)
    remove_tree(link)
    assert (outside / "precious.txt").exists()
    remove_tree(tmp_path / "missing")


def test_remove_whatever_mode_and_kind(tree: Path) -> None:
    for mode in (0o000, 0o100, 0o400, 0o500):
        directory = tree / f"{mode:o}"
        (directory / "inner" / "deep").mkdir(parents=True)
        (directory / "inner" / "file").write_text("x")
        (directory / "inner" / "file").chmod(0)
        (directory / "inner" / "deep").chmod(mode)
        (directory / "inner").chmod(mode)
        directory.chmod(mode)
    os.mkfifo(tree / "fifo")
    (tree / os.fsdecode(b"\xff\xfe \n")).write_text("odd bytes")
    (tree / os.fsdecode(b"dir\xff")).mkdir()
    (tree / ("n" * 255)).mkdir()
    with (tree / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    tree.chmod(0o000)
    remove_tree(tree)
    assert not tree.exists()


def test_remove_a_wide_tree(tree: Path) -> None:
    for number in range(300):
        (tree / f"d{number}").mkdir()
        (tree / f"d{number}" / "f").touch()
    remove_tree(tree)
    assert not tree.exists()


def test_directories_are_private_and_removed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "state")
    for path in (workspace.state_dir, workspace.run_dir, workspace.data_dir("sample")):
        assert path.stat().st_mode & 0o777 == 0o700
    assert workspace.scratch_dir("sample") != workspace.scratch_dir("sample")
    assert not list(workspace.sdk_dir.rglob("testing.py"))
    assert {path.name for path in workspace.sdk_dir.iterdir()} == {"plugin_sdk", "msgpack"}
    run = workspace.run_dir
    workspace.close()
    assert not run.exists()
    assert workspace.data_dir("sample").exists()


def test_what_a_dead_host_left_is_removed_and_what_a_living_one_has_is_kept(
    tmp_path: Path,
) -> None:
    living = Workspace(tmp_path / "state")
    dead = tmp_path / "state" / "run" / "999999-dead"
    (dead / "bundles" / "x").mkdir(parents=True)
    (dead / "lock").touch()
    unknown = tmp_path / "state" / "run" / "no-lock"
    unknown.mkdir()
    following = Workspace(tmp_path / "state")
    assert not dead.exists()
    assert unknown.exists()
    assert living.run_dir.exists()
    following.close()
    living.close()


def test_lock_that_is_a_link_is_not_opened(tmp_path: Path, outside: Path) -> None:
    Workspace(tmp_path / "state").close()
    trap = tmp_path / "state" / "run" / "trap"
    trap.mkdir()
    (trap / "lock").symlink_to(outside / "precious.txt")
    with (outside / "precious.txt").open("rb") as file:
        Workspace(tmp_path / "state").close()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert trap.exists()


@pytest.mark.parametrize("where", ["state", "state/data", "state/run"])
def test_directory_that_others_may_write_is_refused(tmp_path: Path, where: str) -> None:
    Workspace(tmp_path / "state").close()
    (tmp_path / where).chmod(0o777)
    with pytest.raises(ConfigError, match="chmod go-w"):
        Workspace(tmp_path / "state")


def test_file_or_link_in_place_of_a_directory_is_refused(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file"):
        Workspace(tmp_path / "file")
    Workspace(tmp_path / "state").close()
    (tmp_path / "state" / "data").rmdir()
    (tmp_path / "state" / "data").symlink_to(outside)
    with pytest.raises(ConfigError, match="data"):
        Workspace(tmp_path / "state")
