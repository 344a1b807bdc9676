"""Plays a recording against a plugin, in a sandbox of its own, and finds what is different now.

The plugin is loaded as every plugin is, from a copy with a throw-away signature, and gets the
recorded calls and events in their order, one at a time. What it asks the host for is answered out
of the recording: the application, its services and other plugins are not there, nor is the store
as it was. Connections, clocks and random numbers are what they are now.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.limits import EVENT, REPORT
from plugin_sdk.wire.messages import Failure, Handled, Result
from sandbox_host.broker.packed import PackedEvent
from sandbox_host.errors import PluginError, RecordingError, UsageError
from sandbox_host.runtime.answers import clean
from sandbox_host.runtime.compared import Comparison, Difference, lowered, shown
from sandbox_host.runtime.feeding import Feeder
from sandbox_host.runtime.party import Request
from sandbox_host.runtime.playback import Playback, ReplayHost
from sandbox_host.runtime.recorded import config_digest
from sandbox_host.runtime.streaming import BlockingStream

if TYPE_CHECKING:
    from plugin_sdk.wire.message import Message
    from sandbox_host.admission.instances import Instance
    from sandbox_host.backends.base import Backend
    from sandbox_host.bundle.contents import Contents
    from sandbox_host.config import HostConfig
    from sandbox_host.ipc.calls import Pending
    from sandbox_host.observe.recording import Fed, Published, Recording, Step, Together
    from sandbox_host.runtime.process import PluginProcess

MAX_DIFFERENCES: Final = 1_000

_START: Final = "start"
_NOTHING: Final = "nothing"
_MAX_NAME: Final = 300


@dataclass(frozen=True, slots=True)
class Found:
    """One difference, and where.

    Attributes:
        step: number of the call or event, from 1 on; 0 is the plugin's start.
        name: of the operation; of an event, its type after an "@".
        difference: what.
    """

    step: int
    name: str
    difference: Difference

    def __str__(self) -> str:
        where = f"{self.name} #{self.step}" if self.step else self.name
        return f"{where}: {self.difference}"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A call or event that was not compared, and why."""

    step: int
    name: str
    why: str


@dataclass(slots=True)
class Replayed:
    """What a replay came to.

    Attributes:
        version: of the plugin that was played against.
        compared: so many calls and events were compared.
        found: differences, in the order of the recording.
        skipped: what was not compared.
        notes: what else a reader should know.
    """

    version: str = ""
    compared: int = 0
    found: list[Found] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """How to replay.

    Attributes:
        every: go on after the first difference.
        tolerance: of numbers; see `Comparison`.
        ignore: names of fields that may differ.
    """

    every: bool = False
    tolerance: float = 0.0
    ignore: tuple[str, ...] = ()


def replay(
    recording: Recording,
    contents: Contents,
    services: tuple[str, ...],
    config: HostConfig,
    options: ReplayOptions | None = None,
    *,
    instance: Instance | None = None,
    backend: Backend | None = None,
) -> Replayed:
    """Play a recording against a plugin.

    Args:
        recording: what `read_recording` returned.
        contents: the plugin's files; a signature among them is not used.
        services: of the application, that its plugin.json requests: the host offers them.
        config: the operator's decisions, such as grants; its trust store and state are not used.
        options: how.
        instance: which of several instances is played against; None for the plugin itself.
        backend: another than this system's, for the host's own tests.

    Raises:
        UsageError: the recording is of another plugin.
        RecordingError: it has nothing that can be compared.
        SandboxHostError: whatever `SandboxHost.load` raises.
    """
    chosen = options or ReplayOptions()
    playback = Playback(recording)
    with ReplayHost(config, playback, services, backend) as host:
        process = host.load_contents(contents, instance)
        plugin = process.plan.manifest.identity  # a recording is of a plugin, whichever instance
        if plugin != recording.about.plugin:
            text = f"The recording is of {recording.about.plugin}, not of {plugin}."
            raise UsageError(text, remedy="Replay it against a version of the same plugin.")
        player = _Player(recording, process, playback, chosen)
        replayed = player.play()
        host.unload(process)
    if not replayed.compared and not replayed.found:
        text = "The recording has no call or event whose outcome can be compared."
        raise RecordingError(text, remedy="Record one that ends, and is not cancelled.")
    return replayed


class _BrokenFeedError(Exception):
    """Stands for what cut off a stream that was passed to a call."""


