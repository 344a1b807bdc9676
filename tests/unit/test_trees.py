"""Walking whatever somebody hostile put into a directory."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host import trees
from sandbox_host.trees import SETTLING_SECONDS, Walked, open_directory, walk
from tests.support.ordinary_user import NOBODY, system_python
from tests.support.trees import make_deep, remove_deep

Seen = list[tuple[str, os.stat_result]]
ALL = 1_000_000


def look(directory: Path, max_entries: int = ALL) -> tuple[Seen, Walked]:
    """Walk a tree; return the names with their status, and how far the walk came."""
    seen: Seen = []
    descriptors = set()

    def visit(here: int, name: str, status: os.stat_result) -> None:
        assert os.stat(name, dir_fd=here, follow_symlinks=False).st_ino == status.st_ino
        descriptors.add(len(os.listdir("/proc/self/fd")))
        seen.append((name, status))

    top = open_directory(directory)
    before = len(os.listdir("/proc/self/fd"))
    try:
        walked = walk(top, visit, max_entries)
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        os.close(top)
    # The directory, and the listing of it.
    assert all(number <= before + 2 for number in descriptors)
    return seen, walked


def names(seen: Seen) -> list[str]:
    return sorted(name for name, _ in seen)


def test_empty(tmp_path: Path) -> None:
    assert look(tmp_path) == ([], Walked(entries=0, unread=0, complete=True))


def test_2000_levels(tmp_path: Path) -> None:
    make_deep(tmp_path, 2_000)
    # Something to come back up for, at the top.
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "last").touch()
    try:
        seen, walked = look(tmp_path)
    finally:
        remove_deep(tmp_path / "d")
    assert walked == Walked(entries=2_003, unread=0, complete=True)
    assert names(seen) == ["d"] * 2_000 + ["e", "file", "last"]


def test_no_link_is_followed_and_nothing_is_opened(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    (outside / "precious").touch()
    (tree / "sub").mkdir(parents=True)
    (tree / "out").symlink_to(outside)
    (tree / "loop").symlink_to(".")
    (tree / "self").symlink_to("self")
    (tree / "sub" / "up").symlink_to("..")
    (tree / "dangling").symlink_to("/no/such/thing")
    os.mkfifo(tree / "fifo")  # opening it would wait for a writer
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.open(tree, os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        seen, walked = look(tree)
    kinds = {name: stat.S_IFMT(status.st_mode) for name, status in seen}
    links = ("out", "loop", "self", "up", "dangling")
    assert kinds == {
        "sub": stat.S_IFDIR,
        "fifo": stat.S_IFIFO,
        "socket": stat.S_IFSOCK,
        **dict.fromkeys(links, stat.S_IFLNK),
    }
    assert walked == Walked(entries=8, unread=0, complete=True)


def test_odd_names(tmp_path: Path) -> None:
    odd = [os.fsdecode(b"\xff\xfe \n"), "-rf", "n" * 255, " ", "ü", "\x01\x1b[31m", "..."]
    for name in odd:
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name[:250]}.").touch()
    seen, walked = look(tmp_path)
    assert names(seen) == sorted([*odd, *(f"{name[:250]}." for name in odd)])
    assert walked.complete


@pytest.mark.parametrize(("bound", "complete"), [(0, False), (5, False), (9, False), (10, True)])
def test_bound(tmp_path: Path, bound: int, complete: bool) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(4):
            (tmp_path / name / str(number)).touch()
    seen, walked = look(tmp_path, bound)
    assert len(seen) == walked.entries == bound
    assert walked.complete is complete


shapes = st.recursive(
    st.none(), lambda below: st.dictionaries(st.sampled_from("abcd"), below, max_size=4)
).filter(lambda shape: shape is not None)


def _make(directory: Path, shape: dict) -> int:
    """Make directories (dictionaries) and files (None); return how many entries there are."""
    count = 0
    for name, below in shape.items():
        count += 1
        if below is None:
            (directory / name).touch()
        else:
            (directory / name).mkdir()
            count += _make(directory / name, below)
    return count


@given(shape=shapes)
def test_every_entry_once(tmp_path_factory: pytest.TempPathFactory, shape: dict) -> None:
    root = tmp_path_factory.mktemp("shape")
    count = _make(root, shape)
    seen, walked = look(root)
    assert walked == Walked(entries=count, unread=0, complete=True)
    assert len({status.st_ino for _, status in seen}) == count
    every = {path.lstat().st_ino for path in root.rglob("*")}
    assert {status.st_ino for _, status in seen} == every


# -- what changes meanwhile ----------------------------------------------------------------------


def test_directory_that_was_moved_away_is_not_left_by_its_new_parent(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "inside").touch()
    outside.mkdir()
    (outside / "precious").touch()
    (outside / "directory").mkdir()
    seen = []

    def visit(here: int, name: str, status: os.stat_result) -> None:
        seen.append(name)
        if name == "inside":
            (tree / "a" / "b").rename(outside / "b")

    top = open_directory(tree)
    walked = walk(top, visit, ALL)
    os.close(top)
    assert seen == ["a", "b", "inside"]
    assert not walked.complete


def test_what_is_removed_or_replaced_by_a_link_is_passed_over(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    for name in ("removed", "replaced"):
        (tree / name).mkdir(parents=True)
    outside.mkdir()
    (outside / "precious").touch()
    seen = []

    def visit(here: int, name: str, status: os.stat_result) -> None:
        seen.append(name)
        os.rmdir(name, dir_fd=here)
        if name == "replaced":
            os.symlink(outside, name, dir_fd=here)

    top = open_directory(tree)
    walked = walk(top, visit, ALL)
    os.close(top)
    assert sorted(seen) == ["removed", "replaced"]
    assert walked == Walked(entries=2, unread=0, complete=False)


def settle() -> None:
    """Let the clock that stamps changes move on: one change differs from the next then."""
    time.sleep(SETTLING_SECONDS)


@pytest.mark.parametrize("verify", [False, True])
def test_what_is_moved_to_where_the_walk_has_been(tmp_path: Path, verify: bool) -> None:
    """Whichever of two directories is listed first, a tree is moved there from the other."""
    for name in ("a", "b"):
        (tmp_path / name / "big").mkdir(parents=True)
        (tmp_path / name / "big" / name).touch()
    settle()
    listed: list[str] = []

    def visit(here: int, name: str, status: os.stat_result) -> None:
        if name == "big":
            folder = Path(os.readlink(f"/proc/self/fd/{here}")).name
            listed.append(folder)
            if len(listed) == 1:
                other = "b" if folder == "a" else "a"
                (tmp_path / other / "big").rename(tmp_path / folder / "hidden")
        assert name != "hidden"

    top = open_directory(tmp_path)
    walked = walk(top, visit, ALL, verify=verify)
    os.close(top)
    assert len(listed) == 1  # the other was not met anywhere
    assert walked == Walked(entries=4, unread=0, complete=not verify)


@pytest.mark.parametrize("change", ["make", "remove", "replace", "exchange by a link", "mode"])
def test_a_directory_that_changes_after_it_was_listed(tmp_path: Path, change: str) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "last").touch()
    (tmp_path / "a" / "file").touch()
    (tmp_path / "other").touch()
    settle()

    def visit(here: int, name: str, status: os.stat_result) -> None:
        if name != "last":
            return
        if change == "make":
            (tmp_path / "a" / "new").touch()
        elif change == "remove":
            (tmp_path / "a" / "file").unlink()
        elif change == "replace":
            (tmp_path / "other").rename(tmp_path / "a" / "file")
        elif change == "mode":
            (tmp_path / "a").chmod(0o750)
        else:
            (tmp_path / "a" / "file").unlink()
            (tmp_path / "a" / "file").symlink_to("/")

    top = open_directory(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    assert not walk(top, visit, ALL, verify=True).complete
    assert len(os.listdir("/proc/self/fd")) == before
    settle()
    assert walk(top, lambda *_: None, ALL, verify=True).complete
    os.close(top)


@pytest.mark.parametrize(
    ("later", "complete"),
    [(1, True), (0, False), (-500_000_000, False), (-2_000_000_000, True)],
    ids=["the tick after", "the same tick", "a finer stamp", "the clock was set back"],
)
def test_a_change_in_the_tick_of_the_listing_would_not_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: int, complete: bool
) -> None:
    now = tmp_path.stat().st_ctime_ns + later
    monkeypatch.setattr(trees.time, "clock_gettime_ns", lambda _clock: now)
    top = open_directory(tmp_path)
    assert walk(top, lambda *_: None, ALL, verify=True).complete is complete
    assert walk(top, lambda *_: None, ALL).complete
    os.close(top)


def test_it_leaves_no_trace(tmp_path: Path) -> None:
    """An access time would tell how far a walk has come."""
    places = [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    places[-1].mkdir(parents=True)
    for place in places:
        os.utime(place, ns=(1, place.stat().st_mtime_ns))
    os.listdir(places[-1])
    if places[-1].stat().st_atime_ns == 1:
        pytest.skip("this file system keeps no access times")
    os.utime(places[-1], ns=(1, 2))
    top = open_directory(tmp_path)
    walk(top, lambda *_: None, ALL, unlock=True, verify=True)
    os.close(top)
    assert [place.stat().st_atime_ns for place in places] == [1, 1, 1]


def test_its_order_cannot_be_foreseen(tmp_path: Path) -> None:
    for name in "abcdefgh":
        (tmp_path / name / name.upper()).mkdir(parents=True)
    orders = {tuple(n for n, _ in look(tmp_path)[0] if n.isupper()) for _ in range(20)}
    assert len(orders) > 1


def test_no_descriptors_left_is_no_fault_of_the_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    top = open_directory(tmp_path)

    def want(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(trees, "open_directory", want)
    with pytest.raises(OSError, match="too many"):
        walk(top, lambda *_: None, ALL)
    os.close(top)


def test_what_the_visitor_raises_ends_the_walk(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)

    def visit(here: int, name: str, status: os.stat_result) -> None:
        if name == "b":
            raise KeyError(name)

    top = open_directory(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(KeyError):
        walk(top, visit, ALL)
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(top)


# -- opening -------------------------------------------------------------------------------------


@pytest.mark.parametrize("unlock", [False, True])
@pytest.mark.parametrize("kind", ["link", "file", "fifo", "missing"])
def test_what_is_no_directory_is_not_opened(tmp_path: Path, kind: str, unlock: bool) -> None:
    path = tmp_path / "it"
    if kind == "link":
        path.symlink_to(tmp_path)
    elif kind == "file":
        path.touch()
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises((NotADirectoryError, FileNotFoundError)):
        open_directory(path, unlock=unlock)


SCRIPT = """
import json, os, sys, trees
told = []
for unlock in (False, True):
    seen = []
    top = trees.open_directory(sys.argv[1], unlock=unlock) if unlock else os.open(sys.argv[1], 0)
    walked = trees.walk(top, lambda here, name, status: seen.append(name), 100, unlock=unlock)
    told.append([sorted(seen), walked.unread, walked.complete])
