"""Recordings: what is written, what is left out, and which files are refused."""

from __future__ import annotations

import dataclasses
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk.wire import codec
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
    Log,
    Publish,
    Result,
    Yield,
)
from sandbox_host.errors import RecordingError, UsageError
from sandbox_host.observe import recorder as recorder_module
from sandbox_host.observe.recorder import Recorder, RecordingOptions
from sandbox_host.observe.recording import LEFT_OUT, MAGIC, STOPPED, Recording
from sandbox_host.observe.recording_reader import read_recording
from tests.support.recordings import ABOUT_SAMPLE, call, forged, pack

EVENT = {"data": {"token": "s3cret"}, "timestamp": 1.0, "source": "host", "id": 3}


def write(path: Path, *messages: Message, **options: Any) -> Recorder:
    recorder = Recorder(RecordingOptions(path, **options), ABOUT_SAMPLE)
    for message in messages:
        recorder.take(message)
    recorder.close()
    return recorder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "one.recording"


def test_what_was_said_is_put_together(file: Path) -> None:
    write(
        file,
        Publish("started", payload=pack(1)),
        call(1, 5),
        Log(20, "root", payload=pack("not kept")),
        Ask(1, "prices", 9, payload=pack([["ABC"], {}])),
        Answer(1, True, payload=pack(7)),
        Publish("done", payload=pack(2)),
        Result(1, payload=pack(6)),
        call(2, None, feeds=[0]),
        Feed(2, 1, payload=pack("x")),
        Deliver(3, "user_action", payload=pack(EVENT)),
        Yield(2, payload=pack("y")),
        FeedEnd(2, 1, True),
        Failure(2, "exception", payload=pack({"type": "E", "message": "m", "traceback": "t"})),
        Handled(3, True, payload=pack({})),
        call(4),
        Yield(4),
        Cancel(4, False),
    )
    recording = read_recording(file)
    assert recording.about == ABOUT_SAMPLE
    assert recording.stopped == "complete"
    assert [len(group.steps) for group in recording.groups] == [0, 1, 2, 1]
    assert [len(group.published) for group in recording.groups] == [1, 1, 0, 0]
    first, second, event, last = recording.steps
    assert first.answer == Result(1, payload=pack(6))
    assert second.items == [pack("y")]
    assert second.places == (0,)
    assert [(fed.items, fed.ended) for fed in second.fed] == [([pack("x")], True)]
    assert second.answer is not None
    assert codec.unpack(second.answer.payload) == {"type": "E", "message": "m"}
    assert (event.name, event.is_event, event.number) == ("user_action", True, 3)
    assert (last.streams, last.items, last.cancelled, last.answer) == (True, [], True, None)
    assert [(one.service, one.ok, one.answer) for one in recording.served] == [
        ("prices", True, pack(7))
    ]


SECRET = {"deep": [{"Token": "s3cret"}], "more": 1}
ERROR = {"type": "ValueError", "message": "no s3cret", "traceback": "s3cret", "place": "s3cret"}


@pytest.mark.parametrize(
    "messages",
    [
        (call(1, SECRET, TOKEN="s3cret"),),
        (call(1), Result(1, payload=pack(SECRET))),
        (call(1), Yield(1, payload=pack(SECRET))),
        (call(1), Failure(1, "exception", payload=pack(ERROR))),
        (call(1, token=None, feeds=["token"]), Feed(1, 1, payload=pack("s3cret"))),
        (call(1, None, feeds=[0]), Feed(1, 1, payload=pack(SECRET))),
        (call(1, 0, feeds=[0]), FeedEnd(1, 1, False, payload=pack({"message": "s3cret"}))),
        (Deliver(1, "x", payload=pack(EVENT)),),
        (
            Deliver(1, "x", payload=pack(EVENT)),
            Handled(1, False, payload=pack({"errors": [{"message": "s3cret"}]})),
        ),
        (Publish("x", payload=pack(SECRET)),),
        (Ask(1, "a", 0, payload=pack([[SECRET], {"token": "s3cret"}])),),
        (Ask(1, "a", 0, payload=pack([[], {}])), Answer(1, True, payload=pack(SECRET))),
        (
            Ask(1, "a", 0, payload=pack([[], {}])),
            Answer(1, False, payload=pack({"message": "s3cret"})),
        ),
        (Ask(1, "store", 0, payload=pack([["put", "k", pack(SECRET)], {}])),),
        (
            Ask(1, "store", 0, payload=pack([["get", "k"], {}])),
            Answer(1, True, payload=pack(pack(SECRET))),
        ),
        (
            Ask(1, "store", 0, payload=pack([["get", "k"], {}])),
            Answer(1, True, payload=pack(b"\xc1 s3cret")),
        ),
        (Publish("x", payload=b"\xc1s3cret"),),
        (call(1), Result(1, payload=b"\xa6s3cret\x00")),
        (Call(1, "predict", 0, payload=pack(["s3cret"])),),
    ],
    ids=lambda messages: "-".join(type(one).__name__ for one in messages),
)
def test_redaction_leaves_no_trace(file: Path, messages: tuple[Message, ...]) -> None:
    write(file, *messages, redact=("tOken",))
    assert b"s3cret" not in file.read_bytes()
    recording = read_recording(file)
    assert recording.about.redacted == ("token",)


def test_what_is_not_redacted_stays(file: Path) -> None:
    write(file, call(1, SECRET, more=[{}]), redact=("token",))
    payload = read_recording(file).steps[0].payload
    assert payload is not None
    assert codec.unpack(payload) == [
        [{"deep": [{"Token": "[redacted]"}], "more": 1}],
        {"more": [{}]},
    ]


