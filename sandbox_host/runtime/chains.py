"""Chains: what one plugin's operation yields is the stream that the next one's reads.

Each hop is an ordinary stream out of one plugin and an ordinary feed into the next, and has the
windows of both: a reader that is slow holds back every stage, up to the first. An item passes
through the host as its plugin packed it, unread: the process that reads it decodes it, under the
bounds that hold for every value, and the host pays for a copy.

Who stops reading ends who writes for it, stage by stage. Who fails breaks the stream of the stage
after it, behind all that it had yielded, and the last stage's reader is told of the first failure.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire.message import is_name
from sandbox_host.errors import NoSuchOperationError, UsageError
from sandbox_host.runtime.feeding import Feeder, dismiss, take_streams
from sandbox_host.runtime.links import AsyncStageStream, BlockingStageStream, Link, StageStream
from sandbox_host.runtime.party import Request

if TYPE_CHECKING:
    from sandbox_host.ipc.calls import Pending
    from sandbox_host.runtime.process import PluginProcess
    from sandbox_host.runtime.streaming import BlockingStream, Stream

MAX_STAGES: Final = 16
"""Each stage but the last has a thread or a task of the host's while the chain runs."""


class ChainView(ABC):
    """Operations that were put one behind the other. It can be run often, and at the same time.

    Args:
        find: returns a loaded plugin by its name.
        stages: such as "source.read".

    Raises:
        UsageError: there are none or too many, or one cannot be an operation of a plugin.
    """

    def __init__(self, find: Callable[[str], PluginProcess], stages: tuple[str, ...]) -> None:
        if not 0 < len(stages) <= MAX_STAGES:
            text = f"A chain has 1 to {MAX_STAGES} stages, not {len(stages)}."
            raise UsageError(text, remedy='Name them: `chain("source.read", "model.predict")`.')
        self._find = find
        self.stages = stages
        self._names = [_split(stage) for stage in stages]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(self.stages)}>"

    def _processes(self) -> list[PluginProcess]:
        """Return the stages' plugins; nothing of any of them has begun.

        Raises:
            PluginError: one is not loaded or does not run, or has no such operation.
            UsageError: a plugin would have to work on more stages at a time than it can.
        """
        processes = [self._find(name) for name, _ in self._names]
        for process, (_, operation) in zip(processes, self._names, strict=True):
            process.check_ready()
            offered = process.interface.operations if process.interface else ()
            if operation not in offered:
                text = f'{process.identity} has no operation "{operation}".'
                remedy = f"It has: {', '.join(offered) or 'none'}."
                raise NoSuchOperationError(text, plugin=process.identity, remedy=remedy)
        for identity, count in Counter(process.identity for process in processes).items():
            able = next(p for p in processes if p.identity == identity).plan.manifest.concurrency
            if count > able:
                text = f"{identity} has {count} stages in a chain, and works on {able} at a time."
                remedy = f'Its plugin.json would have to say "concurrency": {count}.'
                raise UsageError(text, remedy=remedy)
        return processes

    def _begin(
        self,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        deadline: float | None,
        *,
        streams: bool,
    ) -> Link:
        """Begin all stages, and return the last."""
        if deadline is not None and not math.isfinite(deadline):
            text = f"A deadline is a number of seconds from now, not {deadline!r:.40}."
            raise UsageError(text)
        seconds = math.inf if deadline is None else max(0.0, deadline)
        last, link = len(self.stages), None
        try:
            for number, process in enumerate(self._processes(), 1):
                if link is not None:
                    arguments, keywords = (self._between(link),), {}
                arguments, keywords, places, feeds = take_streams(arguments, keywords)
                self._check_feeds(feeds)
                operation = self._names[number - 1][1]
                yields = streams or number < last
                request = Request(
                    operation, arguments, keywords, seconds, feeds=places, streams=yields
                )
                try:
                    pending = process.talk.begin(request)
                except BaseException:
                    for feed in feeds:
                        dismiss(feed)
                    raise
                link = Link(process, pending, link, f"Stage {number} of {self!r}.")
                for at, feed in enumerate(feeds, 1):
                    Feeder(process.talk, pending, at, process.identity).begin(feed)
        except BaseException:
            if link is not None:
                link.leave()
            raise
        assert link is not None  # noqa: S101 - there is a stage
        return link

    @abstractmethod
    def _between(self, link: Link) -> StageStream:
        """Return what a stage yields, for the next one."""

    @abstractmethod
    def _check_feeds(self, feeds: list[Any]) -> None:
        """Refuse streams that cannot be fed from here.

        Raises:
            UsageError: there is one.
        """


