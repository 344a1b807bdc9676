"""Whatever the bytes, the envelope's parsers answer with a value or with VerificationError."""

from __future__ import annotations

import datetime as dt
import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.bundle.envelope import (
    MAX_SIGNATURES,
    Envelope,
    Signature,
    Statement,
    build_envelope,
    build_statement,
    list_files,
    parse_envelope,
    parse_statement,
    render_envelope,
    root_digest_of,
)
from sandbox_host.bundle.names import check_path, check_set
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


HINTS = st.text(st.characters(codec="utf-8", categories=["Ll", "Lu", "Nd", "Lo"]), max_size=128)
SIGNATURES = st.lists(
    st.builds(Signature, HINTS, st.binary(min_size=64, max_size=64)),
    min_size=1,
    max_size=MAX_SIGNATURES,
    unique_by=lambda one: one.key_id,
)


@given(st.binary(max_size=200), SIGNATURES)
def test_an_envelope_survives_rendering_and_parsing(
    payload: bytes, signatures: list[Signature]
) -> None:
    envelope = Envelope(payload, tuple(signatures))
    assert parse_envelope(render_envelope(envelope)) == envelope


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


@given(st.binary(max_size=60), SIGNATURES, st.sampled_from([None, 0, 1]), st.randoms())
def test_other_spellings_of_an_envelope_are_the_same(
    payload: bytes, signatures: list[Signature], indent: int | None, random: Random
) -> None:
    envelope = Envelope(payload, tuple(signatures))
    pairs = list(json.loads(render_envelope(envelope)).items())
    random.shuffle(pairs)
    spelt = json.dumps(dict(pairs), indent=indent, ensure_ascii=random.random() < 0.5)
    assert parse_envelope(f" {spelt}\r\n".encode()) == envelope


@given(st.data(), st.binary(max_size=60), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_is_another_envelope_or_white_space(
    data: st.DataObject, payload: bytes, byte: int
) -> None:
    written = build_envelope(payload, bytes(32), bytes(range(64)))
    place = data.draw(st.integers(0, len(written) - 1))
    changed = written[:place] + bytes([byte]) + written[place + 1 :]
    try:
        parsed = parse_envelope(changed)
    except VerificationError:
        return
    only_space = place == len(written) - 1 and bytes([byte]) in b" \t\r\n"
    assert (parsed == parse_envelope(written)) is (changed == written or only_space)


@given(FILES.filter(acceptable), FILES.filter(acceptable))
def test_root_digests_are_equal_only_for_equal_files(
    first: dict[str, bytes], second: dict[str, bytes]
) -> None:
    same = root_digest_of(list_files(first)) == root_digest_of(list_files(second))
    assert same is (first == second)
