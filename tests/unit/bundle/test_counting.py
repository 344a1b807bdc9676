"""How many signatures a bundle needs, and what each one is worth."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandbox_host.bundle import counting
from sandbox_host.bundle import verify as verify_module
from sandbox_host.bundle.contents import Contents
from sandbox_host.bundle.signature import PrivateKey
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.verify import verify
from sandbox_host.errors import UntrustedError, VerificationError
from tests.support.bundles import NOW, make_key, signed_contents, store_of, store_text
from tests.support.forgeries import (
    refused,
    resigned,
    signatures_of,
    signed_by,
    with_signatures,
)

A, B, C, STRANGER = (make_key(seed) for seed in (1, 2, 3, 9))
GOOD = signed_contents(A, {"main.py": "x = 1\n"})
TWO = "[policy]\nthreshold = 2\n"
ALL = store_of(A, B, C, more=TWO)


def revoked(key: PrivateKey) -> str:
    return f'[[revoked]]\nkey = "{key.key_id}"\nreason = "stolen"\ndate = 2026-01-30\n'


def ids(contents: Contents, trust: TrustStore) -> list[str]:
    bundle = verify(contents, trust, NOW)
    assert bundle.key_id == bundle.signers[0].id
    assert bundle.signer == bundle.signers[0].signer
    return [key.id for key in bundle.signers]


def flipped(signature: dict[str, Any]) -> dict[str, Any]:
    """Return a signature with another letter in its middle."""
    text = signature["sig"]
    return {**signature, "sig": text[:40] + ("A" if text[40] != "A" else "B") + text[41:]}


# -- controls ----------------------------------------------------------------------------------


def test_one_signature_is_enough_where_one_is_asked_for() -> None:
    assert ids(GOOD, store_of(A)) == [A.key_id]
    assert verify(GOOD, store_of(A), NOW).disregarded == ()


def test_all_that_count_are_named_in_their_order() -> None:
    assert ids(signed_by(GOOD, B, A), ALL) == [B.key_id, A.key_id]
    assert ids(signed_by(GOOD, C, B, A), ALL) == [C.key_id, B.key_id, A.key_id]


# -- the threshold -----------------------------------------------------------------------------


def test_one_signature_where_two_are_asked_for() -> None:
    text = refused(GOOD, UntrustedError, ALL)
    assert "has 1 signature that counts, and needs 2" in text
    assert "sandbox-host sign --add" in text


def test_more_than_there_are() -> None:
    store = store_of(A, B, C, more="[policy]\nthreshold = 4\n")
    text = refused(signed_by(GOOD, A, B, C), UntrustedError, store)
    assert "has 3 signatures that count, and needs 4" in text


@pytest.mark.parametrize(
    ("pattern", "enough"), [("sample", False), ("sam*", False), ("*", False), ("other", True)]
)
def test_more_for_some_plugins(pattern: str, enough: bool) -> None:
    more = f'[[threshold]]\nplugins = ["{pattern}"]\ncount = 2\n'
    store = store_of(A, B, more=more)
    assert ids(signed_by(GOOD, A, B), store) == [A.key_id, B.key_id]
    if enough:
        assert ids(GOOD, store) == [A.key_id]
    else:
        assert "'sample' has 1 signature" in refused(GOOD, UntrustedError, store)


def test_a_threshold_for_some_plugins_never_lowers_that_for_all() -> None:
    store = store_of(A, B, more='[[threshold]]\nplugins = ["sample"]\ncount = 1\n' + TWO)
    assert "needs 2" in refused(GOOD, UntrustedError, store)


def test_one_key_under_two_ids_is_one_key() -> None:
    """What made a threshold of two meaningless in a library that counts ids."""
    (mine,) = signatures_of(GOOD)
    twice = with_signatures(GOOD, [mine, {**mine, "keyid": "another name"}])
    text = refused(twice, UntrustedError, ALL)
    assert "has 1 signature that counts, and needs 2" in text
    assert "signed it twice, which counts once" in text
    unnamed = with_signatures(GOOD, [{"sig": mine["sig"]}, {"sig": mine["sig"]}])
    assert "needs 2" in refused(unnamed, UntrustedError, ALL)
    assert ids(twice, store_of(A)) == [A.key_id]


# -- signatures that do not count ---------------------------------------------------------------


def test_an_unknown_signer_beside_enough_others() -> None:
    bundle = verify(signed_by(GOOD, STRANGER, A), store_of(A), NOW)
    assert [key.id for key in bundle.signers] == [A.key_id]
    (why,) = bundle.disregarded
    assert STRANGER.key_id in why
    assert "is not in 'trust.toml'" in why


def test_an_unknown_signer_does_not_count() -> None:
    text = refused(signed_by(GOOD, A, STRANGER), UntrustedError, ALL)
    assert "needs 2" in text
    assert STRANGER.key_id in text


def test_a_revoked_key_neither_counts_nor_refuses() -> None:
    trust = store_of(A, B, C, more=TWO + revoked(B))
    text = refused(signed_by(GOOD, A, B), UntrustedError, trust)
    assert "has 1 signature that counts, and needs 2" in text
    assert "was revoked on 2026-01-30: 'stolen'" in text
    bundle = verify(signed_by(GOOD, A, B, C), trust, NOW)
    assert [key.id for key in bundle.signers] == [A.key_id, C.key_id]
    assert "was revoked" in bundle.disregarded[0]


def test_the_signature_of_a_revoked_key_is_not_even_looked_at() -> None:
    """Whoever has the stolen key must not be able to spoil what others signed."""
    one, other = signatures_of(signed_by(GOOD, A, B))
    spoilt = with_signatures(GOOD, [one, flipped(other)])
    assert ids(spoilt, store_of(A, B, more=revoked(B))) == [A.key_id]


def test_a_revoked_key_is_told_under_another_name() -> None:
    (mine,) = signatures_of(GOOD)
    renamed = with_signatures(GOOD, [{**mine, "keyid": "another name"}])
    text = refused(renamed, UntrustedError, store_of(A, more=revoked(A)))
    assert "was revoked on 2026-01-30" in text


def test_keys_that_are_not_valid_or_for_other_plugins() -> None:
    expired = store_text(B, lines="not_after = 2026-01-01T00:00:00Z")
    foreign = store_text(C, patterns=["other"])
    trust = TrustStore.parse((store_text(A) + expired + foreign).encode(), "trust.toml")
    bundle = verify(signed_by(GOOD, B, C, A), trust, NOW)
    assert [key.id for key in bundle.signers] == [A.key_id]
    assert "expired at 2026-01-01" in bundle.disregarded[0]
    assert "lets sign 'other' only" in bundle.disregarded[1]
    text = refused(signed_by(GOOD, B, C), UntrustedError, trust)
    assert "has 0 signatures that count, and needs 1" in text
    assert "expired at" in text
    assert "lets sign 'other' only" in text


# -- signatures that are bad --------------------------------------------------------------------


def test_a_bad_signature_of_a_known_key_refuses_whatever_else_counts() -> None:
    one, other, third = signatures_of(signed_by(GOOD, A, B, C))
    bad = with_signatures(GOOD, [one, other, flipped(third)])
    assert C.key_id in refused(bad, VerificationError, ALL)
    assert ids(with_signatures(GOOD, [one, other]), ALL) == [A.key_id, B.key_id]


@pytest.mark.parametrize(
    "lines", ["not_after = 2026-01-01T00:00:00Z", "not_before = 2027-01-01T00:00:00Z"]
)
def test_so_does_one_of_a_key_that_would_not_count(lines: str) -> None:
    one, other = signatures_of(signed_by(GOOD, A, B))
    trust = TrustStore.parse((store_text(A) + store_text(B, lines=lines)).encode())
    assert ids(with_signatures(GOOD, [one, other]), trust) == [A.key_id]
    refused(with_signatures(GOOD, [one, flipped(other)]), VerificationError, trust)


def test_a_bad_signature_of_an_unknown_key_is_no_worse_than_none() -> None:
    one, other = signatures_of(signed_by(GOOD, A, STRANGER))
    assert ids(with_signatures(GOOD, [flipped(other), one]), store_of(A)) == [A.key_id]


def test_signatures_over_another_payload_do_not_move() -> None:
    (theirs,) = signatures_of(signed_contents(B, {"main.py": "x = 2\n"}))
    (mine,) = signatures_of(GOOD)
    refused(with_signatures(GOOD, [mine, theirs]), VerificationError, ALL)


# -- key ids of other tools ---------------------------------------------------------------------


@pytest.mark.parametrize("hint", [None, "", "SHA256:abc", "0" * 64, A.key_id.upper(), "é"])
def test_whose_signature_it_is_the_key_decides_not_its_name(hint: str | None) -> None:
    (mine,) = signatures_of(GOOD)
    renamed = {"sig": mine["sig"], **({} if hint is None else {"keyid": hint})}
    assert ids(with_signatures(GOOD, [renamed]), store_of(B, A)) == [A.key_id]
    text = refused(with_signatures(GOOD, [renamed]), UntrustedError, store_of(B))
    assert "which is not in" in text


def test_a_claim_of_a_known_key_is_held_to_it() -> None:
    (mine,) = signatures_of(GOOD)
    claimed = with_signatures(GOOD, [{**mine, "keyid": B.key_id}])
    assert B.key_id in refused(claimed, VerificationError, store_of(A, B))


def test_how_many_keys_are_tried_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bytes] = []

    def counted(public: bytes, signature: bytes, message: bytes) -> str:
        tried.append(public)
        return "never good"

    monkeypatch.setattr(counting, "signature_fault", counted)
    strangers = [
        {"keyid": str(i), "sig": mine["sig"]} for i, mine in enumerate(signatures_of(GOOD) * 16)
    ]
    many = store_of(*(make_key(seed) for seed in range(20)))
    refused(with_signatures(GOOD, strangers), UntrustedError, many)
    assert len(tried) == 16 * 20
    tried.clear()
    monkeypatch.setattr(counting, "MAX_TRIALS", 30)
    refused(with_signatures(GOOD, strangers), UntrustedError, many)
    assert len(tried) == 30
    tried.clear()
    assert GOOD.envelope is not None
    size = len(json.loads(GOOD.envelope)["payload"]) * 3 // 4 + 100
    monkeypatch.setattr(counting, "MAX_TRIAL_BYTES", 7 * size)
    refused(with_signatures(GOOD, strangers), UntrustedError, many)
    assert 0 < len(tried) <= 7


# -- the order ---------------------------------------------------------------------------------


def test_nothing_is_parsed_before_enough_keys_are_trusted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def parsed(payload: bytes) -> None:
        raise AssertionError("the payload was parsed")

    monkeypatch.setattr(verify_module, "parse_statement", parsed)
    with pytest.raises(AssertionError, match="was parsed"):
        verify(signed_by(GOOD, A, B), ALL, NOW)
    refused(GOOD, UntrustedError, ALL)
    refused(signed_by(GOOD, A, STRANGER), UntrustedError, ALL)
    one, other = signatures_of(signed_by(GOOD, A, B))
    refused(with_signatures(GOOD, [one, flipped(other)]), VerificationError, ALL)


def test_a_malformed_statement_that_a_trusted_key_signed_is_refused() -> None:
    odd = resigned(GOOD, lambda value: value.update(extra=1))
    assert "unknown key 'extra'" in refused(odd, VerificationError, store_of(A))
    refused(odd, UntrustedError, ALL)
