"""Every parser of the bundle room answers any bytes with a value or with its own typed error."""

from __future__ import annotations

import json
import unicodedata
from contextlib import suppress
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from sandbox_host.bundle.document import parse_document
from sandbox_host.bundle.keys import parse_private_key, parse_public_key
from sandbox_host.bundle.names import check_path, check_set, fold, shown
from sandbox_host.bundle.signature import public_key_fault, signature_fault
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.errors import BundleError, TrustStoreError
from sandbox_host.reading import BadValueError
from tests.support.bundles import make_key, store_text

STORE = store_text(make_key(), lines="not_after = 2027-01-01T00:00:00Z").encode()
HEADERS = st.sampled_from(
    [
        b"",
        b"ssh-ed25519 ",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\n",
    ]
)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "ignore")))
def test_any_bytes_as_a_trust_store(data: bytes) -> None:
    with suppress(TrustStoreError):
        assert not TrustStore.parse(data).keys


@given(st.integers(0, len(STORE) - 1), st.integers(0, 255))
def test_a_trust_store_with_one_byte_changed(place: int, byte: int) -> None:
    """It is refused, or it still trusts the same key: no byte turns one key into another."""
    try:
        store = TrustStore.parse(STORE[:place] + bytes([byte]) + STORE[place + 1 :])
    except TrustStoreError:
        return
    assert {key.public for key in store.keys.values()} <= {make_key().public}


@given(HEADERS, st.binary(max_size=120), st.none() | st.binary(min_size=1, max_size=8))
def test_any_bytes_as_a_key(header: bytes, data: bytes, passphrase: bytes | None) -> None:
    with suppress(TrustStoreError):
        assert len(parse_private_key(header + data, passphrase).public) == 32
    with suppress(TrustStoreError):
        assert not public_key_fault(parse_public_key(header + data))


@given(st.binary(max_size=40), st.binary(max_size=70), st.binary(max_size=20))
def test_any_bytes_as_a_signature(public: bytes, signature: bytes, message: bytes) -> None:
    assert signature_fault(public, signature, message)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64))
def test_signatures_of_the_right_length(public: bytes, signature: bytes) -> None:
    assert signature_fault(public, signature, b"message")
    assert signature_fault(make_key().public, signature, b"message")


@given(st.integers(0, 511))
def test_any_bit_of_a_good_signature_counts(bit: int) -> None:
    key = make_key()
    signature = bytearray(key.sign(b"message"))
    assert not signature_fault(key.public, bytes(signature), b"message")
    signature[bit // 8] ^= 1 << bit % 8
    assert signature_fault(key.public, bytes(signature), b"message")


# -- names ------------------------------------------------------------------------------------


@given(st.text(max_size=40))
@example("a/b")
@example("日本.txt")
def test_an_accepted_path_is_harmless(path: str) -> None:
    refusal = ""
    try:
        check_path(path)
    except BundleError as error:
        refusal = str(error)
    if refusal:
        assert refusal.isascii()
        assert refusal.isprintable()
        return
    assert path.isprintable()
    assert path == unicodedata.normalize("NFC", path)
    assert not path.startswith("/")
    assert not {"", ".", ".."} & set(path.split("/"))
    assert not set(path) & set("\\:")
    assert path.encode().decode() == path


@given(st.lists(st.text(st.sampled_from("aAbBéÉ\u017fsßS/"), min_size=1, max_size=4), max_size=5))
def test_a_set_without_twins_has_one_folded_form_each(paths: list[str]) -> None:
    try:
        check_set(paths)
    except BundleError:
        return
    assert len({fold(path) for path in paths}) == len(set(paths))


@given(st.text())
def test_whatever_is_shown_is_one_short_ascii_line(text: str) -> None:
    assert shown(text).isascii()
    assert shown(text).isprintable()
    assert len(shown(text)) < 2_000


# -- JSON -------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=15,
)


@given(VALUES, st.booleans())
def test_a_document_reads_what_the_standard_writes(value: Any, ascii_only: bool) -> None:
    try:
        data = json.dumps(value, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        return
    assert parse_document(data, max_bytes=len(data), max_depth=40) == value


@given(st.binary(max_size=100) | st.text(st.sampled_from('[]{}",:\\u0019e.-')).map(str.encode))
def test_any_bytes_as_json(data: bytes) -> None:
    try:
        value = parse_document(data, max_bytes=100, max_depth=3)
    except BadValueError:
        return
    assert json.loads(data) == value


@given(st.text(st.sampled_from('[]{}"\\a'), max_size=40))
def test_the_depth_is_never_underestimated(text: str) -> None:
    """Whatever the parser would accept is not deeper than the count said."""

    def depth(value: Any) -> int:
        if isinstance(value, dict):
            return 1 + max(map(depth, value.values()), default=0)
        return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0

    try:
        value = parse_document(text.encode(), max_bytes=200, max_depth=2)
    except BadValueError:
        return
    assert depth(value) <= 2
