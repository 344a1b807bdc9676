"""The one thread that looks after all plugins: output, ends, budgets, and answers nobody awaits.

It waits on one epoll for everything that may arrive unasked, and sweeps over the plugins at a fixed
pace while any of them works. A protocol pipe is armed for one event at a time, so that a thread
that leads a call is not raced for every answer; the sweep arms it again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger("sandbox_host")

IDLE_SECONDS: Final = 0.05
"""Pace of the sweep while no plugin works: threads that a plugin left running are judged at it."""


class Kept(Protocol):
    """What the keeper looks after."""

    def steady_fds(self) -> Mapping[int, str]:
        """Return descriptors that are always watched, with the role `readable` gets."""

    def channel_fds(self) -> tuple[int, int]:
        """Return the read and the write end of the protocol pipes."""

    def readable(self, role: str) -> bool:
        """Read what is there; False if the descriptor is at its end."""

    def pump(self) -> None:
        """Read and write the protocol as far as possible now."""

    def tick(self, now: float) -> float:
        """Check budgets and deadlines; return in how many seconds to look again."""

    def broke_down(self, error: Exception) -> None:
        """A fault of the host's in one of the above: end the plugin, keep the others."""


class Keeper:
    """A thread, an epoll and a table.

    Args:
        sweep_seconds: pace of the sweep while a plugin works.
    """

    def __init__(self, sweep_seconds: float) -> None:
        self._sweep_seconds = sweep_seconds
        self._epoll = select.epoll()
        self._lock = threading.Lock()
        self._roles: dict[int, tuple[Kept, str]] = {}
        self._kept: dict[Kept, None] = {}
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._epoll.register(self._wake_read, select.EPOLLIN)
        self._stopping = False
        self._next_sweep = 0.0
        self._thread = threading.Thread(target=self._run, name="sandbox-host-keeper", daemon=True)
        self._thread.start()

    def adopt(self, kept: Kept) -> None:
        """Look after a plugin from now on."""
        receive, send = kept.channel_fds()
        with self._lock:
            self._kept[kept] = None
            for descriptor, role in kept.steady_fds().items():
                self._roles[descriptor] = (kept, role)
                self._epoll.register(descriptor, select.EPOLLIN)
            for descriptor in (receive, send):
                self._roles[descriptor] = (kept, "channel")
            self._epoll.register(receive, select.EPOLLIN | select.EPOLLONESHOT)
            self._epoll.register(send, select.EPOLLONESHOT)
        self.wake()

    def dismiss(self, kept: Kept) -> None:
        """Forget a plugin; its descriptors may be closed afterwards."""
        with self._lock:
            self._kept.pop(kept, None)
            for descriptor in [d for d, (k, _) in self._roles.items() if k is kept]:
                self._unregister(descriptor)

    def _unregister(self, descriptor: int) -> None:
        del self._roles[descriptor]
        self._epoll.unregister(descriptor)

    def watch(self, kept: Kept, *, for_room: bool) -> None:
        """Call `Kept.pump` once when something arrives, and when there is room to write."""
        with self._lock:
            if kept not in self._kept:
                return
            receive, send = kept.channel_fds()
            self._epoll.modify(receive, select.EPOLLIN | select.EPOLLONESHOT)
            if for_room:
                self._epoll.modify(send, select.EPOLLOUT | select.EPOLLONESHOT)

    def wake(self) -> None:
        """Sweep now."""
        with contextlib.suppress(BlockingIOError):  # then it is being woken already
            os.write(self._wake_write, b"x")

    def close(self) -> None:
        """End the thread."""
        self._stopping = True
        self.wake()
        self._thread.join()
        self._epoll.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _run(self) -> None:
        while not self._stopping:
            timeout = max(0.0, self._next_sweep - time.monotonic())
            for descriptor, _ in self._epoll.poll(timeout):
                self._serve(descriptor)
                self._sweep_if_due()  # also in between: many that talk must not hide one that hogs
            self._sweep_if_due()

    def _sweep_if_due(self) -> None:
        now = time.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + self._sweep(now)

    def _serve(self, descriptor: int) -> None:
        if descriptor == self._wake_read:
            os.read(self._wake_read, 4_096)
            self._next_sweep = 0.0
            return
        with self._lock:
            found = self._roles.get(descriptor)
        if found is None:
            return
        kept, role = found
        try:
            if role == "channel":
                kept.pump()
            elif not kept.readable(role):
                with self._lock:
                    # Meanwhile it may have been closed, and its number be another plugin's.
                    if self._roles.get(descriptor) == found:
                        self._unregister(descriptor)
        except Exception as error:  # noqa: BLE001 - see _fault
            self._fault(kept, error)

    def _sweep(self, now: float) -> float:
        with self._lock:
            all_kept = list(self._kept)
        pause = IDLE_SECONDS
        for kept in all_kept:
            try:
                pause = min(pause, kept.tick(now))
                self.watch(kept, for_room=False)
            except Exception as error:  # noqa: BLE001 - see _fault
                self._fault(kept, error)
        return max(pause, 0.001)

    def _fault(self, kept: Kept, error: Exception) -> None:
        # One plugin's fault must not end the thread that looks after all of them.
        _log.exception("the keeper met a fault of the host's")
        kept.broke_down(error)
