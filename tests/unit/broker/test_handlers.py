"""What waits for a plugin's handlers, and what is lost because too much does."""

from __future__ import annotations

from sandbox_host.broker.handlers import MAX_WAITING_BYTES, HandlerQueue


def test_the_newest_are_lost_and_counted() -> None:
    queue = HandlerQueue(2)
    assert [queue.add("a", bytes([number])) for number in range(3)] == [True, True, False]
    assert queue.next() == ("a", b"\x00")
    assert queue.add("b", b"\x03")
    queue.sent(True)
    queue.sent(False)
    info = queue.info("listener", ["a", "b"])
    assert (info.subscriber, info.kind, info.types) == ("listener", "plugin", ("a", "b"))
    assert (info.delivered, info.dropped, info.waiting, info.waiting_bytes) == (1, 2, 2, 2)
    assert (info.limit, info.policy, len(queue)) == (2, "drop_newest", 2)


def test_bytes_are_bounded() -> None:
    queue = HandlerQueue(100)
    half = bytes(MAX_WAITING_BYTES // 2)
    assert [queue.add("a", half) for _ in range(3)] == [True, True, False]
    queue.next()
    assert queue.add("a", half)
