"""What becomes of one published event, for a publisher that waits for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.errors import EventStoreError
from sandbox_host.model import Event

if TYPE_CHECKING:
    from concurrent.futures import Future

    from sandbox_host.broker.packed import PackedEvent
    from sandbox_host.broker.queues import Held, Subscription

COMMIT_SECONDS: Final = 30.0
"""So long is waited for a commit."""


class Publication:
    """An event that was handed out.

    Attributes:
        event: as the host stamped it.
        stored: is done when all durable subscriptions that want it have it on the disk, or raises
            why not; None where none wants it.
        held: where it waits for room in a queue, and until when: of subscribers that block.
    """

    __slots__ = ("event", "held", "stored")

    def __init__(self, event: PackedEvent, stored: Future[None] | None) -> None:
        self.event = event
        self.stored = stored
        self.held: list[tuple[Subscription, Held]] = []

    @property
    def settled(self) -> bool:
        """There is nothing to wait for."""
        return self.stored is None and not self.held

    def wait(self) -> None:
        """Wait until subscribers that block have room or have had their time, and the disk has it.

        Raises:
            EventStoreError: it was not written down, or not in time; who reads along may have it.
        """
        for subscription, held in self.held:
            try:
                held.settled.result(max(0.0, held.until - time.monotonic()))
            except TimeoutError:
                subscription.expire()
        if self.stored is not None:
            finish(self.stored)

    def told(self, data: Any) -> Event:
        """Return the event as its publisher gets it, with the data that it gave."""
        event = self.event
        return Event(event.type, data, event.timestamp, event.source, event.id)


def finish(done: Future[None], timeout: float = COMMIT_SECONDS) -> None:
    """Wait for a commit.

    Raises:
        EventStoreError: it failed, or took too long.
    """
    try:
        done.result(timeout)
    except TimeoutError:
        text = f"The store of durable events has not answered for {COMMIT_SECONDS:g} s."
        raise EventStoreError(text, remedy="Look at the disk of the state directory.") from None
