"""Removing a tree in steps, whatever is in it and whoever changes it meanwhile."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox_host.runtime import removal as module
from sandbox_host.runtime.removal import MAX_LEFT, Left, Removal
from sandbox_host.runtime.workspace import remove_tree
from tests.support.alone import alone, has_user_namespaces
from tests.support.hostile_tree import fill

FOREVER = 60.0


@pytest.fixture
def tree(tmp_path: Path) -> Any:
    directory = tmp_path / "tree"
    directory.mkdir()
    yield directory
    remove_tree(directory)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "precious").write_text("precious")
    return directory


def remove(tree: Path) -> Removal:
    with Removal(tree) as removal:
        assert removal.run(FOREVER)
    return removal


def refuse(monkeypatch: pytest.MonkeyPatch, call: str, unwanted: Callable[[str], bool]) -> None:
    """Have a system call fail for some names, as for an immutable file."""
    real = getattr(os, call)

    def checked(name: Any, *arguments: Any, **options: Any) -> Any:
        if unwanted(os.fsdecode(name)):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return real(name, *arguments, **options)

    monkeypatch.setattr(module.os, call, checked)


def test_whatever_is_in_it(tree: Path, outside: Path) -> None:
    names = fill(tree, outside)
    tree.chmod(0)
    before = len(os.listdir("/proc/self/fd"))
    done = remove(tree)
    assert (done.removed, done.left, done.over) == (names + 1, [], True)
    assert not tree.exists()
    assert (outside / "precious").read_text() == "precious"
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_step_is_short_and_the_next_goes_on(tree: Path) -> None:
    for number in range(300):
        (tree / f"{number % 3}").mkdir(exist_ok=True)
        (tree / f"{number % 3}" / f"{number}").touch()
    with Removal(tree) as removal:
        steps = 1
        descriptors = set()
        while not removal.step(0.0):
            steps += 1
            descriptors.add(len(os.listdir("/proc/self/fd")))
        assert steps > 300
        assert removal.step(0.0)  # and nothing is left to do
    assert max(descriptors) - min(descriptors) <= 4
    assert not tree.exists()


def test_what_was_begun_can_be_left_and_ended_by_another(tree: Path) -> None:
    for number in range(50):
        (tree / "sub").mkdir(exist_ok=True)
        (tree / "sub" / f"{number}").touch()
    before = sorted(os.listdir("/proc/self/fd"))
    with Removal(tree) as removal:
        for _ in range(20):
            assert not removal.step(0.0)
    removal.close()
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert 0 < removal.removed < 50
    assert removal.removed + remove(tree).removed == 52


def test_time_that_is_over_is_told(tree: Path) -> None:
    (tree / "file").touch()
    with Removal(tree) as removal:
        assert not removal.run(0.0)
    assert removal.left == [Left("", "not over after 0 s")]
    assert tree.exists()


def test_what_cannot_be_removed_is_told_and_the_rest_is_gone(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "kept\x1b[2J").touch()
    (tree / "a" / "b" / "gone").touch()
    (tree / "a" / "gone").touch()
    (tree / "c" / "d" / "e").mkdir(parents=True)
    with monkeypatch.context() as patched:
        refuse(patched, "unlink", lambda name: name.startswith("kept"))
        done = remove(tree)
    paths = {one.path.rpartition("/")[2]: one.reason for one in done.left}
    assert paths.pop("kept\\x1b[2J") == "Operation not permitted"
    assert set(paths.values()) == {"Directory not empty"}
    assert [path.name for path in tree.rglob("*") if path.is_file()] == ["kept\x1b[2J"]
    assert remove(tree).left == []


def test_the_list_of_what_is_left_has_a_bound(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5 * MAX_LEFT):
        (tree / f"kept-{number}").touch()
    with monkeypatch.context() as patched:
        refuse(patched, "unlink", lambda name: True)
        done = remove(tree)
    assert len(done.left) == MAX_LEFT
    assert done.removed == 0


def test_link_in_place_of_a_directory_that_was_looked_at(
    tree: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "sub").mkdir()
    outside.chmod(0o750)
    real = module.open_directory

    def swapped(name: Any, *, dir_fd: int | None = None, **options: Any) -> int:
        if dir_fd is not None and str(name).startswith(".removing-"):
            os.rmdir(name, dir_fd=dir_fd)
            os.symlink(outside, name, dir_fd=dir_fd)
        return real(name, dir_fd=dir_fd, **options)

    monkeypatch.setattr(module, "open_directory", swapped)
    with Removal(tree) as removal:
        removal.run(FOREVER)
    assert (outside / "precious").read_text() == "precious"
    assert outside.stat().st_mode & 0o777 == 0o750
    monkeypatch.undo()
    remove(tree)
    assert not tree.exists()


def test_while_another_moves_things_about(tree: Path, outside: Path) -> None:
    for number in range(40):
        (tree / f"{number}" / "x" / "y").mkdir(parents=True)
        (tree / f"{number}" / "x" / "y" / "file").touch()
    stop = threading.Event()

    def move() -> None:
        while not stop.is_set():
            for number in range(40):
                source = tree / f"{number}" / "x"
                for action in (
                    lambda s=source, n=number: s.rename(tree / f"{(n + 1) % 40}" / "x"),
                    lambda n=number: (tree / f"{n}" / "out").symlink_to(outside),
                ):
                    try:
                        action()
                    except OSError:
                        continue

    mover = threading.Thread(target=move)
    mover.start()
    try:
        with Removal(tree) as removal:
            removal.run(FOREVER)
    finally:
        stop.set()
        mover.join()
    remove_tree(tree)  # what was moved in behind its back
    assert not tree.exists()
    assert (outside / "precious").read_text() == "precious"


@pytest.mark.parametrize("kind", ["link", "file", "fifo", "missing"])
def test_what_is_no_directory_is_not_removed(tmp_path: Path, outside: Path, kind: str) -> None:
    path = tmp_path / "it"
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "file":
        path.touch()
    elif kind == "fifo":
        os.mkfifo(path)
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError):  # noqa: PT011 - whichever it is
        Removal(path)
    assert os.path.lexists(path) is (kind != "missing")
    assert sorted(os.listdir("/proc/self/fd")) == before


MOUNTED = """
from pathlib import Path
from sandbox_host.runtime.removal import Removal
import ctypes
NEWNS = 0x20000
own_user(NEWNS)
tree, precious = Path(sys.argv[1]), Path(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
for at in sys.argv[3:]:
    done = libc.mount(os.fsencode(precious), os.fsencode(tree / at), None, 4096, None)
    assert done == 0, os.strerror(ctypes.get_errno())
with Removal(tree) as removal:
    over = removal.run(30.0)
result = [over, sorted({one.reason for one in removal.left}), sorted(os.listdir(precious))]
"""


@pytest.mark.parametrize("at", ["mounted", "sub/mounted"])
def test_what_is_mounted_there_is_not_emptied(tree: Path, outside: Path, at: str) -> None:
    if not has_user_namespaces():
        pytest.skip("no user namespaces for this user")
    (tree / at).mkdir(parents=True)
    (tree / "file").touch()
    over, reasons, kept = alone(MOUNTED, tree, outside, at)
    assert over
    assert "Device or resource busy" in reasons
    assert kept == ["precious"]
    assert not (tree / "file").exists()
