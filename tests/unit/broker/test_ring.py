"""What is kept for subscribers that come late."""

from __future__ import annotations

from sandbox_host.broker.packed import PackedEvent
from sandbox_host.broker.ring import MAX_KEPT_BYTES, Ring
from sandbox_host.broker.topics import Wanted


def event(number: int, size: int = 1) -> PackedEvent:
    return PackedEvent("a", bytes(size), 0.0, "host", number)


def ids(ring: Ring, count: int = 10_000) -> list[int]:
    return [event.id for event in ring.last(count, Wanted([]))]


def test_the_newest_are_kept_and_given_oldest_first() -> None:
    ring = Ring(3)
    for number in range(5):
        ring.add(event(number))
    assert (ids(ring), ids(ring, 2), ids(ring, 0)) == ([2, 3, 4], [3, 4], [])


def test_bytes_are_bounded() -> None:
    ring = Ring(10_000)
    size = 200_000
    for number in range(50):
        ring.add(event(number, size))
    kept = ids(ring)
    assert kept == list(range(50 - MAX_KEPT_BYTES // size, 50))


def test_nothing_may_be_kept() -> None:
    ring = Ring(0)
    ring.add(event(1))
    assert ids(ring) == []
