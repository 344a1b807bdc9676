"""The one thread that looks after all plugins, with plugins that are nothing but pipes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from sandbox_host.runtime.keeper import Keeper


class Kept:
    """Pipes in a plugin's place; what the keeper calls is written down."""

    def __init__(self) -> None:
        (self.log, self.log_write), (self.receive, self.receive_write) = os.pipe(), os.pipe()
        self.send_read, self.send = os.pipe()
        self.seen: list[str] = []
        self.changed = threading.Condition()
        self.fault: Exception | None = None
        self.pause = 10.0

    def steady_fds(self) -> dict[int, str]:
        return {self.log: "stdout"}

    def channel_fds(self) -> tuple[int, int]:
        return self.receive, self.send

    def _note(self, what: str) -> None:
        with self.changed:
            self.seen.append(what)
            self.changed.notify_all()
        if self.fault is not None and what != "broke_down":
            raise self.fault

    def readable(self, role: str) -> bool:
        data = os.read(self.log, 100)
        self._note(f"{role} {len(data)}")
        return bool(data)

    def pump(self) -> None:
        self._note("pump")

    def tick(self, now: float) -> float:
        self._note("tick")
        return self.pause

    def broke_down(self, error: Exception) -> None:
        self._note("broke_down")

    def wait_for(self, what: str, times: int = 1) -> None:
        """Wait until the keeper did something so often."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.seen.count(what) >= times, 10), self.seen

    def close(self) -> None:
        for end in {self.log, self.log_write, self.receive, self.receive_write, self.send}:
            os.close(end)
        os.close(self.send_read)


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    made = Keeper(0.01)
    yield made
    made.close()


@pytest.fixture
def kept(keeper: Keeper) -> Iterator[Kept]:
    made = Kept()
    keeper.adopt(made)
    yield made
    keeper.dismiss(made)
    made.close()


def test_output_is_taken_as_it_comes(kept: Kept) -> None:
    os.write(kept.log_write, b"hello")
    kept.wait_for("stdout 5")
    os.write(kept.log_write, b"again!")
    kept.wait_for("stdout 6")


def test_end_of_output_is_seen_once(kept: Kept) -> None:
    os.close(kept.log_write)
    kept.wait_for("stdout 0")
    kept.wait_for("tick", kept.seen.count("tick") + 2)
    assert kept.seen.count("stdout 0") == 1
    kept.log_write = os.open(os.devnull, os.O_WRONLY)


def test_protocol_is_pumped_when_something_arrives(keeper: Keeper, kept: Kept) -> None:
    os.write(kept.receive_write, b"x")
    kept.wait_for("pump")
    keeper.watch(kept, for_room=False)
    kept.wait_for("pump", 2)


def test_protocol_is_pumped_when_there_is_room(keeper: Keeper, kept: Kept) -> None:
    keeper.watch(kept, for_room=True)
    kept.wait_for("pump")


def test_sweep_at_once_when_woken(keeper: Keeper, kept: Kept) -> None:
    kept.wait_for("tick")
    before = kept.seen.count("tick")
    keeper.wake()
    kept.wait_for("tick", before + 1)


def test_fault_of_one_does_not_end_the_thread(keeper: Keeper, kept: Kept) -> None:
    cursed = Kept()
    cursed.fault = RuntimeError("a fault of ours")
    keeper.adopt(cursed)
    cursed.wait_for("broke_down")
    kept.wait_for("tick", kept.seen.count("tick") + 2)
    keeper.dismiss(cursed)
    cursed.close()


def test_dismissed_is_left_alone(keeper: Keeper) -> None:
    former, other = Kept(), Kept()
    keeper.adopt(former)
    keeper.adopt(other)
    former.wait_for("tick")
    keeper.dismiss(former)
    keeper.wake()
    other.wait_for("tick", other.seen.count("tick") + 1)
    before = list(former.seen)
    os.write(former.log_write, b"x")
    keeper.watch(former, for_room=True)
    keeper.wake()
    other.wait_for("tick", other.seen.count("tick") + 2)
    assert former.seen == before
    keeper.dismiss(other)
    former.close()
    other.close()


def test_a_number_that_was_used_again_stays_watched(keeper: Keeper) -> None:
    """A plugin that ends closes its descriptors; another's may have their numbers at once."""
    successor = Kept()

    class Ending(Kept):
        def readable(self, role: str) -> bool:
            keeper.dismiss(self)
            os.dup2(successor.log, self.log)
            os.close(successor.log)
            successor.log = self.log
            keeper.adopt(successor)
            return False

    ending = Ending()
    keeper.adopt(ending)
    os.write(ending.log_write, b"last words")
    successor.wait_for("tick")
    os.write(successor.log_write, b"first")
    successor.wait_for("stdout 5")
    keeper.dismiss(successor)
    successor.close()
    for end in (ending.log_write, ending.receive, ending.receive_write, ending.send):
        os.close(end)
