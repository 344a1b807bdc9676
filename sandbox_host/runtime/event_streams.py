"""The two faces of a subscription: for ``async for``, and for ``for``."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final, Self

from sandbox_host.broker.durable import DurableEvent
from sandbox_host.broker.publication import COMMIT_SECONDS, finish
from sandbox_host.errors import UsageError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from sandbox_host.broker.durable import DurableSubscription
    from sandbox_host.broker.policies import SubscriptionInfo
    from sandbox_host.broker.publication import Publication
    from sandbox_host.broker.queues import Subscription
    from sandbox_host.model import Event

_AT_ONCE: Final = 32
"""So many events are taken in a row, before others on the event loop have their turn."""


class _Stream:
    """What both faces have."""

    def __init__(self, subscription: Subscription | DurableSubscription) -> None:
        self._subscription = subscription

    @property
    def dropped(self) -> int:
        """How many events were dropped because nobody read them."""
        return self._subscription.dropped

    @property
    def info(self) -> SubscriptionInfo:
        """The counters of this subscription."""
        return self._subscription.info()

    def ack(self, event: Event) -> None:
        """Acknowledge an event of a durable subscription; the same as ``event.ack()``.

        Raises:
            UsageError: it is no event of a durable subscription.
        """
        if not isinstance(event, DurableEvent):
            text = "Only events of a durable subscription are acknowledged."
            raise UsageError(text, remedy='Say subscribe(…, durable="a_name").')
        event.ack()


class EventStream(_Stream):
    """Events, for ``async for``. Bounded; see `SandboxHost.subscribe` for what happens beyond."""

    def __init__(self, subscription: Subscription | DurableSubscription) -> None:
        super().__init__(subscription)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._woken = False
        self._taken = 0
        subscription.on_change(self._wake)

    def _wake(self) -> None:
        # One wake is on its way until it has been answered, however many events come meanwhile.
        if self._loop is None or self._woken:
            return
        self._woken = True
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._changed.set)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        self._loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            self._woken = False
            if (event := self._subscription.take()) is not None:
                self._taken += 1
                if self._taken % _AT_ONCE == 0:
                    await asyncio.sleep(0)  # a flood must not keep the loop to itself
                return event
            if self._subscription.closed:
                raise StopAsyncIteration
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), self._subscription.pause())

    async def aclose(self) -> None:
        """End it."""
        self._subscription.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class BlockingEvents(_Stream):
    """Events, for ``for``. Bounded; see `SandboxHost.subscribe` for what happens beyond."""

    def get(self, timeout: float | None = None) -> Event | None:
        """Return the next event; None at the timeout (seconds), or when it was closed.

        Raises:
            SubscriberTooSlowError: the host closed it because of that.
            EventStoreError: a durable event cannot be read.
        """
        return self._subscription.wait(timeout)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        event = self._subscription.wait(None)
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        """End it."""
        self._subscription.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def settle(publication: Publication) -> None:
    """Wait as `Publication.wait` does, and leave the event loop to others meanwhile.

    Raises:
        EventStoreError: it was not written down, or not in time; who reads along may have it.
    """
    for subscription, held in publication.held:
        if not await _done(held.settled, held.until - time.monotonic()):
            subscription.expire()
    if publication.stored is not None:
        await _done(publication.stored, COMMIT_SECONDS)
        finish(publication.stored, 0)


async def _done(future: Future[bool] | Future[None], seconds: float) -> bool:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()

    def tell(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(told.set)

    future.add_done_callback(tell)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(told.wait(), max(0.0, seconds))
    return future.done()
