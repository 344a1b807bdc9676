"""Whatever a dossier holds: it keeps its size, is read back as written, and breaks nothing."""

from __future__ import annotations

import contextlib
import json
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.errors import DossierError
from sandbox_host.model import Cause, Enforced, Layer, OperationUsage, Usage
from sandbox_host.observe.curve import Point
from sandbox_host.observe.dossier import Dossier, Exceeded, FrameHeader
from sandbox_host.observe.dossier_files import (
    FILES,
    MAX_FRAMES,
    MAX_LOG_LINES,
    MAX_STACKS,
    SUMMARY,
    parse,
    render,
)
from sandbox_host.observe.dossier_fit import fitted
from sandbox_host.reading import is_printable
from tests.support.dossier_examples import example

text = st.text(st.characters(), max_size=300)
number = st.floats(allow_nan=True, allow_infinity=True)
whole = st.integers(-(2**70), 2**70)

points = st.builds(Point, number, number, whole, whole, whole)
frames = st.builds(FrameHeader, number, st.sampled_from(["in", "out"]), text, whole, whole, text)
KINDS: dict[str, st.SearchStrategy[Any]] = {"int": whole, "float": number}


def figures(kind: type[Any]) -> dict[str, st.SearchStrategy[Any]]:
    """Return a strategy for each field that is a number."""
    return {f.name: KINDS[str(f.type)] for f in fields(kind) if str(f.type) in KINDS}


costs = st.builds(OperationUsage, **figures(OperationUsage))
operations = st.dictionaries(text, costs, max_size=20)
usages = st.builds(
    Usage,
    **figures(Usage),
    operations=operations.map(MappingProxyType),
)
dossiers = st.builds(
    Dossier,
    plugin=text,
    version=text,
    root_digest=text,
    pid=whole,
    cause=st.sampled_from(Cause),
    text=text,
    started_at=number,
    ended_at=number,
    excess=st.none() | st.builds(Exceeded, text, number, st.none() | number, text),
    operation=text,
    place=text,
    exit_code=st.none() | whole,
    exit_signal=st.none() | whole,
    frozen=st.booleans(),
    usage=usages,
    limits=st.lists(st.builds(Enforced, text, text, text), max_size=60).map(tuple),
    layers=st.lists(st.sampled_from(Layer), max_size=30).map(tuple),
    curve=st.lists(points, max_size=300).map(tuple),
    frames=st.lists(frames, max_size=80).map(tuple),
    log=st.lists(text, max_size=250).map(tuple),
    stacks=st.text(st.characters(), max_size=2_000),
)
room = st.integers(96 * 1024, 1024 * 1024)


@given(dossiers, room)
def test_bounded_clean_and_read_back(dossier: Dossier, most: int) -> None:
    small = fitted(dossier, most)
    files = render(small)
    assert sum(map(len, files.values())) <= most
    for name, data in files.items():
        assert len(data) <= FILES[name]
        assert all(is_printable(line) for line in data.decode().split("\n"))
    assert parse(files) == small
    assert fitted(small, most) == small


values = st.recursive(
    st.none() | st.booleans() | whole | number | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(list(json.loads(render(example())[SUMMARY]))), values)
def test_a_changed_value_is_read_or_refused(key: str, value: Any) -> None:
    files = render(example())
    told = json.loads(files[SUMMARY])
    changed = json.dumps({**told, key: value}).encode()
    with contextlib.suppress(DossierError):
        again = parse({**files, SUMMARY: changed})
        # Whatever is read can be written and read again.
        small = fitted(again, 256 * 1024)
        assert parse(render(small)) == small


@given(st.sampled_from(list(FILES)), st.binary(max_size=200), st.data())
def test_spliced_bytes_are_read_or_refused(name: str, piece: bytes, data: st.DataObject) -> None:
    files = render(example())
    whole_file = files[name]
    start = data.draw(st.integers(0, len(whole_file)))
    end = data.draw(st.integers(start, len(whole_file)))
    with contextlib.suppress(DossierError):
        read = parse({**files, name: whole_file[:start] + piece + whole_file[end:]})
        assert len(read.log) <= MAX_LOG_LINES
        assert len(read.frames) <= MAX_FRAMES
        assert len(read.stacks) <= MAX_STACKS
