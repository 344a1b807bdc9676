"""All processes of a group are stopped, those too that are started meanwhile, and no other."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sandbox_host.backends.linux import process_tree
from sandbox_host.backends.linux.process_tree import continue_all, stop_all
from tests.support.traces import eventually

SPIN = "print('ready', flush=True)\nwhile True: pass"


@pytest.fixture
def two() -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes that spin."""
    made = [
        subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for one in made:
        assert one.stdout is not None
        one.stdout.readline()
    yield made
    for one in made:
        one.kill()
        one.communicate()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_they_stand_still_and_go_on(two: list[subprocess.Popen[str]]) -> None:
    pids = [one.pid for one in two]
    assert stop_all(lambda: pids)
    assert [state(pid) for pid in pids] == ["T", "T"]
    continue_all(lambda: pids)
    assert eventually(lambda: all(state(pid) == "R" for pid in pids))


def test_stopped_ones_can_be_killed(two: list[subprocess.Popen[str]]) -> None:
    stop_all(lambda: [one.pid for one in two])
    for one in two:
        one.kill()
        assert one.wait(20) == -signal.SIGKILL


def test_one_that_comes_meanwhile_is_stopped_too(two: list[subprocess.Popen[str]]) -> None:
    first, second = (one.pid for one in two)
    looks = iter([[first], [first], [first, second]])
    assert stop_all(lambda: next(looks, [first, second]))
    assert state(second) == "T"


def test_one_that_left_the_group_is_not_signalled(two: list[subprocess.Popen[str]]) -> None:
    """Its number may be another process's by then."""
    first, second = (one.pid for one in two)
    looks = iter([[first, second], [first]])
    assert stop_all(lambda: next(looks, [first]))
    assert state(first) == "T"
    assert state(second) == "R"


def test_what_has_ended_stands_still() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        assert eventually(lambda: psutil.Process(ended.pid).status() == psutil.STATUS_ZOMBIE)
        assert stop_all(lambda: [ended.pid])
    assert stop_all(lambda: [ended.pid])
    assert stop_all(list)
    continue_all(list)


def test_what_does_not_stop_is_given_up(
    two: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_tree, "_stands_still", lambda _: False)
    assert not stop_all(lambda: [one.pid for one in two])


def test_one_that_goes_on_behind_the_looks_back_is_stopped_again(
    two: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (one.pid for one in two)
    looks_still = process_tree._stands_still
    continued = []

    def look(pid: int) -> bool:
        # As the kernel does to a stopped group that becomes orphaned, by the end of another.
        if not continued and pid == second and looks_still(first) and looks_still(second):
            continued.append(first)
            two[0].send_signal(signal.SIGCONT)
        return looks_still(pid)

    monkeypatch.setattr(process_tree, "_stands_still", look)
    assert stop_all(lambda: [first, second])
    assert continued == [first]
    assert eventually(lambda: state(first) == "T")
