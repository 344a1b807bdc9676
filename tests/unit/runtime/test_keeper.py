"""The one thread that looks after all plugins, with plugins that are nothing but pipes."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator

import pytest

from sandbox_host.errors import ConfinementError
from sandbox_host.runtime.keeper import EXIT, Keeper
from sandbox_host.runtime.rest import Rest
from tests.support.traces import eventually


class Kept:
    """Pipes in a plugin's place; what the keeper calls is written down."""

    def __init__(self) -> None:
        (self.log, self.log_write), (self.receive, self.receive_write) = os.pipe(), os.pipe()
        self.send_read, self.send = os.pipe()
        self.seen: list[str] = []
        self.changed = threading.Condition()
        self.fault: Exception | None = None
        self.end_fault: Exception | None = None
        self.pause = 0.01
        self.holding = False
        self.resting = False
        self.asked: list[str] = []
        self._work = threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    def clock(self) -> int:
        """Return a CPU clock that stands, but for `stir`: a thread's that waits."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work.acquire)
            self._thread.start()
        return time.pthread_getcpuclockid(self._thread.ident or 0)

    def stir(self) -> None:
        """Let that run for a moment, and end."""
        self._work.release()
        if self._thread is not None:
            self._thread.join()

    def steady_fds(self) -> dict[int, str]:
        return {self.log: "stdout"}

    def channel_fds(self) -> tuple[int, int]:
        return self.receive, self.send

    def _note(self, what: str) -> None:
        with self.changed:
            self.seen.append(what)
            self.changed.notify_all()
        fault = self.end_fault if what == "broke_down" else self.fault
        if fault is not None:
            raise fault

    def readable(self, role: str) -> bool:
        if role == EXIT:
            self._note(role)
            return False
        data = os.read(self.log, 100)
        self._note(f"{role} {len(data)}")
        return bool(data)

    def held(self, role: str, now: float) -> bool:
        return self.holding

    def pump(self) -> None:
        self._note("pump")

    def rests(self, now: float) -> Rest | None:
        if not self.resting:
            return None
        clock = self.clock()
        return Rest(clock, time.clock_gettime(clock), self.asked, now + 30.0)

    def tick(self, now: float) -> float:
        self._note("tick")
        return self.pause

    def broke_down(self, error: BaseException) -> None:
        self._note("broke_down")

    def unwatched(self) -> None:
        self._note("unwatched")

    def wait_for(self, what: str, times: int = 1) -> None:
        """Wait until the keeper did something so often."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.seen.count(what) >= times, 10), self.seen

    def close(self) -> None:
        self.stir()
        for end in {self.log, self.log_write, self.receive, self.receive_write, self.send}:
            os.close(end)
        os.close(self.send_read)


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    made = Keeper()
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
    kept.pause = 60.0
    for _ in range(3):  # the first may come by itself
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


def test_fault_that_cannot_be_mended_does_not_end_the_thread(keeper: Keeper, kept: Kept) -> None:
    cursed = Kept()
    cursed.fault, cursed.end_fault = OSError("a fault of ours"), PermissionError("not even that")
    keeper.adopt(cursed)
    cursed.wait_for("broke_down", 3)
    kept.wait_for("tick", kept.seen.count("tick") + 2)
    keeper.check()
    keeper.dismiss(cursed)
    cursed.close()


def test_fault_is_told_once(keeper: Keeper, caplog: pytest.LogCaptureFixture) -> None:
    cursed = Kept()
    cursed.fault = RuntimeError("a fault of ours")
    keeper.adopt(cursed)
    cursed.wait_for("broke_down", 3)
    # Before it is forgotten, which a sweep that goes on meanwhile may not know yet.
    told = [record.message for record in caplog.records]
    keeper.dismiss(cursed)
    cursed.close()
    assert told == ["the keeper met a fault of the host's"]


