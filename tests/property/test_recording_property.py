"""A recording that was changed is refused; one that was forged is read or refused, and no more."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    Publish,
    Result,
    Yield,
)
from sandbox_host.errors import RecordingError
from sandbox_host.observe.recorder import Recorder, RecordingOptions, Redactor, canonical
from sandbox_host.observe.recording import KEPT, LEFT_OUT
from sandbox_host.observe.recording_reader import read_recording
from sandbox_host.runtime.compared import Comparison
from tests.support.recordings import ABOUT_SAMPLE, call, forged, pack

GOOD = forged(
    call(1, 5, x="y"),
    Ask(1, "prices", 9, payload=pack([["ABC"], {}])),
    Answer(1, True, payload=pack(7)),
    Publish("done", payload=pack({"rows": [1.5, None]})),
    Result(1, payload=pack([1, b"2", "3"])),
)

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8)
scalars |= st.floats() | st.binary(max_size=8)
keys = st.sampled_from(["a", "Secret", "SECRET", "data", "message"])
values = st.recursive(
    scalars,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(keys, below, max_size=3),
    max_leaves=8,
)
calls = st.lists(values, max_size=2).flatmap(
    lambda arguments: st.builds(
        lambda keywords, places: [arguments, keywords, *places],
        st.dictionaries(keys, values, max_size=2),
        st.just([]) | st.lists(st.lists(st.integers(-1, 2), max_size=2), max_size=1),
    )
)
payloads = st.one_of(
    st.binary(max_size=12),
    (values | calls).map(pack),
    st.fixed_dictionaries(
        {"data": values, "timestamp": st.floats(), "source": st.text(max_size=3), "id": scalars}
    ).map(pack),
)
ids = st.integers(1, 3)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(lambda n, p: Call(n, "op", 0, payload=p), ids, payloads),
    st.builds(lambda n, p: Deliver(n, "event", payload=p), ids, payloads),
    st.builds(lambda n, p: Result(n, payload=p), ids, payloads),
    st.builds(lambda n, p: Failure(n, "exception", payload=p), ids, payloads),
    st.builds(lambda n, p: Yield(n, payload=p), ids, payloads),
    st.builds(lambda n, s, p: Feed(n, s, payload=p), ids, ids, payloads),
    st.builds(lambda n, s, ok, p: FeedEnd(n, s, ok, payload=p), ids, ids, st.booleans(), payloads),
    st.builds(lambda n, ok, p: Handled(n, ok, payload=p), ids, st.booleans(), payloads),
    st.builds(lambda p: Publish("event", payload=p), payloads),
    st.builds(
        lambda n, s, p: Ask(n, s, 0, payload=p), ids, st.sampled_from(["store", "x"]), payloads
    ),
    st.builds(lambda n, ok, p: Answer(n, ok, payload=p), ids, st.booleans(), payloads),
    st.builds(Cancel, ids, st.booleans()),
)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "one.recording"


@given(where=st.integers(0, len(GOOD) - 1), bits=st.integers(1, 255), how=st.integers(0, 3))
def test_every_change_is_found(place: Path, where: int, bits: int, how: int) -> None:
    place.write_bytes(GOOD)
    assert len(read_recording(place).steps) == 1
    changed = (
        GOOD[:where],
        GOOD[:where] + GOOD[where + 1 :],
        GOOD[:where] + bytes([bits]) + GOOD[where:],
        GOOD[:where] + bytes([GOOD[where] ^ bits]) + GOOD[where + 1 :],
    )[how]
    if changed == GOOD:
        return
    place.write_bytes(changed)
    with pytest.raises(RecordingError):
        read_recording(place)


@settings(max_examples=50)
@given(said=st.lists(messages, max_size=6), kind=st.sampled_from([KEPT, KEPT, LEFT_OUT]))
def test_a_forged_one_is_read_or_refused(place: Path, said: list[Message], kind: bytes) -> None:
    place.write_bytes(forged(*said, kind=kind))
    try:
        recording = read_recording(place)
    except RecordingError:
        return
    for step in recording.steps:
        assert step.payload is None or codec.unpack(step.payload)
    for one in recording.served:
        assert one.payload is None or canonical(codec.unpack(one.payload))


@settings(max_examples=50)
@given(payload=payloads, answer=payloads, kind=st.sampled_from([Result, Failure]), event=payloads)
def test_what_is_written_is_read_and_holds_no_secret(
    place: Path, payload: bytes, answer: bytes, kind: type[Message], event: bytes
) -> None:
    """Whatever a plugin says, its recording is one, and no named field is in it."""
    place.unlink(missing_ok=True)
    said = kind(1, *(["exception"] if kind is Failure else []), payload=answer)
    asked = [Ask(1, "store", 0, payload=payload), Answer(1, True, payload=answer)]
    recorder = Recorder(RecordingOptions(place, ("secret",)), ABOUT_SAMPLE)
    for message in (Call(1, "op", 5, payload=payload), *asked, Publish("x", payload=event), said):
        recorder.take(message)
    recorder.close()
    recording = read_recording(place)
    (step,) = recording.steps
    assert step.answer is not None
    for packed in (step.payload, step.answer.payload, recording.groups[1].published[0].payload):
        if packed:
            _check_hidden(codec.unpack(packed))


def _check_hidden(value: Any) -> None:
    if isinstance(value, dict):
        assert {v for k, v in value.items() if k.lower() == "secret"} <= {"[redacted]"}
        value = list(value.values())
    for one in value if isinstance(value, list) else ():
        _check_hidden(one)


@given(one=values, other=values)
def test_values_are_the_same_as_themselves_and_differ_both_ways(one: Any, other: Any) -> None:
    compare = Comparison()
    assert compare.first("x", one, one) is None
    there, back = compare.first("x", one, other), compare.first("x", other, one)
    assert (there is None) == (back is None)


@given(value=values)
def test_a_redacted_value_is_ignored(value: Any) -> None:
    hidden = Redactor(["Secret"]).value(value)
    assert Comparison(ignored=frozenset(["secret"])).first("x", value, hidden) is None
