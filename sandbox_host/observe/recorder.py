"""Writes a recording while a plugin runs, beside it: whoever reads from the plugin never waits.

Messages wait in a bounded queue for a thread of the recording's own, which decodes them, replaces
the values of redacted fields, and writes. What cannot be decoded is not written, because what
cannot be looked through cannot be redacted. At its size limit, or when more waits than may, the
recording stops and says so at its end; the plugin goes on.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import LocalProtocolError, PayloadError
from plugin_sdk.wire.frames import build_frame
from plugin_sdk.wire.limits import MAX_PAYLOAD_BYTES, REPORT
from plugin_sdk.wire.message import Message
from plugin_sdk.wire.messages import (
    Answer,
    Ask,
    Call,
    Deliver,
    Failure,
    Feed,
    FeedEnd,
    Handled,
    Result,
)
from plugin_sdk.wire.services import STORE
from sandbox_host.errors import RecordingError, UsageError
from sandbox_host.model import MIB
from sandbox_host.observe.recording import (
    ABOUT,
    COMPLETE,
    END,
    FAULT,
    FULL,
    KEPT,
    LEFT_OUT,
    MAGIC,
    MAX_FILE_BYTES,
    MAX_NAME_LENGTH,
    MAX_NAMES,
    MAX_RECORDS,
    MAY_BE_EMPTY,
    RECORDED,
    REDACTED,
    SLOW,
    STOPPED,
    About,
    arguments_of,
)
from sandbox_host.reading import is_printable, shown_bytes

_log = logging.getLogger("sandbox_host")

DEFAULT_BYTES: Final = 64 * MIB
LEAST_BYTES: Final = 64 * 1024
MAX_WAITING_BYTES: Final = 32 * MIB
"""Of what has not been written yet: four of the largest payloads."""

_MESSAGE_BYTES: Final = 256
"""What a message takes while it waits, beside its payload."""

_END_BYTES: Final = 1_024
_CLOSING_SECONDS: Final = 20.0
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TEXTS: Final = ("message", "traceback")
_SUFFIX: Final = ".recording"


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """What to record of a plugin, and where to.

    Attributes:
        path: a file that is not there yet, or a directory: then a file in it that is called after
            the plugin.
        redact: names of fields whose values are replaced before anything is written, at any depth,
            whether in upper or lower case; keyword arguments have such names as well.
        max_bytes: of the file, from 64 KiB to 256 MiB.

    Raises:
        UsageError: a value is out of range.
    """

    path: str | os.PathLike[str]
    redact: tuple[str, ...] = ()
    max_bytes: int = DEFAULT_BYTES

    def __post_init__(self) -> None:
        names: Any = self.redact
        if isinstance(names, str) or len(names) > MAX_NAMES or not all(map(_is_name, names)):
            text = f"What is redacted are up to {MAX_NAMES} names of fields, not {names!r:.80}."
            raise UsageError(text, remedy=f"A name has 1 to {MAX_NAME_LENGTH} characters.")
        if not LEAST_BYTES <= self.max_bytes <= MAX_FILE_BYTES:
            text = (
                f"A recording has from {shown_bytes(LEAST_BYTES)} to "
                f"{shown_bytes(MAX_FILE_BYTES)}, not {self.max_bytes!r:.40}."
            )
            raise UsageError(text)

    def file(self, plugin: str) -> Path:
        """Return the file for a plugin, by its identity."""
        path = Path(self.path)
        return path / f"{plugin}{_SUFFIX}" if path.is_dir() else path


def _is_name(name: object) -> bool:
    fits = isinstance(name, str) and 0 < len(name) <= MAX_NAME_LENGTH
    return fits and is_printable(str(name)) and bool(str(name).strip())


class Redactor:
    """Replaces the values of named fields.

    Args:
        names: of the fields, in any case.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(dict.fromkeys(name.casefold() for name in names))
        self._names = frozenset(self.names)

    def __bool__(self) -> bool:
        return bool(self._names)

    def hides(self, name: object) -> bool:
        """Tell whether a field of that name is replaced."""
        return isinstance(name, str) and name.casefold() in self._names

    def value(self, value: Any) -> Any:
        """Return the same without what is to be hidden. No deeper than a payload can be."""
        if isinstance(value, dict):
            return {k: REDACTED if self.hides(k) else self.value(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self.value(one) for one in value]
        return value

    def arguments(self, service: str, value: list[Any]) -> list[Any]:
        """Return the arguments of a service; what a store keeps is packed, and unpacked here."""
        if service == STORE:
            value = [[self._stored(one) for one in value[0]], *value[1:]]
        return [self.value(one) for one in value]

    def answer(self, service: str, value: Any) -> Any:
        """Return what a service returned."""
        return self._stored(value) if service == STORE else self.value(value)

    def _stored(self, value: Any) -> Any:
        if not isinstance(value, bytes) or not self:
            return value
        try:
            return codec.pack(self.value(codec.unpack(value)))
        except PayloadError:
            return REDACTED.encode()  # what cannot be looked through


def canonical(value: Any) -> bytes:
    """Return a value packed, the same bytes for the same value.

    Raises:
        PayloadError: it cannot be.
    """
    return codec.pack(_sorted(value))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(one) for one in value] if isinstance(value, list) else value


