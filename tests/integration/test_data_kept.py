"""What a real plugin left in its data directory: kept, listed, removed, and one process's."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_host import BlockingPlugin, SandboxHost
from sandbox_host.errors import (
    DataInUseError,
    PluginEndedError,
    PluginNotFoundError,
    UsageError,
)
from sandbox_host.runtime import data_locks
from sandbox_host.runtime.data import DataDirectories
from tests.support.command_line import REPOSITORY
from tests.support.host import Workshop
from tests.support.hostile_tree import fill
from tests.support.traces import eventually

pytestmark = pytest.mark.needs("landlock", "seccomp")

SOURCE = r"""
import fcntl

@operation
def mess():
    os.chdir(context().data_dir)
    met = []
    for make in (
        lambda: os.symlink("/etc", "link"),
        lambda: os.symlink(".", "loop"),
        lambda: os.mkfifo("fifo"),
        lambda: os.link("one", "two"),
    ):
        with open("one", "w") as file:
            file.write("x")
        try:
            make()
        except OSError as error:
            met.append(error.errno)
    with open("sparse", "wb") as file:
        file.truncate(1 << 25)
    for name in (b"\xff\xfe \n", b"\x1b[2J", b"n" * 255):
        open(name, "wb").close()
    for number in range(1_000):
        os.close(os.open(str(number), os.O_CREAT | os.O_WRONLY, 0))
    os.makedirs("locked/inside/deep")
    os.chmod("locked/inside", 0)
    os.chmod("locked", 0)
    for _ in range(1_000):
        os.mkdir("d")
        os.chdir("d")
    os.chmod(context().data_dir, 0)
    return met

held = []

@operation
def lock_all():
    held.append(os.open(context().data_dir, os.O_RDONLY))
    fcntl.flock(held[-1], fcntl.LOCK_EX)
    return True

@operation
def reach(path):
    try:
        os.open(path, os.O_RDONLY)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "opened"

@operation
def names():
    return sorted(os.listdir(context().data_dir))

@operation
def spin():
    while True:
        pass

@operation
def leave():
    os._exit(1)
"""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_locks, "PATIENCE_SECONDS", 0.1)


def test_kept_listed_and_removed(workshop: Workshop, impatient: None) -> None:
    bundle = workshop.write(SOURCE, limits={"data_files": 4_000})
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = host.load(bundle)
        assert set(plugin.call("mess", deadline=20.0)) <= {errno.EACCES, errno.EPERM}
        (one,) = host.data()
        assert (one.identity, one.fault, one.complete) == ("sample", "", True)
        assert one.path == workshop.data_dir("sample")
        assert (one.loaded, one.host) == (True, os.getpid())
        assert one.limit_files == 4_000
        assert 2_000 < one.files < 2_100
        assert one.bytes < 1 << 25
        with pytest.raises(DataInUseError, match="sample is in use: this process"):
            host.remove_data("sample")
    with SandboxHost.blocking(workshop.config()) as host:
        (kept,) = host.data()
        assert (kept.files, kept.loaded, kept.limit_files) == (one.files, False, 4_000)
        done = host.remove_data("sample")
        assert (done.removed, done.left) == (one.files + 1, ())
        assert host.data() == ()
        with pytest.raises(PluginNotFoundError):
            host.remove_data("sample")
        assert host.load(bundle).call("names") == []
    assert os.listdir(workshop.state_dir / "data") == ["sample"]
    assert "data_removal" in (workshop.state_dir / "journal.jsonl").read_text()


def test_the_same_for_asyncio(workshop: Workshop) -> None:
    async def use() -> None:
        async with SandboxHost(workshop.config()) as host:
            await host.load(workshop.write())
            (one,) = await host.data()
            assert one.loaded
            await host.unload("sample")
            assert (await host.remove_data("Sample")).left == ()
            assert await host.data() == ()
        with pytest.raises(UsageError, match="not open"):
            await host.data()

    asyncio.run(use())


def test_a_plugin_cannot_hold_up_the_next_by_a_lock(workshop: Workshop) -> None:
    """It can lock its own directory and nothing else: the host's lock is out of its reach."""
    bundle = workshop.write(SOURCE)
    lock = workshop.state_dir / "locks" / "sample"
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = host.load(bundle)
        assert plugin.call("lock_all")
        for path in (lock, lock.parent, lock.parent.parent / "data"):
            assert plugin.call("reach", str(path)) in {"EACCES", "EPERM", "ENOENT"}
        (one,) = host.data()
        assert one.loaded
        host.unload("sample")
        assert host.load(bundle).call("lock_all")


def test_one_plugin_process_at_a_time(workshop: Workshop, impatient: None) -> None:
    bundle = workshop.write(SOURCE)
    with SandboxHost.blocking(workshop.config()) as first:
        plugin = first.load(bundle)
        with SandboxHost.blocking(workshop.config()) as second:
            with pytest.raises(DataInUseError, match="is in use") as caught:
                second.load(bundle)
            assert caught.value.plugin == "sample"
            assert second.plugins == {}
            assert not list((second._core._workspace.bundles).iterdir())
            assert plugin.call("echo", 1) == 1
            first.unload("sample")
            assert second.load(bundle).call("echo", 2) == 2
            with pytest.raises(DataInUseError):
                first.load(bundle)
        assert first.load(bundle).call("echo", 3) == 3
    with (workshop.state_dir / "locks" / "sample").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_plugin_that_crashes_can_be_loaded_again_at_once(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = workshop.write(SOURCE)
    broken = workshop.write("raise ValueError")

    def end(plugin: BlockingPlugin) -> None:
        with pytest.raises(PluginEndedError):
            plugin.call("leave")

    with SandboxHost.blocking(workshop.config()) as host:
        for _ in range(5):
            end(host.load(bundle))
        for _ in range(3):
            with pytest.raises(Exception, match="ValueError"):
                host.load(broken)
        assert host.load(bundle).call("echo", 1) == 1
    with SandboxHost.blocking(workshop.config()) as host:
        assert host.load(bundle).call("echo", 1) == 1


def test_another_process_has_it_until_it_is_killed(workshop: Workshop, impatient: None) -> None:
    bundle = workshop.write(SOURCE)
    places = (str(workshop.trust_store), str(workshop.state_dir))
    words = [sys.executable, "-m", "tests.support.lonely_host", *places, str(bundle)]
    with subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            pid = json.loads(other.stdout.readline())["sample"]
            directories = DataDirectories(workshop.state_dir)
            (one,) = directories.measure()
            assert (one.loaded, one.host) == (True, other.pid)
            with SandboxHost.blocking(workshop.config()) as host:
                for use in (lambda: host.remove_data("sample"), lambda: host.load(bundle)):
                    with pytest.raises(DataInUseError, match=f"process {other.pid}"):
                        use()
        finally:
            other.send_signal(signal.SIGKILL)
    assert eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert not directories.measure_one("sample").loaded
    assert directories.remove("sample").left == ()


def test_a_host_sweeps_what_an_interrupted_removal_left(workshop: Workshop, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    with SandboxHost.blocking(workshop.config()):
        pass
    doomed = workshop.state_dir / "data" / ".removed-0011"
    doomed.mkdir()
    fill(doomed, outside)
    with SandboxHost.blocking(workshop.config()) as host:
        assert host.load(workshop.write()).call("echo", 1) == 1
        assert eventually(lambda: not doomed.exists(), seconds=30.0)
    assert (outside / "precious").exists()
