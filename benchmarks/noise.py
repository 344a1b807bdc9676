"""What do the others cost one plugin? Its calls while 31 others spin, flood, and crash and restart.

Run it with ``.venv/bin/python benchmarks/noise.py [--rounds N] [--others N] [--quick]``. One plugin
is called, one call outstanding, while the others of the same host are idle, or compute in endless
loops, or publish events and print as quickly as they can, or break with a bad pointer and are
loaded again, one after the other, without a pause. The kinds of noise take turns. In each turn a
raw pipe of Python is called for as long, beside the same neighbours: it has nothing of ours between
it and them, so that it tells what the machine alone makes of so many busy processes.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import peers  # beside this file, like the others
from frame import Results, Table, Turn, options_of, reason, take_turns
from ours import ECHO, OURS, ground

from sandbox_host import BlockingHost, BlockingPlugin, HostConfig, Permissions, SandboxHost
from sandbox_host.errors import PluginEndedError, SandboxHostError

PAYLOAD = b"x" * 32
WARM_SECONDS = 0.2
"""From the beginning of a noise to the first call that counts."""

NOISY = """
import ctypes
import time

from plugin_sdk import context

@operation
def spin(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1_000))

@operation
def flood(seconds):
    until, publish = time.monotonic() + seconds, context().publish
    while time.monotonic() < until:
        publish("noise", "x" * 100)
        print("x" * 100)

@operation
def crash():
    ctypes.string_at(0)
"""

IDLE, SPIN, FLOOD, CRASH = "idle", "spin", "flood", "crash and restart"


class Others:
    """The neighbours.

    Args:
        host: has them.
        bundles: their directories.
    """

    def __init__(self, host: BlockingHost, bundles: list[Path]) -> None:
        self._host, self._bundles = host, bundles
        self._plugins = [host.load(bundle) for bundle in bundles]
        self._failed: SandboxHostError | None = None
        self.told: Counter[str] = Counter()

    @contextmanager
    def noise(self, kind: str, seconds: float) -> Iterator[None]:
        """Have them make a kind of noise for so long at least."""
        if kind == IDLE:
            yield
        elif kind == CRASH:
            stop = threading.Event()
            thread = threading.Thread(target=self._crash, args=(stop,))
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()
            if self._failed is not None:
                raise self._failed
        else:
            begun = [plugin.start(kind, seconds, deadline=seconds + 30) for plugin in self._plugins]
            yield
            for call in begun:
                try:
                    call.result()
                except SandboxHostError as error:
                    self.told[f"{kind}: {type(error).__name__}"] += 1

    def _crash(self, stop: threading.Event) -> None:
        try:
            for number in itertools.cycle(range(len(self._bundles))):
                if stop.is_set():
                    return
                with contextlib.suppress(PluginEndedError):
                    self._plugins[number].call("crash")
                self._host.unload(self._bundles[number].name)
                self._plugins[number] = self._host.load(self._bundles[number])
                self.told["crashed and loaded again"] += 1
        except SandboxHostError as error:
            self._failed = error


def timed(call: Callable[[bytes], object], seconds: float) -> list[float]:
    """Call for so long; return what each call took, in microseconds."""
    clock, times = time.perf_counter_ns, []
    until = clock() + int(seconds * 1e9)
    while (start := clock()) < until:
        call(PAYLOAD)
        times.append((clock() - start) / 1_000)
    return times


def ways(
    others: Others, quiet: BlockingPlugin, pipe: peers.Peer, raw: Table, seconds: float
) -> dict[str, Turn]:
    """Return a way for each kind of noise; what the pipe measured goes into a table of its own."""

    def turn(kind: str) -> list[float]:
        with others.noise(kind, WARM_SECONDS + 2 * seconds):
            time.sleep(WARM_SECONDS)
            ours = timed(lambda payload: quiet.call("echo", payload), seconds)
            raw.add(kind, timed(pipe.call, seconds))
        return ours

    return {kind: lambda kind=kind: turn(kind) for kind in (IDLE, SPIN, FLOOD, CRASH)}  # type: ignore[misc]


def main() -> None:
    """Measure all kinds of noise in turns, and print the tables."""
    options = options_of(
        __doc__,
        rounds=(8, 1, "turns that each kind takes"),
        others=(31, 31, "plugins that make noise"),
        milliseconds=(1_000, 400, "of calls in one turn"),
    )
    results = Results("What do the others cost one plugin?")
    count = options.others
    table = results.table("noise", f"{OURS}: one call while {count} others", "µs", IDLE)
    raw = results.table("noise-raw", f"{peers.RAW}, beside the same {count}", "µs", IDLE)
    with ExitStack() as stack:
        pipe = stack.enter_context(peers.raw_pipe())
        where = stack.enter_context(ground())
        names = [f"noisy_{number}" for number in range(count)]
        granted = {"publish": ["noise"]}
        bundles = [where.publisher.release(name, NOISY, permissions=granted) for name in names]
        config: HostConfig = where.config(grants={"noisy_*": Permissions(publish=("noise",))})
        host = stack.enter_context(SandboxHost.blocking(config))
        quiet = host.load(where.publisher.release("quiet", ECHO))
        try:
            others = Others(host, bundles)
        except SandboxHostError as error:
            table.lacks(OURS, reason(error))
        else:
            own = ways(others, quiet, pipe, raw, options.milliseconds / 1_000)
            take_turns(table, own, options.rounds)
            raw.turns = {kind: turns[1:] for kind, turns in raw.turns.items()}
            told = ", ".join(f"{what} {times} times" for what, times in others.told.items())
            results.remarks.append(f"What became of the others: {told or 'nothing'}.")
    results.tell(options.json)


if __name__ == "__main__":
    main()