print(json.dumps(told))
"""


def test_locked_directories_of_an_ordinary_user(tmp_path: Path) -> None:
    """Modes stop an ordinary user only, and they are that user's own to change."""
    python = system_python()
    if python is None:
        pytest.skip("no system interpreter that an ordinary user can start")
    place = Path(f"/tmp/sandbox-host-trees-{os.getpid()}")
    place.mkdir(mode=0o755)
    try:
        for mode in (0o000, 0o100, 0o200, 0o400, 0o500, 0o700):
            locked = place / "tree" / f"{mode:o}"
            locked.mkdir(parents=True)
            (locked / f"in-{mode:o}").touch()
            locked.chmod(mode)
        (place / "trees.py").write_bytes(Path(trees.__file__).read_bytes())
        (place / "trees.py").chmod(0o644)
        if os.geteuid() == 0:
            for path in (place, *place.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        done = subprocess.run(
            [str(python), "-c", SCRIPT, str(place / "tree")],
            env={"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            check=True,
            timeout=30,
            **user,
        )
    finally:
        for path in (place / "tree").glob("*"):
            with contextlib.suppress(OSError):
                path.chmod(0o700)
        remove_deep(place)
    folders = ["0", "100", "200", "400", "500", "700"]
    every = [f"in-{name}" for name in folders]
    before, after = json.loads(done.stdout)
    # 0400 may be read and not passed: nothing in it can be looked at, and nothing is above it.
    assert before == [sorted([*folders, "in-500", "in-700"]), 4, True]
    assert after == [sorted([*folders, *every]), 0, True]
