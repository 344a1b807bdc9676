"""The host's directories, and removing whatever a plugin left in one of them."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_host.errors import ConfigError
from sandbox_host.runtime import workspace as module
from sandbox_host.runtime.workspace import Workspace, remove_tree
from tests.support.trees import make_deep

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")


@pytest.fixture(autouse=True)
def _without_sdk() -> None:
    """In here, it is copied as always."""


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


# -- a plugin's own directory --------------------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path / "state", (61_184, 4_000))
    yield workspace
    workspace.close()


@pytest.mark.parametrize("mode", [0o777, 0o000, 0o500, 0o7777, 0o701])
def test_mode_that_the_plugin_gave_its_directory_is_undone(made: Workspace, mode: int) -> None:
    path = made.data_dir("sample")
    (path / "file").write_text("kept")
    path.chmod(mode)
    assert made.data_dir("sample") == path
    assert path.stat().st_mode & 0o7777 == 0o700
    assert (path / "file").read_text() == "kept"


@root_only
@pytest.mark.parametrize(("owner", "warned"), [(61_184, False), (70_000, True), (0, False)])
def test_root_takes_over_whoever_has_it(
    made: Workspace, owner: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = made.data_dir("sample")
    os.chown(path, owner, owner)
    path.chmod(0o777)
    made.data_dir("sample")
    assert path.stat().st_mode & 0o7777 == 0o700
    assert ("none of plugin_uids" in caplog.text) is warned


@root_only
def test_directory_of_another_user_where_we_are_not_root(
    made: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made.data_dir("sample")
    os.chown(path, 61_184, 61_184)
    path.chmod(0o777)
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    with pytest.raises(ConfigError, match="belongs to user id 61184, and this host runs as 1000"):
        made.data_dir("sample")
    assert path.stat().st_mode & 0o777 == 0o777


@pytest.mark.parametrize("kind", ["file", "link", "fifo", "dangling"])
def test_what_is_no_directory_is_refused_and_left_as_it_is(
    made: Workspace, outside: Path, kind: str
) -> None:
    path = made.state_dir / "data" / "sample"
    if kind == "file":
        path.touch()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(outside if kind == "link" else "/no/such/thing")
    outside.chmod(0o755)
    with pytest.raises(ConfigError, match=f"data directory {path} cannot be used") as caught:
        made.data_dir("sample")
    assert caught.value.remedy
    assert outside.stat().st_mode & 0o777 == 0o755


def test_scratch_directory_that_cannot_be_made(made: Workspace) -> None:
    (made.run_dir / "scratch").rmdir()
    with pytest.raises(ConfigError, match="scratch directory"):
        made.scratch_dir("sample")


# -- a disk that is full -------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["canary", "sdk", "mkdir", "lock"])
def test_what_cannot_be_made_whole_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(*_: object, **__: object) -> None:
        raise full

    def fail_copying(source: Path, destination: Path, **_: object) -> None:
        destination.mkdir()
        failed = [(f"{source}/{n}", f"{destination}/{n}", f"{full}: 'x' -> 'y'") for n in "abc"]
        raise shutil.Error(failed)

    Workspace(tmp_path / "state").close()
    target = {
        "canary": (Path, "write_text", fail),
        "sdk": (shutil, "copytree", fail_copying),
        "mkdir": (module, "_remove_abandoned", fail),
        "lock": (fcntl, "flock", fail),
    }[step]
    before = sorted(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(*target)
        with pytest.raises(ConfigError, match="No space left on device") as caught:
            Workspace(tmp_path / "state")
    assert list((tmp_path / "state" / "run").iterdir()) == []
    assert sorted(os.listdir("/proc/self/fd")) == before
    if step == "sdk":
        assert "sdk/plugin_sdk/a: [Errno 28] No space left on device (and 2 more)." in str(
            caught.value
        )
    Workspace(tmp_path / "state").close()


def test_ended_while_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copytree", stopped)
    with pytest.raises(KeyboardInterrupt):
        Workspace(tmp_path / "state")
    assert list((tmp_path / "state" / "run").iterdir()) == []
