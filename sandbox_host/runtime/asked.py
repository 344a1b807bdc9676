"""One thing that a plugin has asked the host for, from its asking to its answer."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Asked:
    """What was asked for. Thread-safe.

    Args:
        number: the wire's.
        service: its name, as it was asked for.
        payload: the arguments, packed; hostile.
        deadline_ns: reading of the monotonic clock until when the plugin waits, by its own word; 0
            where it does not say.
    """

    __slots__ = (
        "_lock",
        "_on_withdrawn",
        "deadline_ns",
        "number",
        "payload",
        "service",
        "withdrawn",
    )

    def __init__(self, number: int, service: str, payload: bytes, deadline_ns: int = 0) -> None:
        self.number = number
        self.service = service
        self.payload = payload
        self.deadline_ns = deadline_ns
        self.withdrawn = False
        self._lock = threading.Lock()
        self._on_withdrawn: Callable[[], object] | None = None

    def seconds_left(self, most: float) -> float:
        """Return how long the plugin still waits: at most so long, and 0.0 if no more."""
        if not self.deadline_ns:
            return most
        return max(0.0, min(most, self.deadline_ns / 1e9 - time.monotonic()))

    def is_wanted(self) -> bool:
        """Tell whether the plugin still waits for it."""
        return not self.withdrawn and (
            not self.deadline_ns or self.deadline_ns > time.monotonic_ns()
        )

    def withdraw(self) -> None:
        """The plugin waits for it no more: have what is done for it end."""
        with self._lock:
            self.withdrawn = True
            on_withdrawn = self._on_withdrawn
        if on_withdrawn is not None:
            on_withdrawn()

    def on_withdrawn(self, function: Callable[[], object]) -> None:
        """Call a function, once, when it is withdrawn, or now; from any thread."""
        with self._lock:
            self._on_withdrawn = function
            withdrawn = self.withdrawn
        if withdrawn:
            function()
