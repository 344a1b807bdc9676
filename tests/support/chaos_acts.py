"""What the chaos driver may do: each act with the outcomes that are right for it.

An act is begun without knowing which face the host has: what it returns is awaited where that is
the one for asyncio.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from sandbox_host import RestartPolicy
from sandbox_host.errors import SandboxHostError
from tests.support.chaos_plugins import GRANTS, WALL_SECONDS, Release
from tests.support.host import Workshop

SLACK_SECONDS = 15.0
"""What a busy machine may add to any deadline."""

START_SECONDS, STOP_SECONDS = 4.0, 1.0
LOAD_SECONDS = START_SECONDS + 2 * STOP_SECONDS
RELOAD_SECONDS = LOAD_SECONDS + 10.0 + WALL_SECONDS

POLICY = RestartPolicy(
    first_delay_seconds=0.02, longest_delay_seconds=1.0, most_ends=6, window_seconds=10.0
)

_STRUCK_SECONDS = 10.0
"""An act that began before the nursery was killed is over by then."""

_UNLUCKY = frozenset({"ended", "deadline", "budget", "backpressure"})
"""What may become of any call: something else brings its plugin down, or keeps it busy."""
AT_START = frozenset({"start", "ended", "budget", "deadline"})
IN_THE_WAY = frozenset({"already-loaded", "data-in-use", "not-found", "ended", "reload"})
"""Somebody else loads, reloads or unloads it at this moment, or it has just ended."""


def anything(_: Any) -> bool:
    """Take any value."""
    return True


def nothing(_: Any) -> bool:
    """Take no value."""
    return False


@dataclass(frozen=True)
class Act:
    """Something to do, and what may come of it.

    Attributes:
        kind: for counting.
        text: for whoever reads what went before a failure.
        run: does it; what it returns may have to be awaited.
        right: tells whether what it returned is right.
        codes: of the errors that are right as well.
        seconds: in which it must be over.
        then: is called when it has succeeded.
        excused: tells whether another error is right, because of what else happened.
    """

    kind: str
    text: str
    run: Callable[[], Any]
    right: Callable[[Any], bool] = anything
    codes: frozenset[str] = frozenset()
    seconds: float = SLACK_SECONDS
    then: Callable[[Any], object] = anything
    excused: Callable[[SandboxHostError], bool] = nothing


class Stage:
    """What all actors share.

    Args:
        workshop: where plugins are written.
        host: either face; it can be reconfigured.
        names: of the plugins.
        awaited: the host is the one for asyncio.
    """

    def __init__(self, workshop: Workshop, host: Any, names: list[str], *, awaited: bool) -> None:
        self.workshop = workshop
        self.host = host
        self.names = names
        self.awaited = awaited
        self.releases = {name: Release(workshop, name) for name in names}
        self.handles: dict[str, Any] = {}
        self._struck_at = -math.inf

    def strike(self) -> None:
        """Kill the nursery, and with it every plugin."""
        self._struck_at = time.monotonic()
        for child in psutil.Process().children():
            kill(child.pid)

    def excused(self, error: SandboxHostError) -> bool:
        """Tell whether a plugin could not be started because the nursery was killed."""
        struck = time.monotonic() - self._struck_at < _STRUCK_SECONDS
        return struck and error.code in {"confinement", "attestation"}

    def config(self, **options: Any) -> Any:
        """Return a configuration for this host."""
        return config(self.workshop, **options)

    def load(self, name: str, policy: RestartPolicy | None) -> Act:
        """Load the plugin's newest good version."""
        release = self.releases[name]
        path = release.good

        return Act(
            "load",
            name,
            lambda: self.host.load(path, restart=policy),
            codes=AT_START | IN_THE_WAY,
            seconds=LOAD_SECONDS + SLACK_SECONDS,
            then=lambda plugin: self.handles.__setitem__(name, plugin),
            excused=self.excused,
        )

    def collected(self, stream: Any) -> Any:
        """Return the list of what a stream yields, or what has to be awaited for it."""
        if not self.awaited:
            return list(stream)

        async def collect() -> list[Any]:
            return [item async for item in stream]

        return collect()

    def cancelled(self, call: Any) -> Any:
        """Cancel a call that was begun, and return its result."""
        call.cancel()
        return call if self.awaited else call.result()


def config(workshop: Workshop, **options: Any) -> Any:
    """Return the configuration that the driver begins with, or another of its own."""
    decided = {
        "grants": GRANTS,
        "start_timeout_seconds": START_SECONDS,
        "stop_timeout_seconds": STOP_SECONDS,
        "dossiers_kept": 20,
        "log_bytes": 64 * 1024,
    }
    return workshop.config(**decided | options)


