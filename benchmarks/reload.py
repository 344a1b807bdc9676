"""What does a reload cost those who call meanwhile? 500 calls a second, whatever becomes of them.

Run it with ``.venv/bin/python benchmarks/reload.py [--rounds N] [--seconds N] [--quick]``. Calls
are begun when their time has come, not when the one before was answered; how long they take counts
from then on, so that a pause is told by everybody who met it. The ways take turns: nobody reloads;
the plugin is reloaded again and again, and the calls that count are those that were due meanwhile;
and what one does without a reload, to unload the plugin and load it anew.

There is no peer: none of the others puts a new version in a running one's place.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from frame import NotThereError, Results, clock_ms, options_of, take_turns  # beside this file
from ours import ECHO, confinement, ground

from sandbox_host import BlockingHost, BlockingPlugin, SandboxHost
from sandbox_host.errors import SandboxHostError

RATE = 500
CALLERS = 16
"""So many calls may be late at a time before one begins late for want of a thread."""

PAUSE_SECONDS = 0.1
PAYLOAD = b"x" * 32

IDLE, RELOAD, ANEW = "nobody reloads", "while it is reloaded", "while it is unloaded and loaded"


class Load:
    """Calls at a steady rate.

    Args:
        plugin: is called.
        seconds: for how long.
    """

    def __init__(self, plugin: BlockingPlugin, seconds: float) -> None:
        self._plugin = plugin
        self._count = int(RATE * seconds)
        self._numbers = itertools.count()
        self._start = time.perf_counter() + 0.01
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        self.answered: list[tuple[float, float]] = []
        self.lost = 0

    def __enter__(self) -> Load:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the last answer."""
        for thread in self._threads:
            thread.join()

    @property
    def over(self) -> bool:
        """The last call is due."""
        return time.perf_counter() >= self._start + self._count / RATE

    def _call(self) -> None:
        while (number := next(self._numbers)) < self._count:
            due = self._start + number / RATE
            if (early := due - time.perf_counter()) > 0:
                time.sleep(early)
            try:
                right = self._plugin.call("echo", PAYLOAD) == PAYLOAD
            except SandboxHostError:
                right = False
            if right:
                self.answered.append((due, time.perf_counter() - due))
            else:
                self.lost += 1


class Ways:
    """The ways that take turns.

    Args:
        host: has the plugin.
        bundle: the plugin.
        seconds: of a turn.
    """

    def __init__(self, host: BlockingHost, bundle: str, seconds: float) -> None:
        self._host, self._bundle, self._seconds = host, bundle, seconds
        self._plugin = host.load(bundle)
        self.calls, self.lost = (
            dict.fromkeys((IDLE, RELOAD, ANEW), 0),
            dict.fromkeys((IDLE, RELOAD, ANEW), 0),
        )
        self.swaps: list[float] = []

    def idle(self) -> list[float]:
        """Return what calls take when nothing happens, in microseconds."""
        with Load(self._plugin, self._seconds) as load:
            pass
        return self._told(IDLE, load, [(0.0, float("inf"))])

    def reloaded(self) -> list[float]:
        """Return what calls take whose time came during a reload."""
        return self._meanwhile(RELOAD, lambda: self._host.reload("echo"))

    def anew(self) -> list[float]:
        """Return what those take that are answered although the plugin is gone for a while."""

        def change() -> None:
            self._host.unload("echo")
            self._host.load(self._bundle)

        return self._meanwhile(ANEW, change)

    def _meanwhile(self, name: str, change: Callable[[], object]) -> list[float]:
        windows = []
        with Load(self._plugin, self._seconds) as load:
            while not load.over:
                time.sleep(PAUSE_SECONDS)
                began = time.perf_counter()
                took = clock_ms(change)
                windows.append((began, time.perf_counter()))
                if name == RELOAD:
                    self.swaps.append(took)
        return self._told(name, load, windows)

    def _told(self, name: str, load: Load, windows: list[tuple[float, float]]) -> list[float]:
        self.calls[name] += len(load.answered) + load.lost
        self.lost[name] += load.lost
        times = [
            took * 1e6
            for due, took in load.answered
            if any(began <= due <= ended for began, ended in windows)
        ]
        if not times:
            text = "no call came meanwhile"
            raise NotThereError(text)
        return times


def main() -> None:
    """Measure all ways in turns, and tell what was lost."""
    options = options_of(
        __doc__,
        rounds=(7, 2, "turns that each way takes"),
        seconds=(4, 1, "of a turn"),
    )
    results = Results("What does a reload cost those who call meanwhile?")
    table = results.table("reload", f"{RATE} calls a second", "µs", IDLE, places=0)
    with ExitStack() as stack:
        where = stack.enter_context(ground())
        bundle = where.publisher.release("echo", ECHO)
        host = stack.enter_context(SandboxHost.blocking(where.config()))
        ways = Ways(host, str(bundle), options.seconds)
        results.remarks.append(confinement(host.plugin("echo")))
        take_turns(table, {IDLE: ways.idle, RELOAD: ways.reloaded, ANEW: ways.anew}, options.rounds)
    for name, lost in ways.lost.items():
        results.facts[f"calls lost of {ways.calls[name]}, {name}"] = lost
    results.facts["reloads"] = len(ways.swaps)
    if ways.swaps:
        results.facts["a reload takes, ms (median)"] = statistics.median(ways.swaps)
    results.tell(options.json)


if __name__ == "__main__":
    main()
