"""Blank children, forked in advance: each waits, as trusted as its nursery, for one assignment.

A blank child has been told nothing: no plugin, no path of one, no secret. It is locked down when it
gets its plan, as one that was just forked would be, and attested the same way. One thread keeps
their number, and notices when one has ended: it is put away and replaced, never handed out.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from sandbox_host.errors import ConfinementError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox_host.backends.linux.nursery import Nursery
    from sandbox_host.backends.linux.preparation import Preparation
    from sandbox_host.backends.linux.process import LinuxChild

_log = logging.getLogger("sandbox_host")

_DYING_SECONDS: Final = 2.0
_AGAIN_SECONDS: Final = 1.0
"""After a refusal: what the machine is short of will not be there sooner."""


class Blank:
    """A child without an assignment.

    Attributes:
        child: the process.
        nursery: that forked it.
        preparation: what it has done, or None.
    """

    __slots__ = ("child", "nursery", "preparation")

    def __init__(
        self, child: LinuxChild, nursery: Nursery, preparation: Preparation | None
    ) -> None:
        self.child = child
        self.nursery = nursery
        self.preparation = preparation

    def lives(self) -> bool:
        """Tell whether the process has not ended."""
        poller = select.poll()
        poller.register(self.child.pidfd, select.POLLIN)
        return not poller.poll(0)

    def put_away(self) -> None:
        """End it, and give back what was taken for it."""
        self.child.kill()
        self.child.wait(_DYING_SECONDS)
        self.child.close()


class Pool:
    """So many blank children, for one host. Thread-safe.

    Args:
        size: how many; the most there ever are.
        make: forks one.

    Attributes:
        fault: why there are fewer, since the last that was made; or None.
    """

    def __init__(self, size: int, make: Callable[[], Blank]) -> None:
        self._size = size
        self._make = make
        self._lock = threading.Lock()
        self._waiting: deque[Blank] = deque()
        self._closed = False
        self.fault: ConfinementError | None = None
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="sandbox-host-pool", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many there are now."""
        return len(self._waiting)

    def take(self) -> Blank | None:
        """Return one that lives, to be used at once, or None."""
        dead: list[Blank] = []
        found: Blank | None = None
        with self._lock:
            while self._waiting and found is None:
                blank = self._waiting.popleft()
                if blank.lives():
                    found = blank
                else:
                    dead.append(blank)
        for blank in dead:
            blank.put_away()
        self._wake()
        return found

    def close(self) -> None:
        """End them all, and the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._wake()
        self._thread.join()
        self._discard(lambda _: True)
        for end in (self._wake_read, self._wake_write):
            with contextlib.suppress(OSError):
                os.close(end)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"x")

    def _run(self) -> None:
        while not self._closed:
            self._discard(lambda blank: not blank.lives())
            self._fill()
            self._await_change()

    def _fill(self) -> None:
        while not self._closed and len(self._waiting) < self._size:
            try:
                blank = self._make()
            except ConfinementError as error:
                if self.fault is None or str(self.fault) != str(error):
                    _log.warning("no blank process for the pool: %s", error)
                self.fault = error
                return
            except Exception:  # noqa: BLE001 - the pool is a help; starts go on without it
                _log.exception("no blank process for the pool")
                self._size = 0
                return
            self.fault = None
            with self._lock:
                self._waiting.append(blank)

    def _await_change(self) -> None:
        """Wait until one was taken, or has ended; where there are too few, a while at most."""
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        with self._lock:
            for blank in self._waiting:
                poller.register(blank.child.pidfd, select.POLLIN)
        poller.poll(None if self.fault is None else _AGAIN_SECONDS * 1_000)
        with contextlib.suppress(OSError):
            os.read(self._wake_read, 4_096)

    def _discard(self, unfit: Callable[[Blank], bool]) -> None:
        with self._lock:
            gone = [blank for blank in self._waiting if unfit(blank)]
            for blank in gone:
                self._waiting.remove(blank)
        for blank in gone:
            try:
                blank.put_away()
            except Exception:  # noqa: BLE001 - one more that is left does not end the thread
                _log.exception("a blank process could not be put away")
