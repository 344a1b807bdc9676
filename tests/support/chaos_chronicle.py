"""What the chaos driver did, what came of it, and whether that may be."""

from __future__ import annotations

import collections
import threading
import time
import traceback
from typing import Any

from sandbox_host.errors import SandboxHostError
from tests.support.chaos_acts import Act

_SHOWN = 40


class FailedError(AssertionError):
    """Something came out that must not; the text has the seed, and what went before."""


class Chronicle:
    """What was done, and what came of it. From any thread."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._last: collections.deque[str] = collections.deque(maxlen=_SHOWN)
        self._now: dict[str, tuple[Act, float]] = {}
        self.outcomes: dict[str, collections.Counter[str]] = {}
        self.answers: list[float] = []
        self.failures: list[str] = []

    def begin(self, actor: str, act: Act) -> float:
        """An act begins; return when."""
        now = time.monotonic()
        with self._lock:
            self._now[actor] = (act, now)
        return now

    def end(self, actor: str, act: Act, began: float, value: Any, error: Exception | None) -> None:
        """An act has ended, with a value or with an error."""
        took = time.monotonic() - began
        outcome = "answer" if error is None else getattr(error, "code", type(error).__name__)
        fault = _fault(act, value, error, took)
        with self._lock:
            del self._now[actor]
            self.outcomes.setdefault(act.kind, collections.Counter())[outcome] += 1
            if act.kind == "add" and error is None:
                self.answers.append(took)
            at = began - self._start
            told = "" if error is None else f": {str(error)[:200]}"
            what = f"{at:8.3f} {actor} {act.kind} {act.text[:80]}"
            self._last.append(f"{what} -> {outcome} after {took:.3f} s{told}")
        if fault:
            self.fail(f"{actor} {act.kind} {act.text[:120]}: {fault}")

    def fail(self, what: str) -> None:
        """Something must not be."""
        with self._lock:
            self.failures.append(f"{time.monotonic() - self._start:8.3f} {what}")

    def waiting(self) -> list[str]:
        """Return what has not ended."""
        now = time.monotonic()
        with self._lock:
            return [
                f"{actor} {act.kind} {act.text[:80]} for {now - began:.1f} s"
                for actor, (act, began) in self._now.items()
            ]

    def check(self) -> None:
        """Raise what went wrong.

        Raises:
            FailedError: something did.
        """
        if self.failures:
            raise FailedError(self.text())

    def text(self) -> str:
        """Return everything that helps to find out why."""
        parts = [
            f"seed {self._seed}: {len(self.failures)} failures",
            *self.failures[:10],
            "-- not over:",
            *self.waiting(),
            "-- the last acts:",
            *self._last,
        ]
        return "\n".join(parts)


def _fault(act: Act, value: Any, error: Exception | None, took: float) -> str:
    """Return what is wrong with an outcome; "" for nothing."""
    if took > act.seconds:
        return f"over after {took:.2f} s, and not within {act.seconds:.2f} s"
    if error is None:
        return "" if act.right(value) else f"the wrong answer: {value!r:.200}"
    if isinstance(error, SandboxHostError) and (error.code in act.codes or act.excused(error)):
        return ""
    lines = "".join(traceback.format_exception(error))[-3_000:]
    return f"an error that it must not end with: {lines}"