class Caller:
    """Chooses calls, most of them harmless.

    Args:
        stage: where.
        chance: everything is decided by it.
        harm: share of the calls that do harm.
    """

    def __init__(self, stage: Stage, chance: random.Random, harm: float) -> None:
        self._stage = stage
        self._random = chance
        self._harm = harm

    def choose(self) -> Act | None:
        """Return what to do next; None for nothing."""
        chance = self._random
        name = chance.choice(self._stage.names)
        harm, good, bad = chance.random() < self._harm, self._good(), self._bad()
        plugin = self._stage.handles.get(name)
        if plugin is None:
            return None
        make = bad if harm else good
        return make(plugin, name)

    def _good(self) -> Callable[[Any, str], Act]:
        makes, weights = zip(
            *(
                (self._add, 50),
                (self._echo, 6),
                (self._numbers, 5),
                (self._total, 4),
                (self._many, 4),
                (self._nap, 4),
                (self._late, 2),
                (self._cancel, 3),
                (self._fail, 4),
                (self._refused, 4),
                (self._shout, 2),
                (self._flood, 2),
                (self._health, 3),
            ),
            strict=True,
        )
        (make,) = self._random.choices(makes, weights)
        return make

    def _bad(self) -> Callable[[Any, str], Act]:
        kinds = ("segfault", "abort", "leave", "hang", "stall", "spin", "hog", "kill")
        kind = self._random.choice(kinds)
        if kind == "kill":
            return lambda plugin, name: Act("kill", name, lambda: kill(plugin.receipt.pid))
        seconds = self._random.uniform(0.05, WALL_SECONDS)
        return lambda plugin, name: self._call(
            plugin, name, kind, seconds=seconds, right=nothing, codes=frozenset({"cancelled"})
        )

    def _call(
        self,
        plugin: Any,
        name: str,
        operation: str,
        *arguments: Any,
        seconds: float = WALL_SECONDS,
        right: Callable[[Any], bool],
        codes: frozenset[str] = frozenset(),
    ) -> Act:
        shown = ", ".join(map(repr, arguments))
        return Act(
            operation,
            f"{name}.{operation}({shown:.40}) within {seconds:.2f}",
            lambda: plugin.call(operation, *arguments, deadline=seconds),
            right,
            _UNLUCKY | codes,
            seconds + SLACK_SECONDS,
        )

    def _add(self, plugin: Any, name: str) -> Act:
        one, other = self._random.getrandbits(60), self._random.getrandbits(60)
        return self._call(plugin, name, "add", one, other, right=lambda v: v == one + other)

    def _echo(self, plugin: Any, name: str) -> Act:
        value = self._random.randbytes(self._random.choice((100, 10_000, 200_000, 2_000_000)))
        return self._call(plugin, name, "echo", value, right=lambda v: v == value)

    def _nap(self, plugin: Any, name: str) -> Act:
        seconds = self._random.uniform(0.0, 0.1)
        return self._call(plugin, name, "nap", seconds, right=lambda v: v == seconds)

    def _late(self, plugin: Any, name: str) -> Act:
        return self._call(plugin, name, "nap", 30.0, seconds=0.1, right=nothing)

    def _numbers(self, plugin: Any, name: str) -> Act:
        count = self._random.randrange(500)
        return Act(
            "stream",
            f"{name}.numbers({count})",
            lambda: self._stage.collected(plugin.stream("numbers", count, deadline=WALL_SECONDS)),
            lambda got: got == list(range(count)),
            _UNLUCKY,
            WALL_SECONDS + SLACK_SECONDS,
        )

    def _total(self, plugin: Any, name: str) -> Act:
        count = self._random.randrange(200)
        return Act(
            "feed",
            f"{name}.total({count})",
            lambda: plugin.call("total", (n for n in range(count)), deadline=WALL_SECONDS),
            lambda value: value == sum(range(count)),
            _UNLUCKY,
            WALL_SECONDS + SLACK_SECONDS,
        )

    def _many(self, plugin: Any, name: str) -> Act:
        count = self._random.randrange(1, 600)
        calls = [(number, 1) for number in range(count)]
        return Act(
            "call_many",
            f"{name}.add × {count}",
            lambda: plugin.call_many("add", calls, deadline=WALL_SECONDS),
            lambda values: values == list(range(1, count + 1)),
            _UNLUCKY,
            4 * WALL_SECONDS + SLACK_SECONDS,
        )

    def _cancel(self, plugin: Any, name: str) -> Act:
        return Act(
            "cancel",
            name,
            lambda: self._stage.cancelled(plugin.start("nap", 1.0, deadline=WALL_SECONDS)),
            lambda value: value == 1.0,
            _UNLUCKY | {"cancelled"},
            WALL_SECONDS + SLACK_SECONDS,
        )

    def _fail(self, plugin: Any, name: str) -> Act:
        codes = frozenset({"operation"})
        return self._call(plugin, name, "fail", "on purpose", right=nothing, codes=codes)

    def _refused(self, plugin: Any, name: str) -> Act:
        operation, argument, code = self._random.choice(
            (
                ("no_such", 1, "no-such-operation"),
                ("echo", object(), "not-serializable"),
                ("stray", None, "not-serializable"),
                ("numbers", 3, "not-a-stream"),
            )
        )
        arguments = () if argument is None else (argument,)
        act = self._call(
            plugin, name, operation, *arguments, right=nothing, codes=frozenset({code})
        )
        return Act(code, act.text, act.run, act.right, act.codes, act.seconds)

    def _shout(self, plugin: Any, name: str) -> Act:
        count = self._random.randrange(3_000)
        return self._call(plugin, name, "shout", count, right=lambda value: value == count)

    def _flood(self, plugin: Any, name: str) -> Act:
        count = self._random.randrange(600)
        return self._call(plugin, name, "flood", count, right=lambda value: value == count)

    def _health(self, plugin: Any, name: str) -> Act:
        words = {"healthy", "degraded", "unhealthy"}
        seconds = 10.0 + SLACK_SECONDS
        return Act("health", name, plugin.health, lambda v: v.status in words, seconds=seconds)


def kill(pid: int) -> None:
    """Kill a process with signal 9, if it is one that we started, or they did."""
    with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
        process = os.pidfd_open(pid)
        try:
            # Its pid may have been another's by the time that it was opened.
            if os.getpid() in {parent.pid for parent in psutil.Process(pid).parents()}:
                signal.pidfd_send_signal(process, signal.SIGKILL)
        finally:
            os.close(process)
