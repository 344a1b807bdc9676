"""The mounts of any plan are in order, and any difference from them is noticed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from sandbox_host.backends.base import Places
from sandbox_host.backends.linux.attest import compare_mounts
from sandbox_host.backends.linux.mounts import (
    NOEXEC,
    NOSUID,
    PROC_OPTIONS,
    RDONLY,
    Mount,
    links_for,
    mounts_for,
)
from sandbox_host.backends.linux.procfs import MountLine, parse_mounts, size_of_tmpfs
from sandbox_host.runtime.launch import base_python
from tests.support.attested import line_of

WORDS = frozenset({"ro", "nosuid", "nodev", "noexec"})
OTHERS = frozenset({"relatime", "nosymfollow", "idmapped"})

names = st.text("abc.- \\é", min_size=1, max_size=4).filter(lambda n: n not in {".", ".."})
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))

# -- what is planned -----------------------------------------------------------------------------


def is_below(path: str, other: str) -> bool:
    return Path(path).is_relative_to(other)


@given(
    read=st.lists(paths, max_size=6),
    write=st.lists(paths, max_size=3),
    native_code=st.booleans(),
    scratch_bytes=st.integers(4_096, 1 << 40),
    uid=st.none() | st.integers(1, 1 << 31),
    with_proc=st.booleans(),
)
def test_plan_is_in_order(read: list[str], write: list[str], **options: Any) -> None:
    state = Path("/var/lib/state/run/1")
    places = Places(
        python=base_python(),
        sdk_dir=state / "sdk",
        package_dir=state / "bundles/sample-1/sample",
        data_dir=Path("/var/lib/state/data/sample"),
        scratch_dir=state / "scratch/sample-1",
        canary=state / "canary",
    )
    found = mounts_for(places, read, write, **options)
    points = [mount.path for mount in found]
    assert len(set(points)) == len(points)
    assert all(os.path.isabs(point) for point in points)
    for number, point in enumerate(points):
        assert not [later for later in points[number:] if point.startswith(later + "/")]
    assert {*read, *write} <= set(points)
    assert all(mount.flags & NOSUID for mount in found)
    own = {str(places.data_dir), str(places.scratch_dir)}
    writable = {m.path for m in found if not m.flags & RDONLY}
    granted = {path for path in {*read, *write} if any(is_below(path, one) for one in write)}
    assert granted <= writable <= own | granted
    assert all(m.flags & NOEXEC for m in found if m.path in {*read, *write} - own)
    for link, _ in links_for(places, found):
        assert not [p for p in points if link == p or link.startswith(p + "/")]


# -- what is found -------------------------------------------------------------------------------

flags = st.integers(0, 15)


@st.composite
def plans(draw: st.DrawFn) -> tuple[Mount, ...]:
    """A plan: binds, covers in them, file systems of its own."""
    found: dict[str, Mount] = {}
    for path in draw(st.lists(paths, min_size=1, max_size=5, unique=True)):
        kind = draw(st.sampled_from(["bind", "hidden", "tmpfs", "proc"]))
        data = {"proc": PROC_OPTIONS, "tmpfs": "size=8192,nr_inodes=3"}.get(kind, "")
        found[path] = Mount(kind, path, draw(flags), data)
    return tuple(sorted(found.values(), key=lambda mount: mount.path.count("/")))


ROOT = line_of(Mount("tmpfs", "/", 15))


def lines_of(plan: tuple[Mount, ...]) -> list[MountLine]:
    return [ROOT, *map(line_of, plan)]


@given(plan=plans(), more=st.frozensets(st.sampled_from(sorted(WORDS | OTHERS))))
def test_plan_that_is_in_force_is_accepted_however_much_stricter(
    plan: tuple[Mount, ...], more: frozenset[str]
) -> None:
    assert compare_mounts(plan, [ROOT, *(line_of(mount, more) for mount in plan)], ()) == ""


@given(plan=plans(), data=st.data())
def test_mount_that_is_missing_is_noticed(plan: tuple[Mount, ...], data: st.DataObject) -> None:
    lines = lines_of(plan)
    gone = data.draw(st.sampled_from(lines))
    assert gone.point in compare_mounts(plan, [x for x in lines if x is not gone], ())


@given(plan=plans(), data=st.data())
def test_mount_that_is_weaker_is_noticed(plan: tuple[Mount, ...], data: st.DataObject) -> None:
    lines = lines_of(plan)
    place = data.draw(st.integers(0, len(lines) - 1))
    restrictions = sorted(lines[place].options & WORDS)
    assume(restrictions)
    lost = data.draw(st.sets(st.sampled_from(restrictions), min_size=1))
    lines[place] = replace(lines[place], options=lines[place].options - lost)
    told = compare_mounts(plan, lines, ())
    assert lines[place].point in told
    assert min(lost) in told


@given(plan=plans(), point=paths | st.just("/"), at=st.integers(0, 6), data=st.data())
def test_mount_that_is_added_is_noticed(
    plan: tuple[Mount, ...], point: str, at: int, data: st.DataObject
) -> None:
    """Wherever it stands, above or below another, and however restricted it is."""
    points = [point, *(m.path for m in plan), *(f"{m.path}/below" for m in plan)]
    added = MountLine(data.draw(st.sampled_from(points)), WORDS, "ext4", "rw")
    lines = lines_of(plan)
    lines.insert(min(at, len(lines)), added)
    assert added.point in compare_mounts(plan, lines, ())


@given(plan=plans(), data=st.data())
def test_mount_of_another_kind_is_noticed(plan: tuple[Mount, ...], data: st.DataObject) -> None:
    lines = lines_of(plan)
    places = [n for n, mount in enumerate(plan, 1) if mount.kind != "bind"]
    assume(places)
    place = data.draw(st.sampled_from(places))
    kind = data.draw(st.sampled_from(["ext4", "overlay", "devtmpfs", "sysfs"]))
    lines[place] = replace(lines[place], kind=kind)
    assert kind in compare_mounts(plan, lines, ())


@given(option=st.sampled_from(PROC_OPTIONS.split(",")))
def test_proc_that_shows_more_is_noticed(option: str) -> None:
    plan = (Mount("proc", "/proc", 15, PROC_OPTIONS),)
    shown = ",".join(word for word in PROC_OPTIONS.split(",") if word != option)
    lines = [ROOT, replace(line_of(plan[0]), data=f"rw,{shown}")]
    assert "/proc" in compare_mounts(plan, lines, ())


@given(planned=st.integers(1, 1 << 40), found=st.none() | st.integers(1, 1 << 42))
def test_scratch_that_is_larger_is_noticed(planned: int, found: int | None) -> None:
    plan = (Mount("tmpfs", "/scratch", 14, f"size={planned}"),)
    data = "rw" if found is None else f"rw,size={found}"
    told = compare_mounts(plan, [ROOT, replace(line_of(plan[0]), data=data)], ())
    # The kernel rounds up to whole pages.
    page = os.sysconf("SC_PAGE_SIZE")
    assert bool(told) == (found is None or found > planned + page)


@given(plan=plans(), data=st.data())
def test_what_a_bind_brought_along_is_no_difference_where_it_is_outside_too(
    plan: tuple[Mount, ...], data: st.DataObject
) -> None:
    binds = [mount for mount in plan if mount.kind == "bind"]
    assume(binds)
    bind = data.draw(st.sampled_from(binds))
    point = f"{bind.path}/{data.draw(names)}"
    assume(point not in {mount.path for mount in plan})
    along = MountLine(point, bind.words, "ext4", "rw")
    lines = [*lines_of(plan), along]
    assert compare_mounts(plan, lines, [point]) == ""
    assert point in compare_mounts(plan, lines, [])
    assert point in compare_mounts(plan, [*lines, along], [point])
    if bind.words:
        weaker = replace(along, options=along.options - {min(bind.words)})
        assert point in compare_mounts(plan, [*lines[:-1], weaker], [point])


# -- what the kernel says ------------------------------------------------------------------------


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        found = parse_mounts(text)
    except ValueError:
        return
    assert len(found) == (text.rstrip("\n").count("\n") + 1 if text else 0)


def escape(path: str) -> str:
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\#" else c for c in path)


file_names = st.binary(min_size=1).filter(lambda name: not {0, 10} & {*name}).map(os.fsdecode)


@given(point=file_names, kind=names)
def test_any_mount_point_is_read_as_it_is(point: str, kind: str) -> None:
    line = f"1 2 0:3 / /{escape(point)} ro,nosuid shared:1 - {escape(kind)} none rw"
    (found,) = parse_mounts(line + "\n")
    assert found.point == f"/{point}"
    assert found.options == {"ro", "nosuid"}


@given(st.text())
def test_size_is_a_number_or_nothing(data: str) -> None:
    size = size_of_tmpfs(data)
    assert size is None or size >= 0
