"""What waits for a plugin's handlers, what goes together, and what finds no room."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from plugin_sdk.wire.limits import MAX_EVENTS_AT_ONCE
from sandbox_host.broker.handlers import (
    MAX_BATCH_BYTES,
    MAX_WAITING_BYTES,
    MAX_WINDOW,
    WINDOW,
    WINDOW_SECONDS,
    HandlerQueue,
)
from sandbox_host.broker.packed import PackedEvent

AT_ONCE = 1e-9
"""Seconds that handlers take which do nothing."""


def event(number: int, event_type: str = "a", size: int = 1) -> PackedEvent:
    return PackedEvent(event_type, b"\xc4" * size, 0.0, "host", number).prepare()


@dataclass
class Plugin:
    """Takes what is sent, and handles it when it is told to."""

    limit: int = 1_000
    got: list[list[int]] = field(default_factory=list)
    unhandled: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.queue = HandlerQueue(self.limit, self.send)

    def send(self, *, more: bool = False) -> None:
        with self.lock:
            while taken := self.queue.take(more=more):
                self.got.append([one.id for one in taken])
                self.unhandled.append(len(taken))
                self.queue.sent(len(taken), done=True)

    def handle(self, seconds: float = AT_ONCE) -> None:
        with self.lock:
            self.queue.handled(self.unhandled.pop(0), seconds, last=True)
        self.send(more=True)

    def fill(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            self.queue.deliver(event(number))


def test_the_first_goes_at_once_and_what_comes_meanwhile_together() -> None:
    plugin = Plugin()
    plugin.fill(1, 1)
    assert plugin.got == [[1]]
    plugin.fill(2, 3)
    assert plugin.got == [[1]]
    plugin.handle()
    assert plugin.got == [[1], [2, 3, 4]]
    plugin.handle()
    plugin.fill(5, 1)
    assert plugin.got[2:] == [[5]]


def test_no_more_than_the_window_are_with_a_slow_plugin() -> None:
    plugin = Plugin(limit=10)
    plugin.fill(1, 30)
    assert plugin.got == [[1], list(range(2, WINDOW + 1))]
    info = plugin.queue.info("listener", ["a", "b"])
    assert (info.subscriber, info.kind, info.types) == ("listener", "plugin", ("a", "b"))
    assert (info.delivered, info.dropped, info.waiting) == (WINDOW, 12, 10)
    assert (info.limit, info.policy, len(plugin.queue)) == (10, "drop_newest", 10)
    plugin.handle(seconds=1.0)
    assert plugin.got[2:] == [[WINDOW + 1]]
    plugin.handle(seconds=7.0)
    assert plugin.got[3:] == [list(range(WINDOW + 2, 2 * WINDOW + 1))]


def test_the_window_grows_with_fast_handlers_and_shrinks_with_slow_ones() -> None:
    queue = HandlerQueue(10, bool)
    windows = []
    for _ in range(10):
        queue.handled(queue.window, AT_ONCE, last=True)
        windows.append(queue.window)
    assert windows[:3] == [2 * WINDOW, 4 * WINDOW, 8 * WINDOW]
    assert windows[-1] == MAX_WINDOW
    queue.handled(1, 60.0, last=True)  # it may have waited for a CPU
    assert queue.window == MAX_WINDOW // 2
    for _ in range(10):
        queue.handled(1, 60.0, last=True)
    assert queue.window == WINDOW
    queue.handled(1, AT_ONCE, last=True)  # and one alone may be fast
    assert queue.window == WINDOW
    for _ in range(10):
        queue.handled(queue.window, AT_ONCE, last=True)
    for _ in range(99):  # one by one, each soon enough
        queue.handled(1, WINDOW_SECONDS / 10, last=False)
    assert queue.window == MAX_WINDOW
    queue.handled(1, WINDOW_SECONDS / 10, last=True)
    assert 9 <= queue.window <= 10


def test_one_message_has_one_type_and_is_bounded() -> None:
    queue = HandlerQueue(10_000, bool)
    queue.window = MAX_WINDOW
    large = MAX_BATCH_BYTES // 3
    events = [event(1), event(2), event(3, "b"), event(4), event(5, size=MAX_BATCH_BYTES)]
    events += [event(number, size=large) for number in range(6, 10)]
    events += [event(number) for number in range(10, 10 + MAX_EVENTS_AT_ONCE)]
    for one in events:
        queue.deliver(one)
    waiting = queue.info("x", ()).waiting_bytes
    assert waiting == sum(len(one.entry) for one in events)
    taken = []
    while one_message := queue.take():
        taken.append([one.id for one in one_message])
        waiting -= sum(len(one.entry) for one in one_message)
        assert queue.info("x", ()).waiting_bytes == waiting
    assert taken[:5] == [[1, 2], [3], [4], [5], [6, 7]]
    assert [number for message in taken for number in message] == [one.id for one in events]
    assert max(map(len, taken)) <= MAX_EVENTS_AT_ONCE
    assert queue.take(at_most=1) == []


def test_what_was_taken_and_not_sent_is_dropped() -> None:
    queue = HandlerQueue(10, bool)
    queue.deliver(event(1))
    queue.sent(len(queue.take()), done=False)
    assert (queue.dropped, queue.delivered, len(queue)) == (1, 0, 0)


def test_bytes_are_bounded() -> None:
    queue = HandlerQueue(100, bool)
    half = MAX_WAITING_BYTES // 2 - 100
    for number in range(3):
        queue.deliver(event(number, size=half))
    assert (queue.dropped, len(queue)) == (1, 2)
    assert [one.id for one in queue.take()] == [0]
    queue.deliver(event(4, size=half))
    assert (queue.dropped, len(queue)) == (1, 2)


@pytest.mark.parametrize("limit", [1, 7, 300, 2_000])
def test_a_publisher_is_told_now_and_then_that_much_waits(limit: int) -> None:
    plugin = Plugin(limit=limit)
    plugin.fill(1, WINDOW)
    told = [plugin.queue.deliver(event(number)) for number in range(9, 9 + 3 * limit)]
    assert any(told[: limit + 1])
    assert sum(told) <= 1 + 3 * limit // min(limit, 512)


def test_publishing_while_it_is_handled_loses_nothing_and_wakes_whoever_sends() -> None:
    """The two sides share no lock: whatever they do at once, somebody sends what waits."""
    plugin = Plugin(limit=100_000)
    count, stop = 20_000, threading.Event()

    def handle() -> None:
        while not stop.is_set() or plugin.unhandled:
            if plugin.unhandled:
                plugin.handle()

    thread = threading.Thread(target=handle)
    thread.start()
    plugin.fill(1, count)
    stop.set()
    thread.join()
    assert [number for message in plugin.got for number in message] == list(range(1, count + 1))
    assert (plugin.queue.delivered, plugin.queue.dropped, len(plugin.queue)) == (count, 0, 0)
