"""The one thread that looks after all plugins: output, ends, budgets, and answers nobody awaits.

It waits on one epoll for everything that may arrive unasked, and looks at each plugin when that
plugin says: often while it works, less often while it does not. One that was asked nothing and has
not run since it was looked at rests: of those only the CPU clocks are read, all in one loop, and
who has stirred is looked at.

Pipes are armed for one event at a time: that of the protocol, so that a thread that leads a call is
not raced for every answer, until the next look; that of the output until it was read, or for as
long as it is not to be read.

Without this thread nothing is bounded. A fault that meets one plugin ends that plugin, whatever
raises; a fault of the thread's own ends all of them, and nothing is looked after any more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from sandbox_host.errors import ConfinementError
from sandbox_host.model import Layer
from sandbox_host.runtime.rest import stirred

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sandbox_host.runtime.rest import Rest

_log = logging.getLogger("sandbox_host")

_LONGEST_SECONDS: Final = 0.05
"""Pause of the thread where no plugin asks for a shorter one."""

EXIT: Final = "exit"
"""The role of the descriptor that tells of a process's end."""

CHANNEL: Final = "channel"
"""The role of those of the protocol."""

_READ_ONCE: Final = select.EPOLLIN | select.EPOLLONESHOT

_DYING_SECONDS: Final = 2.0
_PAUSE_SECONDS: Final = 0.01
_SOONEST_SECONDS: Final = 0.001
_TOGETHER_SECONDS: Final = 0.002


class Kept(Protocol):
    """What the keeper looks after."""

    def steady_fds(self) -> Mapping[int, str]:
        """Return descriptors that are always watched, with the role `readable` gets."""

    def channel_fds(self) -> tuple[int, int]:
        """Return the read and the write end of the protocol pipes."""

    def readable(self, role: str) -> bool:
        """Read what is there; False if the descriptor is at its end."""

    def held(self, role: str, now: float) -> bool:
        """Tell whether this descriptor is not to be read for a while."""

    def pump(self) -> None:
        """Read and write the protocol as far as possible now."""

    def rests(self, now: float) -> Rest | None:
        """Return what shows that a `tick` would find nothing new; None where one might.

        Whatever changes that, and is not in there, is followed by `Keeper.wake`.
        """

    def tick(self, now: float) -> float:
        """Check budgets and deadlines; return in how many seconds to look again."""

    def broke_down(self, error: BaseException) -> None:
        """A fault of the host's in one of the above: end the plugin, keep the others."""

    def unwatched(self) -> None:
        """Nobody looks after it any more, after `broke_down`: let nobody wait for it."""


