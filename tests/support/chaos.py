"""Months in fast motion: one host, twenty plugins, and everything that can happen to them.

Everything that is decided comes from a seed, but for what is mended, which is decided by what is
broken; what happens at the same time is up to the machine. No pytest in here: it runs as a script,
``python -m tests.support.chaos DIRECTORY SECONDS SEED [FACE [HASTE]]``, which prints JSON.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import faulthandler
import inspect
import json
import logging
import os
import random
import re
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from sandbox_host import BlockingPlugin, SandboxHost
from sandbox_host.errors import PluginError, RollbackError
from sandbox_host.observe import journal_files
from sandbox_host.observe.journal_files import walk_journal
from sandbox_host.service.hosting import ServedHost
from tests.support.chaos_acts import (
    POLICY,
    SLACK_SECONDS,
    STOP_SECONDS,
    Act,
    Caller,
    Stage,
    config,
)
from tests.support.chaos_chronicle import Chronicle, FailedError
from tests.support.chaos_operators import Meddler, Operator
from tests.support.chaos_plugins import MIB
from tests.support.host import Workshop
from tests.support.traces import eventually, left_since, steady, traces

PLUGINS = 20
CALLERS, OPERATORS = 4, 2
UIDS = (61_184, PLUGINS)
"""An id for each, and no more."""

GROWTH_BYTES = 48 * MIB
"""What the host may take more, in all the time after the first quarter of it.

