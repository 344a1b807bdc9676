"""Reads a recording, strictly: it may have been handed around, and is a stranger's.

The digest finds what was damaged, not who did it. So whatever does not fit together is refused as
well, under limits that hold before anything is read.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError, RemoteProtocolError
from plugin_sdk.wire.frames import build_frame
from plugin_sdk.wire.limits import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, PREFIX_BYTES, REPORT
from plugin_sdk.wire.message import Message
from plugin_sdk.wire.messages import (
    Answer,
    Ask,
    Call,
    Cancel,
    Deliver,
    Failure,
    Feed,
    FeedEnd,
    Handled,
    Publish,
    Result,
    Yield,
    parse_message,
)
from sandbox_host.errors import RecordingError
from sandbox_host.observe.recording import (
    ABOUT,
    END,
    KEPT,
    LEFT_OUT,
    MAGIC,
    MAX_FILE_BYTES,
    MAX_RECORDS,
    MAY_BE_EMPTY,
    RECORDED,
    STOPPED,
    About,
    Fed,
    Published,
    Recording,
    Served,
    Step,
    Together,
    arguments_of,
)
from sandbox_host.reading import (
    BadValueError,
    check_keys,
    expected,
    read_object,
    read_text,
    read_whole,
)

_PREFIX: Final = struct.Struct(">II")
_READ_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def read_recording(path: Path) -> Recording:
    """Read a recording.

    Raises:
        RecordingError: it cannot be read, was not finished, or is not as a host wrote it.
    """
    try:
        descriptor = os.open(path, _READ_FLAGS)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _refused(path, "it is no file")
            if status.st_size > MAX_FILE_BYTES:
                raise _refused(path, f"it has {status.st_size} bytes; {MAX_FILE_BYTES} are allowed")
            return _read(file)
    except OSError as error:
        text = f"The recording {path} cannot be read: {error.strerror}."
        raise RecordingError(text) from None
    except (BadValueError, PayloadError, RemoteProtocolError) as error:
        raise _refused(path, str(error)) from None


def _refused(path: Path, why: str) -> RecordingError:
    text = f"{path} is no recording that can be used: {why}."
    return RecordingError(text, remedy="Record again; what was cut off or changed is not replayed.")


def _read(file: BinaryIO) -> Recording:
    digest = hashlib.sha256()
    if file.read(len(MAGIC)) != MAGIC:
        raise BadValueError("", "it does not begin as a recording of this version does")
    digest.update(MAGIC)
    reading: _Reading | None = None
    for header, payload in _frames(file):
        kind = header[:1]
        if reading is None:
            if header != ABOUT:
                raise BadValueError("", "it does not say first what was recorded")
            reading = _Reading(About.unpacked(payload))
        elif header == END:
            stopped = _read_end(payload, reading.records, digest.digest())
            if file.read(1):
                raise BadValueError("", "something follows its end")
            return reading.finished(stopped)
        elif kind in {KEPT, LEFT_OUT}:
            reading.take(parse_message(header[1:], payload), kept=kind == KEPT)
        else:
            raise BadValueError("", "it has a frame of an unknown kind")
        digest.update(build_frame(header, payload, MAX_PAYLOAD_BYTES))
    raise BadValueError("", "it was not finished, or was cut off")


def _frames(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    while prefix := file.read(PREFIX_BYTES):
        if len(prefix) < PREFIX_BYTES:
            break
        header_size, payload_size = _PREFIX.unpack(prefix)
        if not 0 < header_size <= MAX_HEADER_BYTES or payload_size > MAX_PAYLOAD_BYTES:
            raise BadValueError("", "it has a frame that is larger than a message can be")
        header, payload = file.read(header_size), file.read(payload_size)
        if len(header) < header_size or len(payload) < payload_size:
            break
        yield header, payload


def _read_end(payload: bytes, records: int, digest: bytes) -> str:
    table = read_object(codec.unpack(payload, REPORT), "end")
    keys = ("stopped", "records", "sha256")
    check_keys(table, "end", keys, keys)
    if table["sha256"] != digest:
        raise BadValueError("", "it was changed or damaged after it was written")
    if read_whole(table["records"], "end.records", 0, MAX_RECORDS) != records:
        raise expected("end.records", str(records), table["records"])
    stopped = read_text(table["stopped"], "end.stopped", limit=16)
    if stopped not in STOPPED:
        raise expected("end.stopped", f"one of {', '.join(STOPPED)}", stopped)
    return stopped


class _Reading:
    """Puts messages together to steps; refuses those that do not follow from each other."""

    def __init__(self, about: About) -> None:
        self._about = about
        self._groups = [Together()]
        self._open: dict[int, Step] = {}
        self._asked: dict[int, Served] = {}
        self._served: list[Served] = []
        self._steps = 0
        self.records = 0

    def finished(self, stopped: str) -> Recording:
        return Recording(self._about, tuple(self._groups), tuple(self._served), stopped)

    def take(self, message: Message, *, kept: bool) -> None:
        """Take the next one.

        Raises:
            BadValueError: it does not follow from what came before.
            PayloadError: its payload is none.
        """
        self.records += 1
        if self.records > MAX_RECORDS:
            raise BadValueError("", f"it has more than {MAX_RECORDS} messages")
        empty = not message.payload
        fits = empty is not kept or (kept and isinstance(message, MAY_BE_EMPTY))
        if type(message) not in RECORDED or not fits:
            raise self._misplaced(message)
        payload = message.payload if kept else None
        value = codec.unpack(payload) if payload else None
        match message:
            case Call() | Deliver():
                places = arguments_of(message, value) if kept else ()
                self._begin(message, payload, places)
            case Publish():
                self._groups[-1].published.append(Published(message.event_type, payload))
            case Ask() | Answer():
                self._serve(message, payload, value)
            case Result() | Failure() | Handled():
                if payload:
                    arguments_of(message, value)
                self._end(message, kept=kept)
            case _:
                self._part(message, payload)

    def _misplaced(self, message: Message) -> BadValueError:
        name = type(message).__name__
        return BadValueError("", f"message {self.records}, {name}, does not belong there")

    def _begin(
        self, message: Call | Deliver, payload: bytes | None, places: tuple[int | str, ...]
    ) -> None:
        if message.id in self._open:
            raise self._misplaced(message)
        if not self._open:
            self._groups.append(Together())
        self._steps += 1
        is_event = isinstance(message, Deliver)
        name = message.event_type if isinstance(message, Deliver) else message.operation
        step = Step(self._steps, name, is_event, payload, places, [Fed() for _ in places])
        self._open[message.id] = step
        self._groups[-1].steps.append(step)

    def _part(self, message: Message, payload: bytes | None) -> None:
        number: int = getattr(message, "id", 0)
        step = self._open.get(number)
        if step is None or step.is_event:
            raise self._misplaced(message)
        if isinstance(message, Cancel):
            step.cancelled = True
        elif isinstance(message, Yield):
            step.streams = True
            if payload != b"":  # a stream without items says so
                step.items.append(payload)
        elif isinstance(message, Feed | FeedEnd):
            if step.payload is None:
                return  # nobody knows where it went
            if message.stream > len(step.fed) or step.fed[message.stream - 1].ended:
                raise self._misplaced(message)
            fed = step.fed[message.stream - 1]
            if isinstance(message, Feed):
                fed.items.append(payload)
            else:
                fed.ended = True
                fed.problem = None if message.ok else payload or b""

    def _end(self, message: Result | Failure | Handled, *, kept: bool) -> None:
        step = self._open.pop(message.id, None)
        if step is None or step.is_event != isinstance(message, Handled):
            raise self._misplaced(message)
        step.answer, step.answer_kept = message, kept

    def _serve(self, message: Ask | Answer, payload: bytes | None, value: Any) -> None:
        if isinstance(message, Ask):
            if message.id in self._asked:
                raise self._misplaced(message)
            if payload is not None:
                arguments_of(message, value)
            served = Served(message.service, payload)
            self._asked[message.id] = served
            self._served.append(served)
            return
        served_now = self._asked.pop(message.id, None)
        if served_now is None:
            raise self._misplaced(message)
        served_now.ok, served_now.answer = message.ok, payload
