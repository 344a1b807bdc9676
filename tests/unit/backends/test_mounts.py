"""A plugin's root as data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox_host.backends.base import Places
from sandbox_host.backends.linux.mounts import (
    NODEV,
    NOEXEC,
    NOSUID,
    PROC_OPTIONS,
    RDONLY,
    Mount,
    identified,
    links_for,
    mounts_for,
    root_plan,
)
from tests.support.plans import plan_and_places

OPTIONS: dict[str, Any] = {
    "native_code": False,
    "scratch_bytes": 4_096,
    "uid": 1,
    "with_proc": True,
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    with plan_and_places(tmp_path_factory.mktemp("places")) as (_, made):
        yield made


def mounts(
    places: Places, read: tuple[str, ...] = (), write: tuple[str, ...] = (), **changes: Any
) -> tuple[Mount, ...]:
    return mounts_for(places, read, write, **OPTIONS | changes)


def at(found: tuple[Mount, ...], path: Path | str) -> Mount:
    (mount,) = [mount for mount in found if mount.path == str(path)]
    return mount


def test_parents_come_before_children_and_nothing_twice(places: Places) -> None:
    paths = [mount.path for mount in mounts(places, ("/usr", "/usr/share", "/opt"))]
    assert len(set(paths)) == len(paths)
    for number, path in enumerate(paths):
        assert os.path.isabs(path)
        assert os.path.normpath(path) == path
        later = [other for other in paths[number + 1 :] if path.startswith(other + "/")]
        assert later == []


def test_own_directories_are_writable_and_nothing_else_is(places: Places) -> None:
    writable = {m.path: m.kind for m in mounts(places, ("/opt",)) if not m.flags & RDONLY}
    assert writable == {str(places.data_dir): "bind", str(places.scratch_dir): "tmpfs"}


@pytest.mark.parametrize("native_code", [False, True])
def test_granted_paths_are_writable_where_writing_was_granted(
    places: Places, native_code: bool
) -> None:
    read = ("/opt", "/srv/out/in", "/srv/other", "/srv/output")
    found = mounts(places, read, ("/srv/out", "/opt/out", "/opt"), native_code=native_code)
    wanted = dict.fromkeys(("/opt", "/opt/out", "/srv/out"), NOSUID | NODEV | NOEXEC)
    wanted |= {"/srv/out/in": wanted["/opt"]}
    wanted |= dict.fromkeys(("/srv/other", "/srv/output"), wanted["/opt"] | RDONLY)
    assert {m.path: m.flags for m in found if m.path in wanted} == wanted


def test_what_was_looked_at_before_is_not_looked_at_again(tmp_path: Path) -> None:
    plan = (Mount("bind", str(tmp_path), 0), Mount("bind", str(tmp_path / "gone"), 0))
    first, second = identified(plan, {str(tmp_path / "gone"): (1, 2)})
    status = tmp_path.stat()
    assert first.source == (status.st_dev, status.st_ino)
    assert second.source == (1, 2)
    with pytest.raises(FileNotFoundError):
        identified(plan, {str(tmp_path / "gone"): None})


@pytest.mark.parametrize("native_code", [False, True])
def test_what_a_plugin_brings_or_writes_is_code_only_with_the_permission(
    places: Places, native_code: bool
) -> None:
    found = mounts(places, ("/opt",), native_code=native_code)
    for path in (places.package_dir, places.data_dir, places.scratch_dir):
        assert bool(at(found, path).flags & NOEXEC) != native_code
    for path in (places.sdk_dir, "/opt", "/proc"):
        assert at(found, path).flags & NOEXEC


def test_no_set_user_id_and_no_devices(places: Places) -> None:
    for mount in mounts(places, ("/opt",)):
        assert mount.flags & NOSUID
        if mount.path.startswith("/dev/"):
            assert mount.flags & NOEXEC
            assert mount.flags & RDONLY
        else:
            assert mount.flags & NODEV


def test_devices_are_few(places: Places) -> None:
    devices = {mount.path for mount in mounts(places) if mount.path.startswith("/dev")}
    assert {"/dev/null", "/dev/urandom"} <= devices
    assert devices <= {"/dev/null", "/dev/full", "/dev/urandom", "/dev/random"}


def test_scratch_is_bounded_and_the_plugins_own(places: Places) -> None:
    told = at(mounts(places, scratch_bytes=12_345, uid=7), places.scratch_dir).data.split(",")
    assert {"size=12345", "nr_inodes=16384", "mode=700", "uid=7", "gid=7"} == set(told)
    own = at(mounts(places, uid=None), places.scratch_dir).data
    assert "uid=" not in own


def test_proc_where_it_can_be_mounted(places: Places) -> None:
    proc = at(mounts(places), "/proc")
    assert (proc.kind, proc.data) == ("proc", PROC_OPTIONS)
    assert {"subset=pid", "hidepid=ptraceable"} == set(PROC_OPTIONS.split(","))
    assert "/proc" not in {mount.path for mount in mounts(places, with_proc=False)}


def test_plugin_environment_is_read_and_may_hold_shared_objects(
    places: Places, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    found = mounts(replace(places, plugin_environment=tmp_path / "link"))
    environment = at(found, tmp_path / "real")
    assert environment.flags == RDONLY | NOSUID | NODEV


def test_site_packages_are_hidden(places: Places, tmp_path: Path) -> None:
    import sys

    library = tmp_path / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    foreign = ("site-packages", "dist-packages", "test", "python3.2")
    for name in (*foreign, "json"):
        (library / name).mkdir(parents=True)
    (library / "link-site").symlink_to("/etc")
    (tmp_path / "bin").mkdir()
    found = mounts(replace(places, python=tmp_path / "bin" / "python3"))
    assert at(found, library).flags == RDONLY | NOSUID | NODEV
    hidden = {
        Path(m.path).name for m in found if m.kind == "hidden" and library in Path(m.path).parents
    }
    assert hidden == set(foreign)
    for name in foreign:
        assert at(found, library / name).flags == RDONLY | NOSUID | NODEV | NOEXEC


def test_links_lead_to_what_is_mounted_and_stand_in_no_mount(places: Places) -> None:
    found = mounts(places)
    points = [Path(mount.path) for mount in found]
    for link, target in links_for(places, found):
        assert not any(Path(link).is_relative_to(point) for point in points)
        whole = Path(os.path.normpath(os.path.join(os.path.dirname(link), target)))
        assert whole.is_absolute()


def test_root_plan_is_plain_data(places: Places) -> None:
    from plugin_sdk.wire.codec import pack, unpack

    found = mounts(places)
    plan = root_plan(places, found)
    assert unpack(pack(plan)) == plan
    assert [mount["path"] for mount in plan["mounts"]] == [mount.path for mount in found]
    assert plan["at"] == plan["cwd"] == str(places.scratch_dir)


def test_words_are_mountinfos() -> None:
    assert Mount("bind", "/x", RDONLY | NODEV).words == {"ro", "nodev"}
    assert Mount("bind", "/x", NOSUID | NOEXEC).words == {"nosuid", "noexec"}
    assert Mount("bind", "/x", 0).words == set()