class BlockingChain(ChainView):
    """A chain of a blocking application; see `Chain`."""

    def stream(self, *args: Any, deadline: float | None = None, **kwargs: Any) -> BlockingStream:
        """Run it, and return an iterator of what its last stage yields; see `Chain.stream`."""
        link = self._begin(args, kwargs, deadline, streams=True)
        return BlockingStageStream(link, is_last=True)

    def call(self, *args: Any, deadline: float | None = None, **kwargs: Any) -> Any:
        """Run it, and return the value of its last stage; see `Chain.call`."""
        link = self._begin(args, kwargs, deadline, streams=False)
        link.clock.expect()
        try:
            link.process.channel.wait(link.pending)
        except BaseException:  # KeyboardInterrupt: nobody waits for its value any more
            link.leave()
            raise
        with link.outcome(is_last=True, yields=True):
            return link.process.talk.result(link.pending)

    def _between(self, link: Link) -> StageStream:
        return BlockingStageStream(link, is_last=False)

    def _check_feeds(self, feeds: list[Any]) -> None:
        if any(isinstance(feed, AsyncIterator) for feed in feeds):
            text = "An asynchronous iterator was passed to a chain, and this host has no loop."
            raise UsageError(text, remedy="Pass a plain one, or use the host for asyncio.")


class Chain(ChainView):
    """A chain of an asyncio application.

    Args:
        find: returns a loaded plugin by its name.
        stages: such as "source.read".
        awaitable: makes of a call that was begun what can be awaited for its value.
    """

    def __init__(
        self,
        find: Callable[[str], PluginProcess],
        stages: tuple[str, ...],
        awaitable: Callable[[PluginProcess, Pending], Awaitable[Any]],
    ) -> None:
        super().__init__(find, stages)
        self._awaitable = awaitable

    def stream(self, *args: Any, deadline: float | None = None, **kwargs: Any) -> Stream:
        """Run it, and return an asynchronous iterator of what its last stage yields.

        Each stage may take as long for an item as its plugin's wall time budget; the time that it
        waits for the stage before it does not count.

        Args:
            *args: positional arguments of the first stage; an iterator is passed on as a stream.
            deadline: seconds for all of it; None for no bound but those on each item.
            **kwargs: keyword arguments of the first stage.

        Raises:
            PluginNotFoundError: a stage's plugin is not loaded.
            NoSuchOperationError: it has no such operation.
            UsageError: a plugin has more stages than it works on at a time.
            PluginError: a stage cannot be begun. What becomes of them later is raised where the
                stream is read: `KindMismatchError`, where one before the last returned a value.
        """
        link = self._begin(args, kwargs, deadline, streams=True)
        return AsyncStageStream(link, is_last=True)

    async def call(self, *args: Any, deadline: float | None = None, **kwargs: Any) -> Any:
        """Run it, and return the value of its last stage.

        Args:
            *args: as of `stream`.
            deadline: as of `stream`.
            **kwargs: as of `stream`.

        Raises:
            NotAStreamError: the last stage yields.
            PluginError: as `stream`, and what the first stage that failed raised.
        """
        link = self._begin(args, kwargs, deadline, streams=False)
        link.clock.expect()
        link.process.channel.poll_briefly(link.pending)
        with link.outcome(is_last=True, yields=True):
            return await self._awaitable(link.process, link.pending)

    def _check_feeds(self, feeds: list[Any]) -> None:
        """Refuse none: a loop feeds plain ones and asynchronous ones."""

    def _between(self, link: Link) -> StageStream:
        return AsyncStageStream(link, is_last=False)


def _split(stage: object) -> tuple[str, str]:
    name, _, operation = stage.rpartition(".") if isinstance(stage, str) else ("", "", "")
    if not name or not is_name(operation):
        text = f"{stage!r:.80} cannot be a stage of a chain."
        raise UsageError(text, remedy='A stage is a plugin and an operation: "source.read".')
    return name, operation