Arenas of plugins, and what is under way at one moment and not at the other, are half of that.
"""

_HARM = 0.04
_CALLERS_PAUSE, _OPERATORS_PAUSE, _MEDDLERS_PAUSE = 0.015, 0.1, 0.5
_STUCK_SECONDS = 90.0
_CALM_SECONDS = 30.0


class Storm:
    """One run.

    Args:
        root: a directory of its own.
        seed: decides everything.
        seconds: how long it is to last.
        face: "threads" or "asyncio".
        haste: everybody rests so many times shorter between two acts.
    """

    def __init__(
        self, root: Path, seed: int, seconds: float, face: str = "threads", haste: float = 1.0
    ) -> None:
        self.workshop = Workshop(root, role="publisher")
        self._awaited = face == "asyncio"
        self._seed, self._seconds, self._haste = seed, seconds, haste
        self._until = 0.0
        self.chronicle = Chronicle(seed)
        self._names = [f"plugin_{number:02}" for number in range(PLUGINS)]
        self.told: dict[str, Any] = {"seed": seed, "seconds": seconds, "face": face}

    # -- the whole ----------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Do it, check everything, and return what happened.

        Raises:
            FailedError: something is not as it must be.
        """
        before = traces()
        main = self._in_loop if self._awaited else self._in_threads
        main()
        self._check_files(before)
        self.chronicle.check()
        times = sorted(self.chronicle.answers)
        self.told |= {
            "acts": sum(sum(kind.values()) for kind in self.chronicle.outcomes.values()),
            "outcomes": {k: dict(v) for k, v in sorted(self.chronicle.outcomes.items())},
            "add_p50_ms": round(times[len(times) // 2] * 1e3, 3),
            "add_p99_ms": round(times[int(len(times) * 0.99)] * 1e3, 3),
        }
        return self.told

    def _actors(self, stage: Stage) -> dict[str, tuple[Any, float, random.Random]]:
        actors: dict[str, tuple[Any, float, random.Random]] = {}
        for number in range(CALLERS):
            chance = random.Random(f"{self._seed} caller {number}")
            actors[f"caller-{number}"] = (Caller(stage, chance, _HARM), _CALLERS_PAUSE, chance)
        for number in range(OPERATORS):
            chance = random.Random(f"{self._seed} operator {number}")
            own = self._names[number::OPERATORS]
            actors[f"operator-{number}"] = (
                Operator(stage, chance, own),
                _OPERATORS_PAUSE,
                chance,
            )
        chance = random.Random(f"{self._seed} meddler")
        actors["meddler"] = (Meddler(stage, chance, self._names), _MEDDLERS_PAUSE, chance)
        return actors

    @property
    def _over(self) -> bool:
        return time.monotonic() >= self._until or bool(self.chronicle.failures)

    # -- with threads -------------------------------------------------------------------------

    def _in_threads(self) -> None:
        with contextlib.ExitStack() as stack:
            host = stack.enter_context(ServedHost(self._config()))
            stage = Stage(self.workshop, host, self._names, awaited=False)
            for name in self._names:
                stage.handles[name] = host.load(stage.releases[name].good, restart=POLICY)
            self._settle(host)
            actors = [
                threading.Thread(target=self._act, args=(name, *actor, self._perform), daemon=True)
                for name, actor in self._actors(stage).items()
            ]
            self._begin()
            for actor in actors:
                actor.start()
            self._watch(lambda: any(actor.is_alive() for actor in actors), time.sleep)
            self._check_calm(stage)
            self._check_quiet(host)
            for name in self._names[:3]:
                host.load(stage.releases[name].good).start("hang")
            closing = time.monotonic()
        self._closed(closing)

    def _act(
        self, name: str, actor: Any, pause: float, chance: random.Random, perform: Any
    ) -> None:
        while not self._over:
            act = actor.choose()
            if act is not None:
                perform(name, act)
            time.sleep(chance.expovariate(self._haste / pause))

    def _perform(self, actor: str, act: Act) -> None:
        began, value, error = self.chronicle.begin(actor, act), None, None
        try:
            value = act.run()
            act.then(value)
        except Exception as raised:  # noqa: BLE001 - whatever it is, it is told
            error = raised
        self.chronicle.end(actor, act, began, value, error)

    # -- in a loop ----------------------------------------------------------------------------

    def _in_loop(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        host = SandboxHost(self._config())
        async with host:
            stage = Stage(self.workshop, host, self._names, awaited=True)
            for name in self._names:
                stage.handles[name] = await host.load(stage.releases[name].good, restart=POLICY)
            await asyncio.to_thread(self._settle, host)
            self._begin()
            tasks = [
                asyncio.ensure_future(self._act_in_loop(name, *actor))
                for name, actor in self._actors(stage).items()
            ]
            await asyncio.to_thread(
                self._watch, lambda: not all(task.done() for task in tasks), time.sleep
            )
            for task in tasks:
                task.result()
            blocking = _Blocking(host)
            stage.awaited, stage.host = False, blocking
            stage.handles = {n: BlockingPlugin(p._slot) for n, p in stage.handles.items()}
            await asyncio.to_thread(self._check_calm, stage)
            await asyncio.to_thread(self._check_quiet, blocking)
            closing = time.monotonic()
        self._closed(closing)

    async def _act_in_loop(
        self, name: str, actor: Any, pause: float, chance: random.Random
    ) -> None:
        while not self._over:
            act = actor.choose()
            if act is not None:
                await self._perform_in_loop(name, act)
            await asyncio.sleep(chance.expovariate(self._haste / pause))

    async def _perform_in_loop(self, actor: str, act: Act) -> None:
        began, value, error = self.chronicle.begin(actor, act), None, None
        try:
            value = act.run()
            if inspect.isawaitable(value):
                value = await value
            act.then(value)
        except Exception as raised:  # noqa: BLE001 - whatever it is, it is told
            error = raised
        self.chronicle.end(actor, act, began, value, error)

    # -- what is checked ----------------------------------------------------------------------

    def _config(self) -> Any:
        return config(self.workshop, plugin_uids=UIDS)

    def _begin(self) -> None:
        self._until = time.monotonic() + self._seconds

    def _watch(self, going_on: Any, sleep: Any) -> None:
        """Wait for the actors, and look at the memory meanwhile."""
        process, began = psutil.Process(), time.monotonic()
        settled = 0
        stuck_at = self._until + _STUCK_SECONDS
        while going_on():
            now = time.monotonic()
            if not settled and now - began > self._seconds / 4:
                settled = process.memory_info().rss
            if now > stuck_at:
                faulthandler.dump_traceback(all_threads=True)
                self.chronicle.fail("somebody waits still")
                raise FailedError(self.chronicle.text())
            sleep(0.1)
        self.chronicle.check()
        grown = process.memory_info().rss - settled
        self.told |= {"grown_mib": round(grown / MIB, 1), "rss_mib": round(settled / MIB, 1)}
        if grown > GROWTH_BYTES:
            self.chronicle.fail(f"the host took {grown / MIB:.1f} MiB more, of {settled / MIB:.0f}")

    def _check_calm(self, stage: Stage) -> None:
        """Mend what is broken; then every handle that there is must serve."""
        for name in self._names:
            with contextlib.suppress(PluginError):
                stage.host.release(name)
            release = stage.releases[name]
            # Whoever waits to start again is loaded by hand as well.
            away = name not in stage.host.plugins or stage.handles[name].state == "failed"
            if away and not self._loaded(stage, name):
                release.good = release.next()
                self._loaded(stage, name)
            until = time.monotonic() + _CALM_SECONDS
            while True:
                try:
                    if stage.handles[name].call("add", 1, 2, deadline=2.0) == 3:
                        break
                except PluginError as error:
                    if time.monotonic() > until:
                        self.chronicle.fail(f"{name} does not serve: {error}")
                        break
                    time.sleep(0.02)
        self.chronicle.check()

    def _loaded(self, stage: Stage, name: str) -> bool:
        try:
            stage.handles[name] = stage.host.load(stage.releases[name].good, restart=POLICY)
        except RollbackError:
            return False
        except PluginError as error:
            if error.code != "already-loaded":
                self.chronicle.fail(f"{name} does not load: {error}")
        return True

    def _settle(self, host: Any) -> None:
        """Remember what there is when everything that is made once was made."""
        self._quiet = self._look(host)

    def _look(self, host: Any) -> collections.Counter[str]:
        """Count what there is, without the numbers that differ from one process to the next."""
        host._core._janitor.submit(lambda: None).result()
        seen = steady(traces)
        threads = [name for name in seen.threads if not name.startswith("asyncio")]
        names = (*seen.descriptors, *threads, *seen.children, *map(str, seen.groups))
        private = (self.workshop.state_dir / "run").glob("*/[bs]*/*-*")
        names += tuple(f"{path.parent.name} {path.name.partition('-')[0]}" for path in private)
        return collections.Counter(re.sub(r"-\d+(?=/|$)", "", name) for name in names)

    def _check_quiet(self, host: Any) -> None:
        """With as many plugins as at first, there must be no more of anything than there was."""
        if not eventually(lambda: self._look(host) == self._quiet, 10.0):
            now = self._look(host)
            self.chronicle.fail(f"more: {now - self._quiet}, fewer: {self._quiet - now}")
        core = host._core
        for name in self._names:
            with contextlib.suppress(PluginError):
                core.unload(name)
        if not eventually(lambda: not +core._launcher._backend._uids._leased, 5.0):
            self.chronicle.fail(f"user ids are leased: {core._launcher._backend._uids._leased}")
        if core.plugins() or core._starting:
            self.chronicle.fail(f"plugins are left: {core.plugins()} {core._starting}")
        self.chronicle.check()

    def _closed(self, began: float) -> None:
        took = time.monotonic() - began
        self.told["shutdown_s"] = round(took, 3)
        if took > STOP_SECONDS + SLACK_SECONDS:
            self.chronicle.fail(f"the host took {took:.1f} s to close")

    def _check_files(self, before: Any) -> None:
        if left := left_since(before):
            self.chronicle.fail(f"left by the host: {left}")
        state = self.workshop.state_dir
        if left_files := sorted((state / "run").iterdir()):
            self.chronicle.fail(f"left in run: {left_files}")
        dossiers = list((state / "dossiers").iterdir())
        if len(dossiers) > 20:
            self.chronicle.fail(f"too many dossiers: {len(dossiers)}")
        walk = walk_journal(self.workshop.config().journal_path)
        if walk.fault is not None:
            self.chronicle.fail(f"the journal: {walk.fault}")
        sizes = collections.Counter[str]()
        for folder, _, files in os.walk(state):
            top = str(Path(folder).relative_to(state)).partition("/")[0]
            sizes[top] += sum(Path(folder, file).lstat().st_size for file in files)
        self.told |= {
            "journal_lines": walk.lines,
            "journal_files": walk.files,
            "state_kib": {name: size // 1024 for name, size in sizes.items()},
        }


class _Blocking:
    """The blocking face of a host that was opened in a loop, for looking at it afterwards."""

    def __new__(cls, host: SandboxHost) -> Any:
        blocking = ServedHost.__new__(ServedHost)
        blocking._core = host._core
        return blocking


def main(root: str, seconds: str, seed: str, face: str = "threads", haste: str = "1") -> None:
    """Run below a directory, and print what happened."""
    own = Path(root, "temporary")
    own.mkdir(parents=True)
    tempfile.tempdir = str(own)
    logging.getLogger("sandbox_host").setLevel(logging.CRITICAL)
    journal_files.MAX_FILE_BYTES = 32 * 1024  # type: ignore[misc]  # so that there are many
    storm = Storm(Path(root), int(seed), float(seconds), face, float(haste))
    print(json.dumps(storm.run(), indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
