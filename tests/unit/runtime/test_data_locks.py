"""Whose plugin process a data directory belongs to now."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from sandbox_host.errors import ConfigError, DataInUseError
from sandbox_host.model import Limits
from sandbox_host.runtime import data_locks as module
from sandbox_host.runtime.data_locks import DataLocks, Lease
from tests.support.alone import alone
from tests.support.command_line import REPOSITORY


@pytest.fixture
def place(tmp_path: Path) -> Path:
    directory = tmp_path / "locks"
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.0)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait as long as a loaded machine may take."""
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 30.0)


def test_taken_looked_at_and_given_back(place: Path) -> None:
    locks = DataLocks(place)
    assert locks.look("sample") == Lease()
    locks.take("sample", Limits(data_bytes=1_000, data_files=10))
    taken = locks.look("sample")
    assert (taken.held, taken.pid) == (True, os.getpid())
    assert (taken.data_bytes, taken.data_files) == (1_000, 10)
    locks.give_back("sample")
    after = DataLocks(place).look("sample")
    assert (after.held, after.data_bytes) == (False, 1_000)
    assert taken.changed is not None
    assert after.changed is not None
    assert after.changed >= taken.changed
    assert (place / "sample").stat().st_mode & 0o777 == 0o600


def test_one_at_a_time(place: Path, impatient: None) -> None:
    first, second = DataLocks(place), DataLocks(place)
    first.take("sample")
    first.take("other")
    for locks in (first, second):
        with pytest.raises(DataInUseError, match="this process has that plugin loaded") as caught:
            locks.take("sample")
        assert caught.value.plugin == "sample"
        assert caught.value.remedy
    first.give_back("sample")
    with second.holding("sample"), pytest.raises(DataInUseError):
        first.take("sample")
    first.take("sample")
    first.give_back("sample")
    first.give_back("sample")  # and a second time is nothing
    first.give_back("other")


def test_no_descriptor_is_left(place: Path, impatient: None) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    first, second = DataLocks(place), DataLocks(place)
    first.take("sample")
    assert not any(os.get_inheritable(descriptor) for descriptor in first._held.values())
    with pytest.raises(DataInUseError):
        second.take("sample")
    first.look("sample")
    first.give_back("sample")
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_whoever_has_it_for_a_moment_is_waited_for(place: Path, patient: None) -> None:
    first, second = DataLocks(place), DataLocks(place)
    first.take("sample")
    looked = threading.Event()

    def give_back() -> None:
        looked.wait()
        first.give_back("sample")

    thread = threading.Thread(target=give_back)
    thread.start()
    looked.set()
    second.take("sample")
    thread.join()
    assert first.look("sample").held
    second.give_back("sample")
    assert not first.look("sample").held


def test_looking_at_it_keeps_nobody_from_it(place: Path, patient: None) -> None:
    locks = DataLocks(place)
    locks.take("sample")
    locks.give_back("sample")
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            locks.look("sample")

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            locks.take("sample")
            assert locks.look("sample").held
            locks.give_back("sample")
    finally:
        stop.set()
        for thread in threads:
            thread.join()


HOLDER = """
import sys
from pathlib import Path
from sandbox_host.runtime.data_locks import DataLocks
DataLocks(Path(sys.argv[1])).take("sample")
print("taken", flush=True)
sys.stdin.read()
"""


def test_another_process_has_it_until_it_is_killed(place: Path, impatient: None) -> None:
    words = [sys.executable, "-c", HOLDER, str(place)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=REPOSITORY, **pipes) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "taken\n"
        with pytest.raises(DataInUseError, match=f"the host in process {other.pid} has") as caught:
            DataLocks(place).take("sample")
        assert "state_dir of its own" in str(caught.value)
        assert DataLocks(place).look("sample").pid == other.pid
        other.send_signal(signal.SIGKILL)
        other.wait(timeout=20)
        with DataLocks(place).holding("sample"):
            pass


FORKED = """
from pathlib import Path
from sandbox_host.runtime.data_locks import DataLocks
locks = DataLocks(Path(sys.argv[1]))
locks.take("sample")
ready, told = os.pipe(), os.pipe()
copy = os.fork()
if not copy:
    locks.forget()
    os.write(told[1], b"forgotten")
    os.read(ready[0], 1)
    os._exit(0)
os.read(told[0], 9)
result = [DataLocks(Path(sys.argv[1])).look("sample").held]
# As when the host is killed: nothing is unlocked, descriptors are closed.
os.close(locks._held.pop("sample"))
result.append(DataLocks(Path(sys.argv[1])).look("sample").held)
os.write(ready[1], b"x")
os.waitpid(copy, 0)
"""


def test_a_forked_copy_neither_gives_it_back_nor_keeps_it(place: Path) -> None:
    assert alone(FORKED, place) == [True, False]


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"pid": -1}', b'{"pid": "1"}', b"[" * 5_000, b"\xff" * 100]
)
def test_record_that_no_host_wrote(place: Path, text: bytes) -> None:
    (place / "sample").write_bytes(text)
    lease = DataLocks(place).look("sample")
    assert (lease.held, lease.pid, lease.data_bytes, lease.data_files) == (False, None, None, None)
    with DataLocks(place).holding("sample"):
        assert DataLocks(place).look("sample").pid == os.getpid()


def _link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "precious")


@pytest.mark.parametrize("stand", [Path.mkdir, os.mkfifo, _link], ids=["directory", "fifo", "link"])
def test_what_is_no_lock(place: Path, stand: Callable[[Path], None]) -> None:
    precious = place.parent / "precious"
    precious.write_text("precious")
    stand(place / "sample")
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError, match="cannot be taken") as caught:
        DataLocks(place).take("sample")
    assert caught.value.remedy
    with pytest.raises(OSError):  # noqa: PT011 - whichever it is
        DataLocks(place).look("sample")
    assert precious.read_text() == "precious"
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_no_locks_on_this_disk(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(ConfigError, match="No locks available"):
        DataLocks(place).take("sample")


def test_who_has_ended_shares_it_with_nobody(place: Path) -> None:
    """A plugin that ends while it is reloaded: there is no other host to be looked for."""
    with pytest.raises(DataInUseError, match="ended before its new version") as told:
        DataLocks(place).share("weather_model")
    assert "another host" not in str(told.value)
