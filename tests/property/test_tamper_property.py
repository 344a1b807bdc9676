"""No change to a signed bundle passes, and none raises anything but a refusal."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.bundle import Contents
from sandbox_host.bundle.differences import differences
from sandbox_host.bundle.envelope import list_files, parse_envelope
from sandbox_host.bundle.verify import verify
from sandbox_host.errors import RefusedError, UnsignedError, VerificationError
from tests.support.bundles import NOW, make_key, signed_contents, store_of

KEY = make_key()
TRUST = store_of(KEY, make_key(2))
GOOD = signed_contents(KEY, {"main.py": "x = 1\n", "data/t.csv": "a,b\n", "empty": ""})
assert GOOD.envelope is not None
ENVELOPE: bytes = GOOD.envelope
BUNDLE = verify(GOOD, TRUST, NOW)


def check_refused(contents: Contents) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        verify(contents, TRUST, NOW)
    assert str(caught.value).isprintable()
    return caught.value


def test_the_untouched_bundle_passes() -> None:
    assert verify(GOOD, TRUST, NOW).files == GOOD.files


def check_refused_or_the_same(envelope: bytes) -> None:
    """White space and the hint whose key it is may differ; what is verified, and by whom, not."""
    try:
        found = verify(dataclasses.replace(GOOD, envelope=envelope), TRUST, NOW)
    except RefusedError:
        return
    assert found == BUNDLE
    assert parse_envelope(envelope).payload == parse_envelope(ENVELOPE).payload


@given(st.integers(0, len(ENVELOPE) - 1), st.integers(1, 255))
def test_one_byte_of_the_envelope(place: int, difference: int) -> None:
    changed = bytearray(ENVELOPE)
    changed[place] ^= difference
    check_refused_or_the_same(bytes(changed))


COUNTS = re.compile(rb'"(?:payload|payloadType|sig)":"([^"]+)"')
COVERED = [place for match in COUNTS.finditer(ENVELOPE) for place in range(*match.span(1))]


@given(st.sampled_from(COVERED), st.integers(1, 255))
def test_one_byte_of_the_payload_its_type_or_the_signature(place: int, difference: int) -> None:
    changed = bytearray(ENVELOPE)
    changed[place] ^= difference
    check_refused(dataclasses.replace(GOOD, envelope=bytes(changed)))


@given(st.integers(0, len(ENVELOPE)), st.binary(min_size=1, max_size=8))
def test_bytes_inserted_into_the_envelope(place: int, new: bytes) -> None:
    check_refused_or_the_same(ENVELOPE[:place] + new + ENVELOPE[place:])


@given(st.integers(0, len(ENVELOPE.rstrip()) - 1))
def test_an_envelope_cut_short(length: int) -> None:
    check_refused(dataclasses.replace(GOOD, envelope=ENVELOPE[:length]))


@given(st.binary(max_size=400) | st.none())
def test_any_envelope(envelope: bytes | None) -> None:
    error = check_refused(dataclasses.replace(GOOD, envelope=envelope))
    assert isinstance(error, UnsignedError) is (envelope is None)


@given(st.data(), st.integers(1, 255))
def test_one_byte_of_any_file(data: st.DataObject, difference: int) -> None:
    path = data.draw(st.sampled_from([p for p in GOOD.files if GOOD.files[p]]))
    changed = bytearray(GOOD.files[path])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= difference
    error = check_refused(dataclasses.replace(GOOD, files={**GOOD.files, path: bytes(changed)}))
    assert isinstance(error, VerificationError)
    assert repr(path) in error.message


@given(st.text(max_size=20), st.binary(max_size=20))
def test_any_file_added_or_replaced(path: str, content: bytes) -> None:
    changed = {**GOOD.files, path: content}
    if changed != GOOD.files:
        assert isinstance(
            check_refused(dataclasses.replace(GOOD, files=changed)), VerificationError
        )


@given(st.sets(st.sampled_from(sorted(GOOD.files)), min_size=1))
def test_any_files_removed(paths: set[str]) -> None:
    left = {path: data for path, data in GOOD.files.items() if path not in paths}
    assert isinstance(check_refused(dataclasses.replace(GOOD, files=left)), VerificationError)


@given(st.permutations(sorted(GOOD.files)))
def test_any_exchange_of_names(order: list[str]) -> None:
    changed = {new: GOOD.files[old] for new, old in zip(order, sorted(GOOD.files), strict=True)}
    if changed == GOOD.files:
        assert verify(dataclasses.replace(GOOD, files=changed), TRUST, NOW)
    else:
        assert isinstance(
            check_refused(dataclasses.replace(GOOD, files=changed)), VerificationError
        )


SMALL = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([b"", b"1", b"2", b"3"]))


@given(SMALL, SMALL)
def test_differences_are_found_exactly_where_there_are_any(
    signed: dict[str, bytes], files: dict[str, bytes]
) -> None:
    assert bool(differences(list_files(signed), files)) is (signed != files)