def test_log_that_raises_does_not_end_the_thread(
    keeper: Keeper, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_fault(*_: object, **__: object) -> None:
        text = "the application's handler is broken"
        raise RuntimeError(text)

    monkeypatch.setattr(logging.getLogger("sandbox_host"), "handle", raise_fault)
    cursed = Kept()
    cursed.fault = cursed.end_fault = OSError("a fault of ours")
    keeper.adopt(cursed)
    cursed.wait_for("broke_down", 2)
    kept.wait_for("tick", kept.seen.count("tick") + 2)
    keeper.dismiss(cursed)
    cursed.close()


def test_output_that_cannot_be_read_is_not_tried_for_ever(keeper: Keeper, kept: Kept) -> None:
    class Deaf(Kept):
        def readable(self, role: str) -> bool:
            self._note(role)
            raise OSError(9, "a fault of ours")

    deaf = Deaf()
    keeper.adopt(deaf)
    os.write(deaf.log_write, b"x")
    deaf.wait_for("broke_down")
    kept.wait_for("tick", kept.seen.count("tick") + 2)
    assert deaf.seen.count("stdout") == 1
    keeper.dismiss(deaf)
    deaf.close()


def test_what_cannot_be_watched_is_refused_and_forgotten(keeper: Keeper, kept: Kept) -> None:
    broken = Kept()
    file = os.open(os.devnull, os.O_RDONLY)  # epoll takes no files
    os.dup2(file, broken.receive)
    os.close(file)
    with pytest.raises(ConfinementError, match="cannot look after") as caught:
        keeper.adopt(broken)
    assert caught.value.layer == "watchdog"
    seen = list(broken.seen)  # one look, if there was a sweep at that very moment
    keeper.wake()
    kept.wait_for("tick", kept.seen.count("tick") + 2)
    assert broken.seen == seen
    broken.close()


def broken(keeper: Keeper) -> list[Kept]:
    """Look after two, of which one resists; then let the keeper's epoll be none any more."""
    all_kept = [Kept(), Kept()]
    all_kept[0].end_fault = PermissionError("a fault of ours")
    for kept in all_kept:
        keeper.adopt(kept)
    file = os.open(os.devnull, os.O_RDONLY)
    os.dup2(file, keeper._epoll.fileno())
    os.close(file)
    keeper.wake()
    keeper._thread.join(10)
    assert not keeper._thread.is_alive()
    return all_kept


def test_keeper_that_breaks_ends_all(keeper: Keeper, caplog: pytest.LogCaptureFixture) -> None:
    for kept in broken(keeper):
        assert kept.seen[-3:] == ["broke_down", "unwatched", EXIT]
        kept.close()
    assert any("the watchdog broke down" in record.message for record in caplog.records)


def test_keeper_that_broke_takes_nothing_new(keeper: Keeper) -> None:
    former, late = broken(keeper), Kept()
    with pytest.raises(ConfinementError, match="Nothing is bounded") as caught:
        keeper.check()
    assert caught.value.layer == "watchdog"
    with pytest.raises(ConfinementError, match="Nothing is bounded"):
        keeper.adopt(late)
    keeper.watch(former[0], for_room=True)
    assert late.seen == []
    for kept in (*former, late):
        kept.close()


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


def test_who_rests_is_not_looked_at(keeper: Keeper, kept: Kept) -> None:
    kept.wait_for("tick", 2)
    kept.resting = True
    other = Kept()
    keeper.adopt(other)
    other.wait_for("tick", 5)  # one look may have begun before
    ticks = kept.seen.count("tick")
    other.wait_for("tick", other.seen.count("tick") + 20)
    assert kept.seen.count("tick") == ticks
    kept.resting = False
    keeper.wake(kept)
    kept.wait_for("tick", ticks + 2)
    keeper.dismiss(other)
    other.close()


@pytest.mark.parametrize("what", ["it runs", "it is asked something"])
def test_who_stirs_is_looked_at(keeper: Keeper, kept: Kept, what: str) -> None:
    kept.resting = True
    assert eventually(lambda: kept in keeper._resting)
    ticks = kept.seen.count("tick")
    kept.resting = False
    if what == "it runs":
        kept.stir()
    else:
        kept.asked.append("a call")
    kept.wait_for("tick", ticks + 2)
    assert kept not in keeper._resting


def test_who_rests_is_looked_at_in_the_end(keeper: Keeper, kept: Kept) -> None:
    kept.resting = True
    assert eventually(lambda: kept in keeper._resting)
    kept.resting = False
    with keeper._lock:
        keeper._due[kept] = time.monotonic() + 0.01
    kept.wait_for("tick", kept.seen.count("tick") + 2)


def test_who_rested_is_forgotten(keeper: Keeper) -> None:
    former = Kept()
    keeper.adopt(former)
    former.resting = True
    assert eventually(lambda: former in keeper._resting)
    keeper.dismiss(former)
    assert former not in keeper._resting
    former.close()


def test_who_rests_is_read_from_all_the_same(keeper: Keeper, kept: Kept) -> None:
    """What was read once is armed again by a look, which comes although it rests."""
    kept.resting = True
    for times in (1, 2):
        os.write(kept.receive_write, b"x")
        kept.wait_for("pump", times)
        os.read(kept.receive, 1)


def test_those_behind_the_first_slice_are_looked_at_too(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox_host.runtime.rest._SLICE", 1)
    several = [Kept() for _ in range(3)]
    for one in several:
        one.resting = True
        keeper.adopt(one)
    assert eventually(lambda: all(one in keeper._resting for one in several))
    for one in several:
        ticks = one.seen.count("tick")
        one.resting = False
        one.stir()
        one.wait_for("tick", ticks + 2)
    for one in several:
        keeper.dismiss(one)
        one.close()
