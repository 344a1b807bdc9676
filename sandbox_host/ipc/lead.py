"""Who reads a channel: at most one thread at a time, and nobody any more once it is closed.

No lock: one that KeyboardInterrupt threw out of between taking and remembering it would be held for
ever. `dict.setdefault` is atomic, and a thread that was thrown out finds itself in it again.
"""

from __future__ import annotations

import threading
import time
from typing import Final

_SLOT: Final = "thread"
_NOBODY_ANY_MORE: Final = -1  # no thread has this ident
_PAUSE_SECONDS: Final = 0.001


class Lead:
    """The right to read, by thread ident. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._holder: dict[str, int] = {}

    def take(self) -> bool:
        """Become the leader; False if somebody else is, or it has ended."""
        me = threading.get_ident()
        return self._holder.setdefault(_SLOT, me) == me

    @property
    def mine(self) -> bool:
        """The calling thread leads."""
        return self._holder.get(_SLOT) == threading.get_ident()

    def leave(self) -> bool:
        """Let go of it; False if it was not ours."""
        if self._holder.get(_SLOT) != threading.get_ident():
            return False
        self._holder.clear()
        return True

    def end(self, timeout: float) -> bool:
        """Let nobody lead any more, waiting for who leads now.

        Args:
            timeout: seconds to wait.

        Returns:
            False if whoever leads did not leave.
        """
        until = time.monotonic() + timeout
        ours = {_NOBODY_ANY_MORE, threading.get_ident()}
        while self._holder.setdefault(_SLOT, _NOBODY_ANY_MORE) not in ours:
            if time.monotonic() > until:
                return False
            time.sleep(_PAUSE_SECONDS)
        self._holder[_SLOT] = _NOBODY_ANY_MORE
        return True
