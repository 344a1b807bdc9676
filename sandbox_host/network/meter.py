"""Counts the bytes of all connections that were handed over, for all plugins of this process.

One thread looks at each open connection twice a second, and is told by the kernel of each that
ends, with its final count: what was short is counted as well. Where the kernel's word is lost, the
last look at a connection stands for its end.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sandbox_host.network import diag
from sandbox_host.network.diag import Passed

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_SECONDS: Final = 0.5
"""Pace of the looks at connections that are open."""

_UNTOLD_LOOKS: Final = 4
"""So often a connection is looked for that has ended, before nobody waits for its final count."""

_MAX_PACKET: Final = 32_768


@dataclass(slots=True)
class Open:
    """A connection that is not known to have ended.

    Attributes:
        passed: through it, at the last look.
        missed: how many looks did not find it.
    """

    account: Account
    identity: diag.Identity
    passed: Passed = field(default_factory=Passed)
    missed: int = 0


class Account:
    """What has passed through one plugin's connections. Methods may be called from any thread.

    Args:
        meter: whose it is.
        on_passed: is told, in the meter's thread, whenever more has passed.
        on_fault: takes a fault of the host's, after which nothing is counted any more.
    """

    def __init__(
        self,
        meter: Meter,
        on_passed: Callable[[Passed], None],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self._meter = meter
        self._on_passed = on_passed
        self.on_fault = on_fault
        self.settled = Passed()
        self.open: dict[int, Open] = {}
        self.closed = False

    @property
    def known(self) -> Passed:
        """What had passed at the last look. Under the meter's lock."""
        return sum((one.passed for one in self.open.values()), self.settled)

    def add(self, connection: socket.socket) -> None:
        """Count what passes through a connection from now on; call it before handing over."""
        self._meter.add(self, connection)

    def passed(self) -> Passed:
        """Return what has passed until now, of connections that have ended too."""
        return self._meter.passed(self)

    def tell(self, passed: Passed) -> None:
        """Tell whose it is; what fails there is a fault of its own, and of no other."""
        try:
            self._on_passed(passed)
        except Exception as error:  # noqa: BLE001 - as it says
            self.on_fault(error)

    def close(self) -> None:
        """Count what is open to its end, and nothing else."""
        self._meter.leave(self)


class Meter:
    """A thread, two netlink sockets and a table. `open_account` makes one where there is none."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._asker = diag.Asker()
        self._ended: socket.socket | None = None
        with contextlib.suppress(OSError):  # then the last look at a connection is what is known
            self._ended = diag.listen()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self._open: dict[int, Open] = {}
        self._accounts: set[Account] = set()
        self._thread = threading.Thread(target=self._run, name="sandbox-host-meter", daemon=True)
        self._thread.start()

    def take(self, account: Account) -> None:
        """Count for one more."""
        with self._lock:
            self._accounts.add(account)

    def add(self, account: Account, connection: socket.socket) -> None:
        """See `Account.add`."""
        identity = diag.identify(connection)
        with self._lock:
            one = Open(account, identity)
            self._open[identity.cookie] = account.open[identity.cookie] = one
            if self._ended is not None:
                diag.attend(self._ended, self._open)
            if len(self._open) == 1:
                self._wake_up()

    def passed(self, account: Account) -> Passed:
        """See `Account.passed`."""
        with self._lock:
            for one in account.open.values():
                self._look_at(one)
            return account.known

    def leave(self, account: Account) -> None:
        """See `Account.close`."""
        with self._lock:
            account.closed = True
            self._wake_up()

    def _wake_up(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._is_wanted():
                self._wait()
                self._look()
        except Exception as error:  # noqa: BLE001 - whatever it is, it must be known
            self._put_away()
            for account in self._accounts:
                account.on_fault(error)
        else:
            self._put_away()

    def _is_wanted(self) -> bool:
        """Tell whether anybody has an account; the last one's leaving ends the thread."""
        with _opening, self._lock:
            self._accounts -= {one for one in self._accounts if one.closed and not one.open}
            if not self._accounts:
                _forget(self)
            return bool(self._accounts)

    def _wait(self) -> None:
        """Take the final counts of connections that end, until the next look or the first add."""
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        if self._ended is not None:
            poller.register(self._ended, select.POLLIN)
        with self._lock:
            until = time.monotonic() + (LOOK_SECONDS if self._open else math.inf)
        while (left := until - time.monotonic()) > 0:
            ready = dict(poller.poll(None if left == math.inf else left * 1_000))
            if self._wake in ready:
                os.eventfd_read(self._wake)
                return
            if self._ended is not None and ready:
                self._hear(self._ended)

    def _hear(self, ended: socket.socket) -> None:
        try:
            packet = ended.recv(_MAX_PACKET)
        except OSError:  # ENOBUFS: some were missed, see _look
            return
        for cookie, passed in diag.parse(packet):
            self._settle(cookie, passed)

    def _settle(self, cookie: int, passed: Passed | None) -> None:
        """Count a connection to its end; None stands for what was seen at the last look."""
        with self._lock:
            one = self._open.pop(cookie, None)
            if one is None:
                return  # not one of ours
            account = one.account
            del account.open[cookie]
            account.settled += one.passed if passed is None else passed
            known = account.known
        account.tell(known)

    def _look(self) -> None:
        """Look at each open connection; give up those that have ended without a word."""
        for cookie in list(self._open):
            with self._lock:
                one = self._open.get(cookie)
                if one is None:
                    continue
                found, moved = self._look_at(one)
                # Of a plugin that is gone, what is still on its way out is not waited for long.
                one.missed += not found or one.account.closed
                known = one.account.known
            if moved:
                one.account.tell(known)
            if one.missed >= _UNTOLD_LOOKS:
                self._settle(cookie, None)

    def _look_at(self, one: Open) -> tuple[bool, bool]:
        """Look at one connection; tell whether it is there, and whether more has passed."""
        try:
            passed = self._asker.passed(one.identity)
        except OSError:
            return False, False
        if passed is None:
            return False, False
        moved, one.passed = passed != one.passed, passed
        return True, moved

    def _put_away(self) -> None:
        with _opening:
            _forget(self)
        with self._lock:
            self._asker.close()
            if self._ended is not None:
                self._ended.close()
            os.close(self._wake)
            self._wake = -1


_opening = threading.Lock()
_shared: Meter | None = None
"""One for all hosts of the process: the kernel tells of an end once for each who listens."""


def is_available() -> bool:
    """Tell whether the kernel tells what passes through connections."""
    try:
        diag.Asker().close()
    except OSError:
        return False
    return True


def open_account(
    on_passed: Callable[[Passed], None], on_fault: Callable[[BaseException], None]
) -> Account:
    """Return a new account with the one meter of this process; arguments as for `Account`.

    Raises:
        OSError: the kernel does not tell what passes through connections.
    """
    global _shared
    with _opening:
        if _shared is None or _shared.pid != os.getpid():
            _shared = Meter()
        made = Account(_shared, on_passed, on_fault)
        _shared.take(made)
        return made


def _forget(meter: Meter) -> None:
    global _shared
    if _shared is meter:
        _shared = None