def test_what_cannot_be_decoded_is_left_out(file: Path) -> None:
    write(file, call(1), Result(1, payload=b"\xc1"), Publish("x", payload=b"\xc1"))
    recording = read_recording(file)
    assert not recording.steps[0].answer_kept
    assert recording.groups[1].published[0].payload is None


def test_a_file_of_ones_own(file: Path, tmp_path: Path) -> None:
    write(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_bytes()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    for path in (file, link, tmp_path / "missing" / "x"):
        with pytest.raises(RecordingError, match="cannot be made"):
            write(path)
    assert file.read_bytes() == before
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "options",
    [{"redact": "token"}, {"redact": ("",)}, {"redact": ("x",) * 65}, {"redact": ("a\n",)}]
    + [{"max_bytes": size} for size in (0, 64 * 1024 - 1, 2**40)],
    ids=str,
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        RecordingOptions("x", **options)


def test_the_size_limit_holds_and_is_told(file: Path) -> None:
    messages = [Publish("x", payload=pack(bytes(1_000))) for _ in range(100)]
    recorder = write(file, *messages, max_bytes=64 * 1024)
    assert recorder.problem == STOPPED["full"]
    assert 60_000 < file.stat().st_size <= 64 * 1024
    recording = read_recording(file)
    assert recording.stopped == "full"
    assert 55 < len(recording.groups[0].published) < 65


def test_who_says_it_never_waits(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    real = os.write

    def slow(descriptor: int, data: bytes) -> int:
        if threading.current_thread().name.startswith("sandbox-host-recording"):
            go_on.wait(30)
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", slow)
    monkeypatch.setattr(recorder_module, "MAX_WAITING_BYTES", 10_000)
    recorder = Recorder(RecordingOptions(file), ABOUT_SAMPLE)
    for _ in range(100):
        recorder.take(Publish("x", payload=pack(bytes(1_000))))
    assert recorder.problem == STOPPED["slow"]
    go_on.set()
    recorder.close()
    recording = read_recording(file)
    assert recording.stopped == "slow"
    assert 0 < len(recording.groups[0].published) <= 10


def test_a_disk_that_fails_ends_the_recording_alone(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(RecordingOptions(file), ABOUT_SAMPLE)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    recorder.take(Publish("x", payload=pack(1)))
    recorder.close()
    assert recorder.problem == STOPPED["fault"]
    with pytest.raises(RecordingError, match="was not finished"):
        read_recording(file)


# -- what is refused -----------------------------------------------------------------------------


def read(file: Path, data: bytes) -> Recording:
    file.write_bytes(data)
    return read_recording(file)


def test_a_forged_file_that_fits_together_is_one(file: Path) -> None:
    assert len(read(file, forged(call(1), Result(1, payload=pack(1)))).steps) == 1


def about(**changed: Any) -> bytes:
    return dataclasses.replace(ABOUT_SAMPLE, **changed).packed()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        MAGIC,
        b"x" + forged()[1:],
        forged(call(1))[:-1],
        forged(after=b"x"),
        forged(end=lambda told: told.update(sha256=bytes(32))),
        forged(end=lambda told: told.update(records=1)),
        forged(end=lambda told: told.update(stopped="nope")),
        forged(end=lambda told: told.pop("stopped")),
        forged(about=pack([])),
        forged(about=about(plugin="../x")),
        forged(about=about(version="\x1b[2J")),
        forged(about=about(digest="0")),
        forged(about=about(started_at=float("nan"))),
        forged(about=about(started_at=-1.0)),
        forged(about=about(redacted=("x",) * 3)),
        forged(call(1), call(1)),
        forged(Result(1, payload=pack(1))),
        forged(call(1), Handled(1, True, payload=pack({}))),
        forged(Deliver(1, "x", payload=pack(EVENT)), Result(1, payload=pack(1))),
        forged(Deliver(1, "x", payload=pack(EVENT)), Yield(1, payload=pack(1))),
        forged(Deliver(1, "x", payload=pack({"data": 1}))),
        forged(Deliver(1, "x", payload=pack({**EVENT, "id": True}))),
        forged(Yield(1, payload=pack(1))),
        forged(Cancel(1, False)),
        forged(call(1), Feed(1, 1, payload=pack(1))),
        forged(call(1, 0, feeds=[0]), FeedEnd(1, 1, True), Feed(1, 1, payload=pack(1))),
        forged(call(1, feeds=[0])),
        forged(call(1, 0, feeds=[0.5])),
        forged(call(1, 0, feeds=[0] * 9)),
        forged(Answer(1, True, payload=pack(1))),
        forged(*[Ask(1, "a", 0, payload=pack([[], {}]))] * 2),
        forged(Ask(1, "a", 0, payload=pack([[], {}, []]))),
        forged(Log(20, "root", payload=pack("x"))),
        forged(Publish("x", payload=b"\xc1")),
        forged(call(1), kind=LEFT_OUT),
        forged(call(1), kind=b"?"),
        forged(Call(1, "x", 0, payload=pack(1))),
        forged(call(1), Failure(1, "exception", payload=pack(1))),
        forged(call(1), Result(1)),
        forged(Publish("x")),
        forged(Yield(1), kind=LEFT_OUT),
        MAGIC + b"\xff" * 8,
        MAGIC + b"\0" * 8,
    ],
)
def test_what_is_refused(file: Path, data: bytes) -> None:
    with pytest.raises(RecordingError):
        read(file, data)


def test_too_many_messages(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox_host.observe.recording_reader.MAX_RECORDS", 2)
    with pytest.raises(RecordingError, match="more than 2 messages"):
        read(file, forged(*[Publish("x", payload=pack(1))] * 3))


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    large = tmp_path / "large"
    with large.open("wb") as made:
        made.truncate(2**40)
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "missing", large):
        with pytest.raises(RecordingError):
            read_recording(path)
