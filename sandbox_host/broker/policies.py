"""What happens when a subscriber does not keep up, and the counters that tell of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sandbox_host.errors import UsageError

MAX_QUEUE: Final = 65_536
"""Events that may wait for one subscriber, whatever it asks for."""

MAX_BLOCK_SECONDS: Final = 60.0
"""The longest that a subscriber may hold a publisher of the application's."""


class Policy(StrEnum):
    """What is done with an event for a subscriber whose queue is full.

    Attributes:
        BLOCK: it waits for room until the deadline, and so does its publisher, if that is the
            application; then it is dropped for this subscriber.
        DROP_OLDEST: what has waited longest is dropped instead.
        DROP_NEWEST: it is dropped.
        DISCONNECT: it is dropped, and the subscription closed with `SubscriberTooSlowError`.
    """

    BLOCK = "block"
    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"
    DISCONNECT = "disconnect"

    @classmethod
    def of(cls, name: str) -> Policy:
        """Return the policy of that name.

        Raises:
            UsageError: there is none.
        """
        try:
            return cls(name)
        except ValueError:
            choices = ", ".join(f'"{policy}"' for policy in cls)
            text = f"{name!r:.100} is no policy for a slow subscriber; expected {choices}."
            raise UsageError(text) from None


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may wait for a subscriber in memory, and what happens beyond.

    Attributes:
        limit: events that may wait.
        policy: see `Policy`.
        deadline: seconds, for `Policy.BLOCK` alone.

    Raises:
        UsageError: a value is out of range.
    """

    limit: int
    policy: Policy = Policy.DROP_OLDEST
    deadline: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MAX_QUEUE:
            text = f"The queue of a subscription holds 1 to {MAX_QUEUE} events, not {self.limit!r}."
            raise UsageError(text)
        if self.policy is Policy.BLOCK:
            if not 0 < self.deadline <= MAX_BLOCK_SECONDS:
                text = f'The policy "block" needs a deadline of up to {MAX_BLOCK_SECONDS:g} s.'
                raise UsageError(text, remedy='Say subscribe(…, policy="block", deadline=0.5).')
        elif self.deadline:
            text = f'A deadline belongs to the policy "block", not to "{self.policy}".'
            raise UsageError(text)


@dataclass(frozen=True, slots=True)
class SubscriptionInfo:
    """What one subscriber has got, and has not.

    Attributes:
        subscriber: identity of a plugin, name of a durable subscription, or "application".
        kind: "plugin", "durable" or "stream".
        types: types and patterns that it wants; empty means all.
        policy: see `Policy`; of a durable subscription "refuse": the publisher is told.
        limit: events that may wait.
        delivered: events that it took; of a durable subscription, in this host, redelivered ones
            each time.
        dropped: events that it wanted and never gets; of a durable one always 0.
        waiting: events that it has not taken; of a durable one, that it has not acknowledged.
        waiting_bytes: of their data, packed.
        refused: events that were not published because this durable subscription was full.
        reading: somebody reads it; of a durable one False where it waits for its reader.
    """

    subscriber: str
    kind: str
    types: tuple[str, ...]
    policy: str
    limit: int
    delivered: int
    dropped: int
    waiting: int
    waiting_bytes: int
    refused: int = 0
    reading: bool = True
