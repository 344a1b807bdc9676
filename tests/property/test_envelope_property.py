"""Whatever the bytes, the envelope's parsers answer with a value or with VerificationError."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.bundle.envelope import (
    Envelope,
    Statement,
    build_envelope,
    build_statement,
    list_files,
    parse_envelope,
    parse_statement,
    root_digest_of,
)
from sandbox_host.bundle.names import check_path, check_set
from sandbox_host.bundle.signature import key_id
from sandbox_host.errors import BundleError, VerificationError

COMPONENTS = st.text(
    st.characters(codec="utf-8", categories=["Ll", "Lu", "Nd", "Lo"]) | st.sampled_from("._- "),
    min_size=1,
    max_size=12,
)
PATHS = st.lists(COMPONENTS, min_size=1, max_size=4).map("/".join)
FILES = st.dictionaries(PATHS, st.binary(max_size=20), max_size=6)
MOMENTS = st.datetimes(
    min_value=dt.datetime(1, 1, 2),
    max_value=dt.datetime(9999, 1, 1),
    timezones=st.just(dt.UTC),
).map(lambda moment: moment.replace(microsecond=0))
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,30}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def acceptable(files: dict[str, bytes]) -> bool:
    try:
        for path in files:
            check_path(path)
        check_set(files)
    except BundleError:
        return False
    return True


def refused_by_both(data: bytes) -> None:
    for parse in (parse_envelope, parse_statement):
        with pytest.raises(VerificationError) as caught:
            parse(data)
        assert str(caught.value).isprintable()


@st.composite
def statements(draw: st.DrawFn) -> Statement:
    entries = list_files(draw(FILES.filter(acceptable)))
    created = draw(MOMENTS)
    life = draw(st.none() | st.integers(1, 10**6))
    return Statement(
        name=draw(NAMES),
        version=draw(TEXTS),
        plugin_api=draw(TEXTS),
        created=created,
        expires=None if life is None else created + dt.timedelta(seconds=life),
        files=entries,
        root_digest=root_digest_of(entries),
    )


@given(statements())
def test_a_statement_survives_building_and_parsing(statement: Statement) -> None:
    assert parse_statement(build_statement(statement)) == statement


@given(
    st.binary(max_size=200),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=64, max_size=64),
)
def test_an_envelope_survives_building_and_parsing(
    payload: bytes, public: bytes, signature: bytes
) -> None:
    data = build_envelope(payload, public, signature)
    assert parse_envelope(data) == Envelope(payload, key_id(public), signature)


@given(st.binary(max_size=300))
def test_any_bytes_to_both_parsers(data: bytes) -> None:
    refused_by_both(data)


@given(JSON)
def test_any_json_to_both_parsers(value: Any) -> None:
    refused_by_both(json.dumps(value).encode())


TEMPLATE = build_statement(
    Statement("a", "1", "1", dt.datetime(2026, 1, 1, tzinfo=dt.UTC), None, (), root_digest_of(()))
)


@given(
    st.sampled_from(["_type", "subject", "predicateType", "predicate"]),
    st.sampled_from(["", "schema", "name", "version", "plugin_api", "created", "files", "digest"]),
    JSON,
)
def test_any_json_in_the_place_of_a_value(key: str, below: str, new: Any) -> None:
    value = json.loads(TEMPLATE)
    if below and isinstance(value[key], dict):
        value[key][below] = new
    else:
        value[key] = new
    try:
        parsed = parse_statement(json.dumps(value).encode())
    except VerificationError:
        return
    # Only free text can be exchanged; it comes back exactly.
    assert json.loads(build_statement(parsed)) == value


@given(st.data(), st.binary(max_size=60), st.integers(0, 255))
def test_only_the_written_form_of_an_envelope_is_read(
    data: st.DataObject, payload: bytes, byte: int
) -> None:
    """Any other bytes are refused, or are the written form of another envelope."""
    written = build_envelope(payload, bytes(32), bytes(range(64)))
    place = data.draw(st.integers(0, len(written) - 1))
    changed = written[:place] + bytes([byte]) + written[place + 1 :]
    try:
        parsed = parse_envelope(changed)
    except VerificationError:
        return
    assert (parsed == parse_envelope(written)) is (changed == written)


@given(FILES.filter(acceptable), FILES.filter(acceptable))
def test_root_digests_are_equal_only_for_equal_files(
    first: dict[str, bytes], second: dict[str, bytes]
) -> None:
    same = root_digest_of(list_files(first)) == root_digest_of(list_files(second))
    assert same is (first == second)