def _fed(fed: Fed) -> Iterator[Any]:
    """Yield what was fed; an item that was left out is None."""
    for item in fed.items:
        yield codec.unpack(item) if item else None
    if fed.problem is not None:
        told = codec.unpack(fed.problem) if fed.problem else {}
        name = told.get("message") if isinstance(told, dict) else None
        # The plugin is told the class's name, and no more.
        plain = name if isinstance(name, str) and name.isidentifier() else "StreamError"
        raise type(plain[:_MAX_NAME], (_BrokenFeedError,), {})


class _Player:
    """Plays one recording to one plugin."""

    def __init__(
        self,
        recording: Recording,
        process: PluginProcess,
        playback: Playback,
        options: ReplayOptions,
    ) -> None:
        self._recording = recording
        self._process = process
        self._playback = playback
        self._every = options.every
        ignored = lowered((*options.ignore, *recording.about.redacted))
        self._compare = Comparison(options.tolerance, ignored)
        self._replayed = Replayed(process.plan.manifest.version)
        self._handled: object = None
        process.channel.tap = self._hear

    def _hear(self, message: Message) -> None:
        # Nobody holds what is pending for an event: it may be over before one could look for it.
        if isinstance(message, Handled):
            self._handled = message

    def play(self) -> Replayed:
        about, notes = self._recording.about, self._replayed.notes
        if about.config_digest != config_digest(self._process.plan, about.redacted):
            notes.append("it was recorded with another configuration of the plugin")
        if any(len(group.steps) > 1 for group in self._recording.groups):
            notes.append("calls that overlapped are replayed one after the other")
        for group in self._recording.groups:
            if not self._play_group(group):
                break
        return self._replayed

    def _play_group(self, group: Together) -> bool:
        """Return whether to go on."""
        for step in group.steps:
            self._play_step(step)
            if self._is_over():
                return False
        self._check_published(group)
        return not self._is_over()

    def _is_over(self) -> bool:
        found = self._replayed.found
        if len(found) >= MAX_DIFFERENCES:
            return True
        return bool(found) and not (self._every and self._process.takes_calls)

    def _differs(self, step: Step | None, difference: Difference | None) -> None:
        if difference is not None:
            number, name = (step.number, _named(step)) if step else (0, _START)
            self._replayed.found.append(Found(number, name, difference))

    def _play_step(self, step: Step) -> None:
        if why := _unfit(step):
            self._replayed.skipped.append(Skipped(step.number, _named(step), why))
            return
        try:
            difference = self._deliver(step) if step.is_event else self._call(step)
        except PluginError as error:
            # It takes no calls any more, or too much waits: both are news.
            difference = _changed(_outcome(step.answer), clean(error.message, _MAX_NAME))
        self._replayed.compared += 1
        for service in self._playback.take_unknown():
            what = f"asks for {clean(service, _MAX_NAME)} as it was not asked for before"
            self._differs(step, Difference("service", _NOTHING, what))
        self._differs(step, difference)

    # -- calls ------------------------------------------------------------------------------

    def _call(self, step: Step) -> Difference | None:
        talk, limits = self._process.talk, self._process.limits
        seconds = math.inf if step.streams else limits.wall_seconds
        request = Request(
            step.name,
            (),
            {},
            seconds,
            feeds=step.places,
            streams=step.streams,
            packed=step.payload,
        )
        pending = talk.begin(request)
        for number, fed in enumerate(step.fed, 1):
            Feeder(talk, pending, number, self._process.identity).start(_fed(fed))
        difference = self._read_items(step, pending) if step.streams else None
        if not step.streams:
            self._process.channel.wait(pending)
        return difference or self._compare_answers(step, pending)

    def _read_items(self, step: Step, pending: Pending) -> Difference | None:
        recorded = iter(step.items)
        with BlockingStream(self._process, pending) as stream:
            index = 0
            try:
                for item in stream:
                    packed = next(recorded, b"")
                    if packed == b"":
                        return Difference(f"item[{index}]", _NOTHING, shown(item))
                    if packed is not None:
                        found = self._compare.first(f"item[{index}]", codec.unpack(packed), item)
                        if found:
                            return found
                    index += 1
            except PluginError:
                pass  # the answer tells what became of it
        left = next(recorded, b"")
        if left == b"" or not isinstance(pending.answer, Result):
            return None
        old = shown(codec.unpack(left)) if left else "an item"
        return Difference(f"item[{index}]", old, _NOTHING)

    def _compare_answers(self, step: Step, pending: Pending) -> Difference | None:
        recorded, answer = step.answer, pending.answer
        if pending.yields:
            return _changed(_outcome(recorded), "yields a stream")
        if isinstance(recorded, Result) and isinstance(answer, Result):
            if not step.answer_kept:
                return None
            try:
                value = codec.unpack(answer.payload)
            except PayloadError as error:
                return _changed(_outcome(recorded), clean(str(error), _MAX_NAME))
            return self._compare.first("result", codec.unpack(recorded.payload), value)
        return _compare_outcomes(step, answer)

    # -- events -----------------------------------------------------------------------------

    def _deliver(self, step: Step) -> Difference | None:
        if step.name not in self._process.handles:
            return Difference("handler", "handles it", "has no handler")
        told = codec.unpack(step.payload or b"")
        try:
            data = codec.pack(told["data"], EVENT)
        except PayloadError as error:
            text = f"The recording has an event that none can be: {error}."
            raise RecordingError(text) from None
        event = PackedEvent(step.name, data, told["timestamp"], told["source"], told["id"])
        channel = self._process.channel
        self._process.check_ready()
        self._handled = None
        self._process.talk.deliver(event)
        for pending in channel.outstanding():
            if pending.is_delivery:
                channel.wait(pending)
                self._handled = self._handled or pending.answer
        return _compare_outcomes(step, self._handled)

    def _check_published(self, group: Together) -> None:
        step = group.steps[-1] if group.steps else None
        expected = group.published
        came = self._playback.take(len(expected), lambda: self._process.takes_calls)
        if len(group.steps) > 1:
            came = self._in_order(expected, came)
        for index in range(max(len(expected), len(came))):
            old = expected[index] if index < len(expected) else None
            new = came[index] if index < len(came) else None
            if difference := self._compare_events(f"published[{index}]", old, new):
                self._differs(step, difference)
                return

    def _compare_events(
        self, path: str, old: Published | None, new: tuple[str, bytes] | None
    ) -> Difference | None:
        types = old.type if old else _NOTHING, new[0] if new else _NOTHING
        if old is None or new is None or types[0] != types[1]:
            return Difference(path, *types)
        if old.payload is None:
            return None
        try:
            pair = codec.unpack(old.payload), codec.unpack(new[1])
        except PayloadError as error:
            return Difference(path, types[0], clean(str(error), _MAX_NAME))
        return self._compare.first(f"{path}.{types[0]}", *pair)

    def _in_order(
        self, expected: list[Published], came: list[tuple[str, bytes]]
    ) -> list[tuple[str, bytes]]:
        """Return what came in the order in which it was expected, as far as it was."""
        left, ordered = list(came), []
        for one in expected:
            same = (i for i, new in enumerate(left) if not self._compare_events("", one, new))
            index = next(same, 0)
            if left:
                ordered.append(left.pop(index))
        return ordered + left