class Keeper:
    """A thread, an epoll and a table."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._lock = threading.Lock()
        self._roles: dict[int, tuple[Kept, str]] = {}
        self._due: dict[Kept, float] = {}
        self._resting: dict[Kept, Rest] = {}
        self._receives: dict[Kept, int] = {}
        self._armed: set[int] = set()
        self._held: dict[int, tuple[Kept, str]] = {}
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._epoll.register(self._wake_read, select.EPOLLIN)
        self._stopping = False
        self._fatal = ""
        self._faulty: set[Kept] = set()
        self._next_sweep = self._next_pulse = 0.0
        self._looked = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="sandbox-host-keeper", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Tell whether plugins are looked after.

        Raises:
            ConfinementError: they are not any more.
        """
        if self._fatal:
            text = (
                f"Nothing is bounded in this host any more: its watchdog ended ({self._fatal}), "
                "and every plugin with it."
            )
            remedy = "Make another host; does the application close descriptors not its own?"
            raise ConfinementError(text, layer=Layer.WATCHDOG, remedy=remedy)

    def works(self, within: float) -> bool:
        """Tell whether the thread looked at what was due less than so many seconds ago."""
        looked = time.monotonic() - self._looked
        return not self._fatal and self._thread.is_alive() and looked <= within

    def adopt(self, kept: Kept) -> None:
        """Look after a plugin from now on.

        Raises:
            ConfinementError: it cannot be looked after.
        """
        try:
            with self._lock:
                self.check()
                self._register(kept)
        except OSError as error:
            self.dismiss(kept)
            text = f"The watchdog cannot look after the plugin: {error}."
            raise ConfinementError(text, layer=Layer.WATCHDOG) from error
        self.wake(kept)

    def _register(self, kept: Kept) -> None:
        receive, send = kept.channel_fds()
        self._due[kept] = 0.0
        for descriptor, role in kept.steady_fds().items():
            self._roles[descriptor] = (kept, role)
            self._epoll.register(descriptor, _READ_ONCE)
        for descriptor in (receive, send):
            self._roles[descriptor] = (kept, CHANNEL)
        self._epoll.register(receive, _READ_ONCE)
        self._receives[kept] = receive
        self._armed.add(receive)
        self._epoll.register(send, select.EPOLLONESHOT)

    def dismiss(self, kept: Kept) -> None:
        """Forget a plugin; its descriptors may be closed afterwards."""
        with self._lock:
            self._due.pop(kept, None)
            self._resting.pop(kept, None)
            self._receives.pop(kept, None)
            self._faulty.discard(kept)
            for descriptor in [d for d, (k, _) in self._roles.items() if k is kept]:
                self._unregister(descriptor)

    def _unregister(self, descriptor: int) -> None:
        del self._roles[descriptor]
        self._armed.discard(descriptor)
        self._held.pop(descriptor, None)
        with contextlib.suppress(OSError):  # closed by somebody else, and forgotten with that
            self._epoll.unregister(descriptor)

    def watch(self, kept: Kept, *, for_room: bool) -> None:
        """Call `Kept.pump` once when something arrives, and when there is room to write."""
        try:
            self._arm(kept, for_room=for_room)
        except (OSError, ValueError):  # its caller is not to blame, and the sweep meets it too
            self.wake()

    def _arm(self, kept: Kept, *, for_room: bool) -> None:
        with self._lock:
            if kept not in self._due:
                return
            receive, send = kept.channel_fds()
            if receive not in self._armed:
                self._epoll.modify(receive, _READ_ONCE)
                self._armed.add(receive)
            if for_room:
                self._epoll.modify(send, select.EPOLLOUT | select.EPOLLONESHOT)

    def wake(self, kept: Kept | None = None) -> None:
        """Look at a plugin now, or at all of them."""
        with self._lock:
            for one in [kept] if kept is not None else list(self._due):
                if one in self._due:
                    self._due[one] = 0.0
        # Blocking: it is being woken already. Closed by the application: the next sweep is near.
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"x")

    def close(self) -> None:
        """End the thread."""
        self._stopping = True
        self.wake()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._epoll.close()
        for end in (self._wake_read, self._wake_write):
            with contextlib.suppress(OSError):
                os.close(end)

    def _run(self) -> None:
        fatal: BaseException | None = None
        try:
            self._look_after()
        except BaseException as error:  # noqa: BLE001 - whatever it is, nothing is bounded from now
            fatal = error
        if fatal is not None:
            self._end_all(fatal)

    def _look_after(self) -> None:
        while not self._stopping:
            timeout = max(0.0, self._next_sweep - time.monotonic())
            for descriptor, _ in self._epoll.poll(timeout):
                self._serve(descriptor)
                self._sweep_if_due()  # also in between: many that talk must not hide one that hogs
            self._sweep_if_due()

    def _end_all(self, error: BaseException) -> None:
        """Fail closed: this thread is at its end, so that every plugin must be, and is told so."""
        with self._lock:
            self._fatal = f"{type(error).__name__}: {error}".rstrip(": ")
            all_kept = list(self._due)
        _tell(f"the watchdog broke down ({self._fatal}): every plugin of this host is ended", error)
        for kept in all_kept:  # all are ended before one is given up
            _try(partial(kept.broke_down, error))
        for kept in all_kept:
            _try(kept.unwatched)
        until = time.monotonic() + _DYING_SECONDS
        while all_kept and time.monotonic() < until:
            # What has ended is put away; what cannot be looked at is left as it is.
            all_kept = [kept for kept in all_kept if _try(partial(kept.readable, EXIT))]
            time.sleep(_PAUSE_SECONDS)

    def _sweep_if_due(self) -> None:
        now = time.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + self._sweep(now)
            self._looked = time.monotonic()

    def _serve(self, descriptor: int) -> None:
        if descriptor == self._wake_read:
            os.read(self._wake_read, 4_096)
            self._next_sweep = 0.0
            return
        with self._lock:
            self._armed.discard(descriptor)
            found = self._roles.get(descriptor)
            if found is not None and self._resting.pop(found[0], None) is not None:
                self._due[found[0]] = 0.0  # it is armed again by a look
        if found is None:
            return
        kept, role = found
        try:
            if role == CHANNEL:
                kept.pump()
                return
            at_end = not kept.readable(role)
        except Exception as error:  # noqa: BLE001 - see _fault
            at_end = role != CHANNEL  # else what could not be read would be tried for ever
            self._fault(kept, error)
        with self._lock:
            # Meanwhile it may have been closed, and its number be another plugin's.
            if self._roles.get(descriptor) != found or role == CHANNEL:
                return
            if at_end:
                self._unregister(descriptor)
            elif kept.held(role, time.monotonic()):
                self._held[descriptor] = found
            else:
                self._epoll.modify(descriptor, _READ_ONCE)

    def _sweep(self, now: float) -> float:
        """Look at every plugin whose time has come; return in how many seconds the next one's is.

        What is called for each may itself ask to be looked at sooner, or be dismissed.
        """
        self._pulse_if_due(now)
        with self._lock:
            # Those that are due soon are taken along: from then on their times are the same.
            due = [kept for kept, at in self._due.items() if at <= now + _TOGETHER_SECONDS]
            self._due.update(dict.fromkeys(due, now + _LONGEST_SECONDS))
            for kept in due:
                self._resting.pop(kept, None)
        for kept in due:
            if self._lay_to_rest(kept, now):
                continue
            try:
                pause = kept.tick(now)
                self._arm(kept, for_room=False)
            except Exception as error:  # noqa: BLE001 - see _fault
                pause = _PAUSE_SECONDS
                self._fault(kept, error)
            with self._lock:
                # 0.0: it was woken meanwhile.
                if self._due.get(kept):
                    self._due[kept] = now + pause
        with self._lock:
            self._resume(now)
            first = min(self._due.values(), default=now + _LONGEST_SECONDS)
        return min(_LONGEST_SECONDS, max(_SOONEST_SECONDS, first - time.monotonic()))

    def _lay_to_rest(self, kept: Kept, now: float) -> bool:
        """Have only its clock read from now on, where that is enough; tell whether it is."""
        try:
            rest = kept.rests(now)
        except Exception:  # noqa: BLE001 - its tick meets that again, and tells of it
            return False
        with self._lock:
            # 0.0: it was woken meanwhile.
            if rest is None or self._receives.get(kept) not in self._armed or not self._due[kept]:
                return False
            self._resting[kept] = rest
            self._due[kept] = rest.until
        return True

    def _pulse_if_due(self, now: float) -> None:
        """Have those looked at now that rested, and have run or were asked something since.

        Of a thousand plugins nearly all are idle, and this is all that they cost.
        """
        if now < self._next_pulse - _TOGETHER_SECONDS:
            return
        self._next_pulse = now + _LONGEST_SECONDS
        with self._lock:
            resting = list(self._resting.items())
        found = stirred(resting)
        with self._lock:
            for kept in found:
                if self._resting.pop(kept, None) is not None:
                    self._due[kept] = 0.0

    def _resume(self, now: float) -> None:
        """Read what was held back, where its time has come."""
        for descriptor, (kept, role) in list(self._held.items()):
            if not kept.held(role, now):
                del self._held[descriptor]
                self._epoll.modify(descriptor, _READ_ONCE)

    def _fault(self, kept: Kept, error: Exception) -> None:
        # One plugin's fault must not end the thread that looks after all of them.
        told = kept in self._faulty  # what is broken is met again at every look
        if not told:
            _tell("the keeper met a fault of the host's", error)
        with self._lock:
            if kept in self._due:
                self._faulty.add(kept)
        try:
            kept.broke_down(error)
        except Exception as another:  # noqa: BLE001 - as above
            if not told:
                _tell("a plugin could not be ended after a fault of the host's", another)


def _tell(what: str, error: BaseException) -> None:
    """Log it, even where the application's handlers fail."""
    with contextlib.suppress(Exception):
        _log.error(what, exc_info=error)


def _try(step: Callable[[], object]) -> bool:
    """Take a step that must not keep others from theirs; tell whether it returned a true value."""
    try:
        return bool(step())
    except BaseException as error:  # noqa: BLE001 - as above
        _tell("a plugin could not be put away", error)
        return False
