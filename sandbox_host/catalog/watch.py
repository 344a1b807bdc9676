"""Watches a plugin directory, and says what was added, changed, removed, enabled and disabled.

    watch = PluginWatch(directory, Judging(config))
    for change in watch.look():   # what is there at the start
        ...
    for change in watch:          # and from then on, until close()
        ...

A scan of all names at an interval is what finds everything: lost notices, network file systems, a
directory that takes another's name. The kernel's notices (`notices`) only say what to look at
sooner. What changed has to come to rest (`settling`), is then judged (`judging`), and what that
means is `roster`'s to say. All of this together takes a bounded share of one processor, whatever
happens in the directory: a step that took long is followed by a longer pause.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self

from sandbox_host.catalog.discover import DiscoveredState, names_in, open_plugins
from sandbox_host.catalog.fingerprint import Mark, is_tools_own, mark_of
from sandbox_host.catalog.notices import Notices
from sandbox_host.catalog.roster import Change, ChangeKind, Judged, Roster
from sandbox_host.catalog.settling import Restless, Settled, Settling
from sandbox_host.errors import ConfigError, SandboxHostError
from sandbox_host.reading import escaped, shown_seconds

if TYPE_CHECKING:
    from collections.abc import Collection

_log = logging.getLogger("sandbox_host")

MAX_LOOKED_AT_ONCE: Final = 100_000
"""Names in plugins that one scan looks at; the next goes on where it stopped."""

_JUDGING_SECONDS: Final = 0.25
"""Of one step; what is left is judged in the next, so that a step has an end."""

_JOIN_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How often is looked.

    Attributes:
        quiet: seconds without a change after which a plugin is at rest.
        tick: seconds between two looks at what is not.
        scan: seconds between two scans of everything.
        share: of one processor that all of it may take, at most.
        patience: seconds of change after which that is told.
    """

    quiet: float = 0.5
    tick: float = 0.1
    scan: float = 1.0
    share: float = 0.1
    patience: float = 30.0


class Judge(Protocol):
    """Whoever says what a path in the plugin directory is; `judging.Judging` is one."""

    @property
    def switched_off(self) -> Collection[str]:
        """Identities that the operator disabled."""

    def renew(self) -> bool:
        """Say whether verdicts may be others than before though no plugin was touched."""

    def __call__(self, path: Path) -> Judged:
        """Return the verdict; a SandboxHostError is no plugin's fault."""