def _named(step: Step) -> str:
    return f"@{step.name}" if step.is_event else step.name


def _unfit(step: Step) -> str:
    """Return why a step cannot be compared; "" where it can."""
    if step.payload is None:
        return "what it was asked with was not kept"
    if any(item is None for fed in step.fed for item in fed.items):
        return "what was streamed to it was not kept"
    if step.cancelled:
        return "it was cancelled, or too late"
    return "" if step.answer is not None else "it was not answered"


def _compare_outcomes(step: Step, answer: object) -> Difference | None:
    old, new = _outcome(step.answer), _outcome(answer)
    same_kind = type(step.answer) is type(answer)
    return None if old == new or (same_kind and not step.answer_kept) else _changed(old, new)


def _changed(old: str, new: str) -> Difference:
    return Difference("outcome", old, new)


def _outcome(answer: object) -> str:
    """Return what became of a call or event, by codes and names of types alone."""
    if isinstance(answer, Result):
        return "returns"
    told = None
    if isinstance(answer, Failure | Handled) and answer.payload:
        with contextlib.suppress(PayloadError):  # what the plugin says now has not been read yet
            told = codec.unpack(answer.payload, REPORT)
    if isinstance(answer, Failure):
        name = _type_of(told)
        return f"raises {name}" if name else f"fails: {clean(answer.code, _MAX_NAME)}"
    if isinstance(answer, Handled):
        errors = told.get("errors") if isinstance(told, dict) else None
        names = [_type_of(one) for one in errors] if isinstance(errors, list) else []
        return "is handled" if answer.ok else f"a handler raises {', '.join(names)}"
    return clean(getattr(answer, "message", None), _MAX_NAME) or "is not answered"


def _type_of(told: object) -> str:
    return clean(told.get("type"), _MAX_NAME) if isinstance(told, dict) else ""
