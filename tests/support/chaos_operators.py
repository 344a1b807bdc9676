"""What operators do to the plugins of the chaos driver, and to each other."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sandbox_host.observe.journal_files import walk_journal
from tests.support.chaos_acts import (
    AT_START,
    IN_THE_WAY,
    LOAD_SECONDS,
    POLICY,
    RELOAD_SECONDS,
    SLACK_SECONDS,
    Act,
    Stage,
    nothing,
)
from tests.support.chaos_plugins import BAD, WALL_SECONDS


class Operator:
    """Chooses what operators do, with plugins of its own.

    Args:
        stage: where.
        chance: everything is decided by it.
        names: of the plugins that it updates, loads and unloads.
    """

    def __init__(self, stage: Stage, chance: random.Random, names: list[str]) -> None:
        self._stage = stage
        self._random = chance
        self._names = names

    def choose(self) -> Act | None:
        """Return what to do next; None for nothing."""
        name = self._random.choice(self._names)
        mends, makes = self._random.random() < 0.3, self._make()
        return (self._mending() if mends else None) or makes(name)

    def _make(self) -> Callable[[str], Act]:
        makes, weights = zip(
            *(
                (self._update, 8),
                (self._bad_update, 12),
                (self._vetoed, 2),
                (self._reload, 3),
                (self._unload, 5),
                (self._load, 5),
                (self._reconfigure, 3),
                (self._publish, 4),
                (self._subscribe, 3),
                (self._look, 4),
                (self._verify, 1),
                (self._strike, 0.3),
            ),
            strict=True,
        )
        (make,) = self._random.choices(makes, weights)
        return make

    def _mending(self) -> Act | None:
        """Load what is not there, or release what is in quarantine."""
        host = self._stage.host
        there = host.plugins
        for name in self._names:
            if name not in there:
                return self._load(name)
            if host.quarantined(name):
                return Act("release", name, lambda n=name: host.release(n), codes=IN_THE_WAY)
        return None

    def _load(self, name: str) -> Act:
        return self._stage.load(name, None if self._random.random() < 0.1 else POLICY)

    def _unload(self, name: str) -> Act:
        seconds = LOAD_SECONDS + SLACK_SECONDS
        run = lambda: self._stage.host.unload(name)  # noqa: E731 - it is begun later
        return Act("unload", name, run, codes=IN_THE_WAY, seconds=seconds)

    def _reload(self, name: str) -> Act:
        return Act(
            "reload",
            name,
            lambda: self._stage.host.reload(name),
            codes=AT_START | IN_THE_WAY,
            seconds=RELOAD_SECONDS + SLACK_SECONDS,
            excused=self._stage.excused,
        )

    def _update(self, name: str) -> Act:
        release = self._stage.releases[name]
        path = release.next()
        return Act(
            "update",
            f"{name} to {path.parent.name}",
            lambda: self._stage.host.reload(name, path),
            codes=AT_START | IN_THE_WAY,
            seconds=RELOAD_SECONDS + SLACK_SECONDS,
            excused=self._stage.excused,
            then=lambda _: setattr(release, "good", path),
        )

    def _bad_update(self, name: str) -> Act:
        how = self._random.choice(BAD)
        path, codes = self._stage.releases[name].bad(how)
        return Act(
            f"update, {how}",
            f"{name} to {path.parent.name}",
            lambda: self._stage.host.reload(name, path),
            nothing,
            codes | IN_THE_WAY,
            RELOAD_SECONDS + SLACK_SECONDS,
            excused=self._stage.excused,
        )

    def _vetoed(self, name: str) -> Act:
        path = self._stage.releases[name].next()

        def probe(plugin: Any) -> None:
            plugin.call("fail", "vetoed", deadline=WALL_SECONDS)

        return Act(
            "update, vetoed",
            name,
            lambda: self._stage.host.reload(name, path, probe=probe),
            nothing,
            AT_START | IN_THE_WAY,
            RELOAD_SECONDS + SLACK_SECONDS,
            excused=self._stage.excused,
        )

    def _reconfigure(self, _: str) -> Act:
        options = {
            "plugin_config": {"*": {"level": self._random.randrange(5)}},
            "sweep_seconds": self._random.choice((0.01, 0.02, 0.05)),
            "max_outstanding_calls": self._random.choice((4, 64, 512)),
            "dossier_bytes": self._random.choice((96, 256)) * 1024,
        }
        core = self._stage.host._core
        config = self._stage.config(**options)
        return Act("reconfigure", str(options), lambda: core.reconfigure(config))

    def _publish(self, _: str) -> Act:
        count, data = self._random.randrange(1, 300), self._random.choice(("fine", "fail"))
        host = self._stage.host

        def publish() -> Any:
            if not self._stage.awaited:
                return [host.publish("chaos.tick", data) for _ in range(count)]

            async def published() -> list[Any]:
                return [await host.publish("chaos.tick", data) for _ in range(count)]

            return published()

        seconds = 5.0 + SLACK_SECONDS
        return Act(
            "publish", f"{count} × {data}", publish, lambda v: len(v) == count, seconds=seconds
        )

    def _subscribe(self, _: str) -> Act:
        policy = self._random.choice(("drop_oldest", "drop_newest", "disconnect"))
        seconds = self._random.uniform(0.0, 0.2)

        def subscribe() -> Any:
            events = self._stage.host.subscribe("chaos.*", policy=policy, queue=8)
            if not self._stage.awaited:
                with events:
                    return events.get(timeout=seconds)

            async def read() -> Any:
                async with events:
                    with contextlib.suppress(TimeoutError):
                        return await asyncio.wait_for(anext(events), seconds)

            return read()

        return Act("subscribe", policy, subscribe, codes=frozenset({"subscriber-too-slow"}))

    def _look(self, _: str) -> Act:
        host = self._stage.host

        def look() -> Any:
            host.usage(), host.subscriptions(), repr(host.plugins)
            return host.data()

        return Act("look", "", look)

    def _strike(self, _: str) -> Act:
        return Act("strike", "", self._stage.strike)

    def _verify(self, _: str) -> Act:
        path = self._stage.workshop.config().journal_path
        return Act("verify", "", lambda: walk_journal(path), lambda walk: walk.fault is None)


class Meddler(Operator):
    """Gets in the way of operators: with all plugins, without knowing what was updated."""

    def choose(self) -> Act | None:
        """Return what to do next."""
        name = self._random.choice(self._names)
        act = self._random.choice((self._unload, self._load, self._reload))(name)
        # An update may have been taken of which its operator has not been told yet.
        return replace(act, codes=act.codes | {"rollback"})