class Recorder:
    """One recording, from its first message on. Thread-safe.

    Args:
        options: where to, and what not.
        about: what is recorded; without the redacted names, which come from the options.

    Raises:
        RecordingError: the file is there already, or cannot be made.
    """

    def __init__(self, options: RecordingOptions, about: About) -> None:
        self._redactor = Redactor(options.redact)
        self._plugin = about.plugin
        self.path = options.file(about.plugin)
        self._most = options.max_bytes
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Message, int]] = deque()
        self._waiting_bytes = 0
        self._closing = self._closed = False
        self._stopped = ""
        self._digest = hashlib.sha256()
        self._bytes = self._records = 0
        self._services: dict[int, str] = {}
        self._hidden: dict[int, frozenset[int]] = {}
        try:
            self._descriptor = os.open(self.path, _CREATE, 0o600)
        except OSError as error:
            text = f"The recording {self.path} cannot be made: {error.strerror}."
            remedy = "Name a file that is not there yet, in a directory that you may write to."
            raise RecordingError(text, remedy=remedy) from None
        header = replace(about, redacted=self._redactor.names)
        try:
            self._put(MAGIC)
            self._put(build_frame(ABOUT, header.packed(), MAX_PAYLOAD_BYTES))
        except OSError as error:
            os.close(self._descriptor)
            text = f"The recording {self.path} cannot be written: {error.strerror}."
            raise RecordingError(text) from None
        self._thread = threading.Thread(
            target=self._run, name=f"sandbox-host-recording-{about.plugin}", daemon=True
        )
        self._thread.start()

    @property
    def problem(self) -> str:
        """Why it stopped before its plugin did, as the end of a sentence; "" where it did not."""
        return STOPPED[self._stopped or COMPLETE]

    def take(self, message: Message) -> None:
        """Record a message that was sent or came, if it is of those. Never waits for the disk.

        Whoever calls this does so in the order of the messages.
        """
        if self._stopped or type(message) not in RECORDED:
            return
        size = len(message.payload) + _MESSAGE_BYTES
        with self._changed:
            if self._closing:
                return
            if self._waiting_bytes + size > MAX_WAITING_BYTES:
                self._stopped = SLOW
                return
            message.payload = bytes(message.payload)  # it may be in parts, which may change
            self._waiting.append((message, size))
            self._waiting_bytes += size
            self._changed.notify()

    def close(self) -> None:
        """Write what waits, and the end; wait for that. Again, it does nothing."""
        with self._changed:
            again, self._closed = self._closed, True
            self._closing = True
            self._changed.notify()
        self._thread.join(_CLOSING_SECONDS)
        if self.problem and not again:
            _log.warning("%s: its recording %s stopped: %s.", self._plugin, self.path, self.problem)

    # -- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (message := self._next()) is not None:
                if self._stopped in {FULL, FAULT}:
                    continue
                self._record(message)
        except OSError as error:
            _log.error("%s: its recording cannot be written: %s", self._plugin, error)
            self._stopped = FAULT
        except Exception:  # noqa: BLE001 - the plugin goes on without it
            _log.exception("%s: a fault in its recording", self._plugin)
            self._stopped = FAULT
        finally:
            self._finish()

    def _next(self) -> Message | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if not self._waiting:
                return None
            message, size = self._waiting.popleft()
            self._waiting_bytes -= size
            return message

    def _finish(self) -> None:
        end = {
            "stopped": self._stopped or COMPLETE,
            "records": self._records,
            "sha256": self._digest.digest(),
        }
        try:
            self._put(build_frame(END, codec.pack(end, REPORT), MAX_PAYLOAD_BYTES))
        except OSError as error:
            _log.error("%s: its recording has no end: %s", self._plugin, error)
            self._stopped = FAULT
        finally:
            with self._changed:
                self._closing = True
                self._waiting.clear()
            os.close(self._descriptor)

    def _record(self, message: Message) -> None:
        payload = self._kept(message)
        if hasattr(message, "deadline_ns"):
            message = type(message)(
                *(
                    0 if name == "deadline_ns" else getattr(message, name)
                    for name, _ in message.fields
                )
            )  # a reading of this machine's clock says nothing to anybody else
        header = (LEFT_OUT if payload is None else KEPT) + message.header()
        try:
            frame = build_frame(header, payload or b"", MAX_PAYLOAD_BYTES)
        except LocalProtocolError:  # redacted, it has grown beyond the limit
            frame = build_frame(LEFT_OUT + header[1:], b"", MAX_PAYLOAD_BYTES)
        if self._bytes + len(frame) > self._most - _END_BYTES or self._records >= MAX_RECORDS:
            self._stopped = FULL
            return
        self._put(frame)
        self._records += 1

    def _put(self, data: bytes) -> None:
        self._digest.update(data)
        self._bytes += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    # -- what is written of a message -------------------------------------------------------

    def _kept(self, message: Message) -> bytes | None:
        """Return the payload as it is written, or None where it is not."""
        try:
            return self._looked_through(message)
        except PayloadError:
            return None

    def _looked_through(self, message: Message) -> bytes:
        number: int = getattr(message, "id", 0)
        if isinstance(message, Failure):
            self._hidden.pop(number, None)
        if isinstance(message, Ask):
            self._services[number] = message.service
        service = self._services.pop(number, "") if isinstance(message, Answer) else ""
        if not message.payload and isinstance(message, MAY_BE_EMPTY):
            return b""
        value = codec.unpack(message.payload)
        places = arguments_of(message, value)
        if isinstance(message, Failure):
            # Where it was raised on this machine is nobody else's to know, and is not compared.
            wanted = ("type", "code") if self._redactor else ("type", "code", "message")
            return codec.pack({key: value[key] for key in wanted if key in value})
        if not self._redactor:
            return message.payload
        return codec.pack(self._redacted(message, value, places, service))

    def _redacted(
        self, message: Message, value: Any, places: tuple[int | str, ...], service: str
    ) -> Any:
        redactor = self._redactor
        match message:
            case Call():
                hidden = [n for n, place in enumerate(places, 1) if redactor.hides(place)]
                if hidden:
                    self._hidden[message.id] = frozenset(hidden)
                return [*map(redactor.value, value[:2]), *value[2:]]
            case Deliver():
                return {**value, "data": redactor.value(value["data"])}
            case Ask():
                return redactor.arguments(message.service, value)
            case Answer() if message.ok:
                return redactor.answer(service, value)
            case Answer() | Handled() | FeedEnd():
                return _without_texts(redactor.value(value))
            case Feed() if message.stream in self._hidden.get(message.id, ()):
                return REDACTED
            case Result():
                self._hidden.pop(message.id, None)
            case _:
                pass
        return redactor.value(value)


def _without_texts(value: Any) -> Any:
    """Return an error as it is told, without what may quote a value."""
    if isinstance(value, dict):
        return {k: REDACTED if k in _TEXTS else _without_texts(v) for k, v in value.items()}
    return [_without_texts(one) for one in value] if isinstance(value, list) else value
