"""docs/wire.md says what the code does: its tables are the code's tables."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest

from plugin_sdk.child.faults import Faults
from plugin_sdk.child.loader import LoadedPlugin, LoadOrder
from plugin_sdk.wire import arrays, limits, messages
from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.events import join_events, unpack_events
from plugin_sdk.wire.frames import FrameReader
from plugin_sdk.wire.limits import EVENT, METADATA, VALUE, Bounds
from plugin_sdk.wire.message import HOST, PLUGIN
from plugin_sdk.wire.messages import MESSAGES, parse_message
from plugin_sdk.wire.state import CLOSED, TABLE
from sandbox_host.broker.packed import PackedEvent
from sandbox_host.model import Cause
from sandbox_host.runtime.answers import _SIMPLE

TEXT = (Path(__file__).parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")

_TYPES = {
    "id": messages.is_id,
    "count": messages.is_count,
    "clock": messages.is_clock,
    "name": messages.is_name,
    "flag": messages.is_flag,
    "stream": messages.is_stream,
    "many": messages.is_many,
    "events": messages.is_number_of_events,
}


def _rows(mark: str) -> list[list[str]]:
    table = TEXT.split(f"<!-- {mark} -->\n", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def test_every_message() -> None:
    said = [
        (int(number), name, sender, re.findall(r"`(\w+)`: (\w+)", fields))
        for number, name, sender, fields, _ in _rows("messages")
    ]
    words = {check: word for word, check in _TYPES.items()}
    assert said == [
        (number, f"`{kind.__name__}`", kind.sender, [(n, words[check]) for n, check in kind.fields])
        for number, kind in MESSAGES.items()
    ]
    assert {word for word, _ in _rows("types")} == set(_TYPES)


def test_every_state() -> None:
    said: dict[str, dict[str, dict[str, str]]] = {HOST: {}, PLUGIN: {}}
    for state, host, plugin in _rows("states"):
        for sender, cell in ((HOST, host), (PLUGIN, plugin)):
            if moves := dict(re.findall(r"(\w+) → `(\w+)`", cell)):
                said[sender][state.strip("`")] = moves
    assert said == {
        sender: {
            state: {kind.__name__: after for kind, after in row.items()}
            for state, row in rows.items()
        }
        for sender, rows in TABLE.items()
    }
    assert _rows("states")[-1][0] == f"`{CLOSED}`"


def test_limits() -> None:
    said = {name.strip("`"): int(value) for name, value in _rows("wire-limits")}
    assert said == {name: getattr(limits, name) for name in said}
    named = set(re.findall(r"`((?:MAX|PREFIX|OLDEST|PROTOCOL)_[A-Z_]+)`", TEXT))
    assert named == set(said)


def test_bounds() -> None:
    def shown(bounds: Bounds) -> list[int]:
        return [bounds.max_bytes, bounds.depth, bounds.containers, bounds.elements]

    said = [[int(number) for number in numbers] for _, *numbers in _rows("bounds")]
    assert said == [shown(VALUE), shown(EVENT), shown(METADATA)]


@pytest.mark.parametrize(("frame", "told"), _rows("frames"), ids=lambda cell: cell[:24])
def test_frames(frame: str, told: str) -> None:
    reader = FrameReader(VALUE.max_bytes)
    reader.feed(bytes.fromhex(frame.strip("`")))
    found = reader.next_frame()
    assert found is not None
    message = parse_message(*found)
    assert f"`{message!r}`" == told
    assert message.header() == found[0]
    assert reader.pending_bytes == 0


def _first_bytes() -> set[int]:
    found: set[int] = set()
    for _, cell, _ in _rows("values"):
        for first, last in re.findall(r"`(\w\w)`(?:\u2013`(\w\w)`)?", cell):
            found |= set(range(int(first, 16), int(last or first, 16) + 1))
    return found


def _is_accepted(first: int) -> bool:
    # Whatever follows: one of these completes every type that there is.
    ends = (b"", *(bytes(count) for count in range(1, 36)), b"\xa1a\xc0", b"\xa1a\xc0\xa1b\xc0")
    maps = b"".join(b"\xa1" + bytes([97 + n]) + b"\xc0" for n in range(first & 0x0F))
    lists = b"\xc0" * (first & 0x0F)
    array = b"u1\x01" + bytes(13)  # without elements; 16 bytes are the fewest
    extensions = [size + b"\x01" + array for size in (b"", b"\x10", b"\0\x10", b"\0\0\0\x10")]
    for end in (*ends, maps, lists, *extensions):
        try:
            unpack(bytes([first]) + end)
        except PayloadError:
            continue
        return True
    return False


def test_first_bytes_of_values() -> None:
    assert _first_bytes() == {first for first in range(256) if _is_accepted(first)}


def test_kinds_of_arrays() -> None:
    said = {kind for cell, _ in _rows("kinds") for kind in re.findall(r"`(\w+)`", cell)}
    assert said == {kind.decode() for kind in arrays._FORMATS}


@pytest.mark.parametrize(("data", "told"), _rows("arrays"), ids=lambda cell: cell[:24])
def test_arrays(data: str, told: str) -> None:
    written = bytes.fromhex(data.strip("`"))
    view = unpack(written)
    header = arrays.header_of(view)
    assert header is not None
    assert f"`{header[:2].decode()}` {view.shape} {view.tolist()}" == told
    if view.nbytes:  # without elements msgpack has a shorter first byte, which ours does not use
        assert pack(view) == written


def _keys(message: str) -> set[str]:
    cell = dict(_rows("payloads"))[f"`{message}`"]
    return set(re.findall(r"`([a-z_]+)`", cell))


def test_payloads() -> None:
    assert [name.strip("`") for name, _ in _rows("payloads")] == [
        kind.__name__ for kind in MESSAGES.values()
    ]
    assert _keys("Load") == set(LoadOrder.__slots__)
    interface: Any = SimpleNamespace(operation_kinds={}, handlers={}, kind=None, warnings=[])
    assert _keys("Ready") == set(LoadedPlugin({}, {}, interface).ready_payload())
    code, described = Faults("").describe(ValueError())
    assert _keys("Failure") == {*described, "denied"}
    assert f"`{code}`" in TEXT
    event = PackedEvent("user_action", msgpack.packb(None), 0.0, "host", 1)
    assert _keys("Deliver") == set(unpack(event.delivery()))
    assert [*unpack_events(join_events([event.prepare().entry] * 2, 2), 2)] == [
        [None, 0.0, "host", 1]
    ] * 2


def test_optional_keys_of_load_are_optional() -> None:
    cell = dict(_rows("payloads"))["`Load`"]
    optional = set(re.findall(r"`(\w+)`°", cell))
    required = {key: key for key in _keys("Load") - optional}
    LoadOrder({**required, "invented_later": 1})
    for key in required:
        with pytest.raises(KeyError, match=key):
            LoadOrder({name: name for name in required if name != key})


def test_codes_and_causes() -> None:
    assert set(_SIMPLE) <= set(re.findall(r"`([a-z-]+)`", TEXT))
    assert f"(`{Cause.PROTOCOL_VIOLATION}`)" in TEXT