class PluginWatch:
    """A watch over one plugin directory. Iterated or started, by one thread at a time.

    Args:
        directory: the plugin directory.
        judge: what says what a plugin is.
        pace: how often is looked.
        notices: listen to the kernel as well.
        clock: monotonic seconds.
        cost: seconds of processor time of this thread.
    """

    def __init__(
        self,
        directory: Path,
        judge: Judge,
        *,
        pace: Pace | None = None,
        notices: bool = True,
        clock: Callable[[], float] = time.monotonic,
        cost: Callable[[], float] = time.thread_time,
    ) -> None:
        self._directory = directory
        self._judge = judge
        self._pace = pace or Pace()
        self._clock = clock
        self._cost = cost
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._notices = Notices(directory, self._wake.set, clock) if notices else None
        self._settling = Settling(self._pace.quiet, self._pace.patience)
        self._roster = Roster()
        self._due: dict[str, Mark | None] = {}
        self._begun = False
        self._troubles: dict[str, str] = {}
        self._next_scan = self._not_before = clock()
        self._after = ""
        self._thread: threading.Thread | None = None

    @property
    def present(self) -> Mapping[str, Judged]:
        """The verified plugins that are known, by identity; enabled or not."""
        return dict(self._roster.present)

    @property
    def polling(self) -> bool:
        """Whether the kernel's notices are missing, and scans alone see what happens."""
        return self._notices is None or not self._notices.listening

    # -- one step ---------------------------------------------------------------------------

    def look(self) -> tuple[Change, ...]:
        """Look at everything now, and return what has changed since the last look.

        The first time everything is taken as it is, without waiting for it to be at rest: a half
        copied plugin does not verify, and is told as refused until it is complete.
        """
        return self._step(everything=True)

    def step(self) -> tuple[Change, ...]:
        """Do what is due now, which may be nothing; return what has changed."""
        return self._step(everything=False)

    def _step(self, *, everything: bool) -> tuple[Change, ...]:
        now, before = self._clock(), self._cost()
        changes: list[Change] = []
        scanning = everything or not self._begun or now >= self._next_scan
        scanned = self._observe(now, changes, scanning=scanning)
        changes += self._judged(limit=None if everything or not self._begun else before)
        self._begun = self._begun or scanned
        spent = self._cost() - before
        self._not_before = now + max(self._pace.tick, spent / self._pace.share)
        if scanning:
            self._next_scan = now + max(self._pace.scan, spent / self._pace.share)
        return tuple(changes)

    def _observe(self, now: float, changes: list[Change], *, scanning: bool) -> bool:
        """See what is in the directory; return whether all of it was seen."""
        try:
            directory_fd = open_plugins(self._directory)
        except ConfigError as error:
            # Nothing is taken for removed because its directory cannot be read for a while.
            changes += self._trouble("directory", str(error))
            return False
        try:
            changes += self._tend(directory_fd)
            hints = self._notices.take() if self._notices else set()
            if scanning or hints is None:
                self._scan(directory_fd, now, changes)
                changes += self._trouble("directory", "")
            else:
                names = {*hints, *self._settling.wanted(now)}
                self._see_all(directory_fd, sorted(names), now, changes)
        except (ConfigError, OSError) as error:
            changes += self._trouble("directory", f"{self._directory} is not watched: {error}")
            return False
        finally:
            os.close(directory_fd)
        return True

    def _tend(self, directory_fd: int) -> list[Change]:
        if self._notices is None:
            return []
        status = os.fstat(directory_fd)
        why = self._notices.tend((status.st_dev, status.st_ino))
        if why:
            every = shown_seconds(self._pace.scan)
            why = f"{self._directory} is looked at every {every} instead, because {why}"
        return self._trouble("notices", why)

    def _scan(self, directory_fd: int, now: float, changes: list[Change]) -> None:
        """Look at all names, or at as many as one scan may, and at the rest the next time."""
        names = names_in(directory_fd, self._directory)
        there = set(names)
        gone = [name for name in self._settling.names if name not in there]
        for name in sorted(gone):
            self._see(name, None, now, changes)
        start = next((i for i, name in enumerate(names) if name > self._after), 0)
        rotated = names[start:] + names[:start]
        stopped = self._see_all(directory_fd, rotated, now, changes)
        self._after = stopped

    def _see_all(
        self, directory_fd: int, names: Iterable[str], now: float, changes: list[Change]
    ) -> str:
        """See these names; return the last one where there were too many, and "" otherwise."""
        looked = 0
        for name in names:
            if is_tools_own(name):
                continue
            mark, more = mark_of(directory_fd, name)
            looked += more
            self._see(name, mark, now, changes)
            if looked >= MAX_LOOKED_AT_ONCE:
                return name
        return ""

    def _see(self, name: str, mark: Mark | None, now: float, changes: list[Change]) -> None:
        outcome: Settled | Restless | None
        if self._begun or mark is None:
            outcome = self._settling.see(name, mark, now)
        else:
            outcome = self._settling.take(name, mark, now)
        if isinstance(outcome, Settled):
            self._due[name] = outcome.mark
        elif isinstance(outcome, Restless):
            since = shown_seconds(round(outcome.seconds))
            reason = f"it has been changing for {since}, and is not loaded before it is at rest"
            path = self._directory / name
            changes.append(Change(kind=ChangeKind.RESTLESS, path=path, reason=reason))

    # -- verdicts ---------------------------------------------------------------------------

    def _judged(self, limit: float | None) -> list[Change]:
        """Judge what is due, for a while; return what that changes.

        Args:
            limit: what `cost` said when the step began; None for no limit.
        """
        verdicts: dict[str, Judged | None] = {}
        fault = ""
        try:
            if self._judge.renew():
                self._due = {**self._at_rest(), **self._due}
            while self._due and not self._is_late(limit, verdicts):
                name = next(iter(self._due))
                verdicts[name] = self._verdict(name, self._due[name])
                del self._due[name]
        except SandboxHostError as error:
            # Of all of them: what is due stays due, and is tried again.
            fault = str(error)
        changes = self._trouble("judging", fault)
        if verdicts:
            changes += self._roster.update(verdicts, self._judge.switched_off)
        return changes

    def _is_late(self, limit: float | None, verdicts: Mapping[str, object]) -> bool:
        # One at least: a step that began late would get nowhere.
        return bool(verdicts) and limit is not None and self._cost() - limit > _JUDGING_SECONDS

    def _at_rest(self) -> dict[str, Mark | None]:
        told = {name: self._settling.told(name) for name in self._settling.names}
        return {name: mark for name, mark in told.items() if mark is not None}

    def _verdict(self, name: str, mark: Mark | None) -> Judged | None:
        if mark is None:
            return None
        path = self._directory / name
        try:
            return self._judge(path)
        except SandboxHostError:
            raise
        except Exception as error:  # noqa: BLE001 - told, and the others go on
            # A fault of ours with one plugin must not keep the others from being seen.
            _log.exception("%s cannot be judged", escaped(str(path), 200))
            reason = f"it cannot be judged: {type(error).__name__}"
            return Judged(path=path, state=DiscoveredState.UNREADABLE, reason=reason, code="fault")

    def _trouble(self, what: str, reason: str) -> list[Change]:
        """Tell once what is wrong with the watching, and once that it is well again."""
        if self._troubles.get(what, "") == reason:
            return []
        self._troubles[what] = reason
        return [Change(kind=ChangeKind.WATCH, path=self._directory, reason=reason, code=what)]

    # -- again and again --------------------------------------------------------------------

    def hurry(self) -> None:
        """Look at everything as soon as the pace allows it; for whoever knows of a change."""
        self._next_scan = self._clock()
        self._wake.set()

    def __iter__(self) -> Iterator[Change]:
        """Yield changes as they happen, until `close` is called; waits in between."""
        try:
            while not self._closing.is_set():
                yield from self.step()
                self._pause()
        finally:
            if self._notices:
                self._notices.stop()

    def _pause(self) -> None:
        """Wait until something is due, or a notice came and the pace allows a look."""
        ends = [self._next_scan, self._settling.next_look() or self._next_scan]
        if self._due and not self._troubles.get("judging"):
            ends.append(self._not_before)
        self._wait(max(self._not_before, min(ends)), self._wake)
        self._wait(self._not_before, self._closing)
        if not self._closing.is_set():
            self._wake.clear()

    def _wait(self, until: float, for_what: threading.Event) -> None:
        left = until - self._clock()
        if left > 0:
            for_what.wait(left)

    def start(self, tell: Callable[[Change], object]) -> None:
        """Watch in a thread of its own, which calls `tell` with each change.

        What `tell` raises is logged, and the watch goes on.
        """
        self._thread = threading.Thread(
            target=self._run, args=(tell,), name="sandbox-host-discovery", daemon=True
        )
        self._thread.start()

    def _run(self, tell: Callable[[Change], object]) -> None:
        for change in self:
            try:
                tell(change)
            except Exception:  # noqa: BLE001 - whoever is told may fail; we go on
                _log.exception("a change of %s was not acted on", escaped(str(change.path), 200))

    def close(self) -> None:
        """End the watch, and wait for its thread; a second time does nothing."""
        self._closing.set()
        self._wake.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN_SECONDS)
        elif self._notices:
            self._notices.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
