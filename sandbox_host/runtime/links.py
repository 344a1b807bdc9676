"""One stage of a chain while it runs: its clock, its stream, and what becomes of its neighbours."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire.limits import MAX_STREAM_BYTES
from sandbox_host.errors import KindMismatchError, NotAStreamError, OperationError, PluginError
from sandbox_host.runtime.feeding import Packed
from sandbox_host.runtime.streaming import BlockingStream, Stream, StreamView

if TYPE_CHECKING:
    from sandbox_host.ipc.calls import Pending
    from sandbox_host.runtime.process import PluginProcess

_BROKEN: Final = "StreamBrokenError"
_ITEMS_AT_A_TIME: Final = 16


class StageClock:
    """A stage's time for its next item, or its value: the plugin's wall time budget.

    It runs while somebody waits for that and the stage has something to work on, and begins anew
    when it has taken from what it is fed: it is not to blame for who feeds it slowly.

    Args:
        process: the stage's plugin.
        pending: its call.
    """

    def __init__(self, process: PluginProcess, pending: Pending) -> None:
        self._process = process
        self._pending = pending
        self._lock = threading.Lock()
        self._waited_for = False
        self._runs = False

    def expect(self) -> None:
        """Somebody waits from now on."""
        with self._lock:
            self._waited_for = True
            self._runs = False
        self.look(anew=True)

    def rest(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            if self._waited_for:
                self._waited_for = False
                self._stop()

    def look(self, *, anew: bool) -> None:
        """Let it run or stand, by what there is to work on now; ``anew`` where it took some."""
        with self._lock:
            if not self._waited_for or self._is_ending():
                return
            if not self._has_work():
                self._stop()
            elif anew or not self._runs:
                self._runs = True
                seconds = self._process.plan.limits.wall_seconds
                self._process.talk.await_item(self._pending, seconds)

    def _stop(self) -> None:
        self._runs = False
        if not self._is_ending():
            self._process.talk.rest(self._pending)

    def _is_ending(self) -> bool:
        pending = self._pending
        return pending.done() or pending.cancelled or pending.interrupted_at > 0

    def _has_work(self) -> bool:
        """Tell whether it waits for nobody: of all it reads there is some, or there is no more."""
        return all(
            feed.stopped or feed.ended or not _is_taken(self._process, self._pending, number)
            for number, feed in self._pending.feeds.items()
        )


def _is_taken(process: PluginProcess, pending: Pending, number: int) -> bool:
    """Tell whether a call has taken all that it was fed of one stream."""
    # Only where nothing is on its way may more than a window be sent at once.
    return process.channel.may_feed(pending.id, number, MAX_STREAM_BYTES + 1)


class Link:
    """One stage of a chain that runs.

    Args:
        process: its plugin.
        pending: its call, whose feeds have not begun.
        before: the stage that it reads, or None.
        place: where it stands, for errors: "stage 2 of a.read, b.process".
    """

    def __init__(
        self, process: PluginProcess, pending: Pending, before: Link | None, place: str
    ) -> None:
        self.process = process
        self.pending = pending
        self.clock = StageClock(process, pending)
        self._before = before
        self._place = place
        self._broken = False
        for feed in pending.feeds.values():
            feed.follower = self._moved
        self._moved(True)

    def leave(self) -> None:
        """End it: nobody reads it any more. Those before it follow."""
        self.process.talk.cancel(self.pending)

    def _moved(self, taken: bool) -> None:
        """What it is fed goes on, was taken, or is wanted no more. From any thread."""
        feeds = self.pending.feeds
        if self._before is not None and any(feed.stopped for feed in feeds.values()):
            self._before.leave()
            return
        for number, feed in feeds.items():
            if feed.ended and feed.problem is not None and not feed.stopped:
                # It may end well without what was cut off: only if it has come so far, it matters.
                self._broken = self._broken or _is_taken(self.process, self.pending, number)
        self.clock.look(anew=taken)

    def _problem(self) -> PluginError | None:
        """Return what cut off the stream that it reads, where that came from another plugin."""
        problems = (feed.problem for feed in self.pending.feeds.values())
        return next((one for one in problems if isinstance(one, PluginError)), None)

    @contextlib.contextmanager
    def outcome(self, *, is_last: bool, yields: bool = False) -> Iterator[None]:
        """Turn this stage's end, which is taken within, into the chain's.

        Args:
            is_last: the application reads it.
            yields: what is wrong with it, where it is no stream or no value: it yields.

        Raises:
            PluginError: the first failure, with its place; also where this stage ended well
                although its input was cut off: what it made of a part was not asked for.
        """
        try:
            yield
        except PluginError as error:
            told = self._told(error, is_last=is_last, yields=yields)
            if told is error:
                raise
            raise told from told.__cause__
        problem = self._problem()
        if self._broken and problem is not None:
            raise problem

    def _told(self, error: PluginError, *, is_last: bool, yields: bool) -> PluginError:
        problem = self._problem()
        is_no_stream = isinstance(error, NotAStreamError)
        if problem is not None and (_echoes(error) or (self._broken and is_no_stream)):
            return problem
        if is_no_stream:
            error = self._mismatch(is_last=is_last, yields=yields)
        error.add_note(self._place)
        return error

    def _mismatch(self, *, is_last: bool, yields: bool) -> PluginError:
        plugin = self.process.identity
        what = f"{plugin}.{self.pending.operation}"
        if not is_last:
            text = f"{what} returns a value, and the stage after it in the chain reads a stream."
            remedy = "Let it yield, or make it the last stage."
            return KindMismatchError(
                text, plugin=plugin, wanted="stream", found="value", remedy=remedy
            )
        if yields:
            text = f"{what}, the last stage of the chain, yields a stream."
            return NotAStreamError(text, plugin=plugin, remedy="Read it: `chain.stream(...)`.")
        text = f"{what}, the last stage of the chain, returns a value."
        return NotAStreamError(text, plugin=plugin, remedy="Call it: `chain.call(...)`.")


def _echoes(error: PluginError) -> bool:
    """Tell whether an operation raised what it met reading a stream that was cut off."""
    return isinstance(error, OperationError) and error.type_name.rpartition(".")[2] == _BROKEN


class StageStream(StreamView):
    """What a stage yields.

    Args:
        link: the stage.
        is_last: the application reads it; else the next stage does, and items stay packed.
    """

    def __init__(self, link: Link, *, is_last: bool) -> None:
        super().__init__(link.process, link.pending)
        self._link = link
        self._is_last = is_last

    def _expect(self) -> None:
        self._link.clock.expect()

    def _take(self) -> tuple[bool, Any]:
        there, item = super()._take()
        if there:
            self._link.clock.rest()
        return there, item

    def _item(self, payload: bytes) -> Any:
        if self._is_last or not payload:  # nothing is not a value: the plugin is ended for it
            return super()._item(payload)
        return Packed(payload)

    def _finish(self) -> None:
        with self._link.outcome(is_last=self._is_last):
            super()._finish()


class BlockingStageStream(StageStream, BlockingStream):
    """The same for ``for``."""


class AsyncStageStream(StageStream, Stream):
    """The same for ``async for``."""

    _since_pause = 0

    async def __anext__(self) -> Any:
        item = await super().__anext__()
        if not self._is_last:
            self._since_pause = (self._since_pause + 1) % _ITEMS_AT_A_TIME
            if not self._since_pause:
                await asyncio.sleep(0)  # two quick plugins must not keep the loop to themselves
        return item
