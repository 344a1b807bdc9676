from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from sandbox_host import HostConfig
from sandbox_host.errors import ConfigError
from sandbox_host.selftest import targets
from sandbox_host.selftest.arena import open_arena
from sandbox_host.selftest.collection.information_leaks import SECRET


@pytest.mark.parametrize(
    "change",
    [
        lambda path: (path / "planted").write_text(""),
        lambda path: (path / "secret.txt").unlink(),
        lambda path: (path / "victim.txt").write_text("Secret"),
        lambda path: (path / "victim.txt").chmod(0o604),
        lambda path: os.utime(path / "victim.txt", (0, 0)),
        lambda path: os.link(path / "victim.txt", path.parent / "hard"),
        lambda path: (path / "home" / ".ssh" / "authorized_keys").write_text(""),
        lambda path: (path / "to_remove").rmdir(),
    ],
)
def test_a_picture_shows_every_change(tmp_path: Path, change: Callable[[Path], object]) -> None:
    outside = targets.make_outside(tmp_path / "outside")
    before = targets.picture(outside)
    assert targets.picture(outside) == before
    change(outside)
    assert targets.picture(outside) != before


def test_what_is_left_open_is_inherited_and_closed_afterwards(tmp_path: Path) -> None:
    with ExitStack() as stack:
        file, unconnected = targets.leave_open(stack, tmp_path)
        assert os.get_inheritable(file)
        assert os.get_inheritable(unconnected)
        assert os.pread(file, 6, 0) == b"secret"
    for descriptor in (file, unconnected):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_two_arenas_may_stand_beside_each_other(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with ExitStack() as stack:
        one = targets.open_sockets(stack, tmp_path / "one")
        two = targets.open_sockets(stack, tmp_path / "two")
        assert one.keys() == two.keys()
        assert not set(map(str, one.values())) & set(map(str, two.values()))


def test_a_temporary_directory_that_will_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 100)  # a Unix socket's path has room for 107 characters
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(ConfigError, match="AF_UNIX path too long"), open_arena(HostConfig()):
        pytest.fail("it was opened")
    assert list(deep.iterdir()) == []
    assert SECRET not in os.environ


def test_a_host_that_is_process_1_is_told_from_a_plugin_that_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first process of a container: its threads have numbers that no plugin has."""
    assert targets.host_number() == os.getpid()
    with ThreadPoolExecutor(1) as threads:
        number = threads.submit(threading.get_native_id).result()
        monkeypatch.setattr(os, "getpid", lambda: 1)
        found = targets.host_number()
        assert found >= number
        assert Path(f"/proc/{found}/environ").exists()
