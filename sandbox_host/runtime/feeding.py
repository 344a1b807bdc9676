"""Feeds to a call the streams that were passed to it, each item when the plugin has room for it.

What comes from a plain iterator is pulled by a thread of its own, which the reader's credit holds
back; what comes from an asynchronous one, by a task.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError, PayloadTooLargeError
from plugin_sdk.wire.limits import MAX_FEEDS
from plugin_sdk.wire.messages import Feed, FeedEnd
from sandbox_host.errors import MessageTooLargeError, NotSerializableError, UsageError

if TYPE_CHECKING:
    from sandbox_host.ipc.calls import Pending
    from sandbox_host.runtime.conversation import Conversation

_log = logging.getLogger("sandbox_host")

_MAX_MESSAGE: Final = 300

_VALUES: Final = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict})
_STREAMS: Final = (Iterator, AsyncIterator)

_feeding: set[asyncio.Task[None]] = set()


def take_streams(
    arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], tuple[int | str, ...], list[Any]]:
    """Return arguments and keywords without the streams among them, their places, and them.

    A stream is an iterator, or an asynchronous one: what can be read once. Lists and tuples are
    values.

    Raises:
        UsageError: there are more than a call may have.
    """
    if not (
        any(map(_is_stream, arguments)) or (keywords and any(map(_is_stream, keywords.values())))
    ):
        return arguments, keywords, (), []
    found = [(place, value) for place, value in enumerate(arguments) if _is_stream(value)]
    places: list[int | str] = [place for place, _ in found]
    streams = [value for _, value in found]
    for name, value in keywords.items():
        if _is_stream(value):
            places.append(name)
            streams.append(value)
    if len(streams) > MAX_FEEDS:
        text = f"{len(streams)} streams were passed to a call; {MAX_FEEDS} may be."
        raise UsageError(text, remedy="Join some of them, or pass lists.")
    plain = tuple(None if _is_stream(value) else value for value in arguments)
    named = {name: None if _is_stream(value) else value for name, value in keywords.items()}
    return plain, named, tuple(places), streams


class Packed:
    """An item of a stream as another plugin has packed it: it is fed as it is."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload


def dismiss(stream: Any) -> None:
    """Close a stream that is not fed to anybody after all, as far as that can be done here."""
    close = getattr(stream, "close", None)
    if close is not None:
        with contextlib.suppress(Exception):
            close()


def let_go(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    """Close the streams among the arguments of a call that is not made after all."""
    for stream in take_streams(arguments, keywords)[3]:
        dismiss(stream)


def _is_stream(value: object) -> bool:
    return type(value) not in _VALUES and isinstance(value, _STREAMS)


class Feeder:
    """Feeds one stream to one call.

    Args:
        talk: with the plugin.
        pending: the call.
        number: the stream's, from 1 on.
        plugin: its identity, for errors.
    """

    def __init__(self, talk: Conversation, pending: Pending, number: int, plugin: str) -> None:
        self._talk = talk
        self._pending = pending
        self._number = number
        self._plugin = plugin
        self._flow = pending.feeds[number]

    def begin(self, items: Iterator[Any] | AsyncIterator[Any]) -> None:
        """Feed it from a thread, or, where it is asynchronous, from a task of this loop."""
        if not isinstance(items, AsyncIterator):
            self.start(items)
            return
        task = asyncio.get_running_loop().create_task(self.run(items))
        _feeding.add(task)  # the loop itself holds a task only weakly
        task.add_done_callback(_feeding.discard)

    def start(self, items: Iterator[Any]) -> None:
        """Feed it from a thread of its own, until it or the call ends."""
        name = f"sandbox-host-feed-{self._plugin}"
        threading.Thread(target=self._run, args=(items,), name=name, daemon=True).start()

    def _run(self, items: Iterator[Any]) -> None:
        try:
            for item in items:
                payload = self._pack(item)
                self._flow.wait(self._fits_now(len(payload)))
                if not self._send(payload):
                    break
            self._end(None)
        except BaseException as error:  # noqa: BLE001 - it is the application's, and told to the reader
            self._end(error)
        finally:
            # Its own ``finally`` runs here and now, not when it is collected.
            dismiss(items)

    async def run(self, items: AsyncIterator[Any]) -> None:
        """Feed it from a task, until it or the call ends."""
        news = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(news.set)

        self._flow.wake = wake
        try:
            async for item in items:
                payload = self._pack(item)
                while not (self._fits(len(payload)) or self._flow.stopped):
                    news.clear()
                    if not self._fits(len(payload)):
                        await news.wait()
                if not self._send(payload):
                    break
            self._end(None)
        except Exception as error:  # noqa: BLE001 - as above
            self._end(error)
        except BaseException as error:
            self._end(error)  # its task was cancelled, and the reader must not wait
            raise
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                with contextlib.suppress(Exception):
                    await close()

    def _fits_now(self, size: int) -> Callable[[], bool]:
        return lambda: self._fits(size)

    def _fits(self, size: int) -> bool:
        return self._talk.channel.may_feed(self._pending.id, self._number, size)

    def _pack(self, item: Any) -> bytes:
        if type(item) is Packed:
            return item.payload
        try:
            return codec.pack(item, self._talk.bounds)
        except PayloadTooLargeError as error:
            text = f"An item of a stream to {self._what} is too large: {error}."
            raise MessageTooLargeError(text, plugin=self._plugin) from None
        except PayloadError as error:
            text = f"An item of a stream to {self._what} cannot be sent: {error}."
            raise NotSerializableError(text, plugin=self._plugin) from None

    @property
    def _what(self) -> str:
        return f"{self._plugin}.{self._pending.operation}"

    def _send(self, payload: bytes) -> bool:
        if self._flow.stopped or self._pending.done():
            return False
        feed = Feed(self._pending.id, self._number, payload=payload)
        sent = self._talk.feed(self._pending, self._number, feed)
        if sent:
            self._flow.sent()
        return sent

    def _end(self, problem: BaseException | None) -> None:
        if self._flow.stopped or self._pending.done():
            if problem is not None:
                _log.debug("a stream to %s ended late: %s", self._what, problem)
            return
        payload = b""
        if problem is not None:
            self._flow.problem = problem
            # Its class alone: what an application's error says is not a plugin's to know.
            payload = codec.pack({"message": type(problem).__name__[:_MAX_MESSAGE]})
        end = FeedEnd(self._pending.id, self._number, problem is None, payload=payload)
        if self._talk.feed(self._pending, self._number, end):
            self._flow.sent(ended=True)
