"""Whoever signed, in whatever order: exactly those count that the store says, or it is refused."""

from __future__ import annotations

import enum

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.verify import verify
from sandbox_host.errors import UntrustedError
from tests.support.bundles import NOW, make_key, signed_contents, store_text
from tests.support.forgeries import signatures_of, signed_by, with_signatures


class Standing(enum.Enum):
    """What the store says of a key."""

    GOOD = ""
    UNKNOWN = "unknown"
    REVOKED = "revoked"
    EXPIRED = "expired"
    FOREIGN = "foreign"


KEYS = [make_key(seed) for seed in range(1, 7)]
UNSIGNED = signed_contents(KEYS[0])
STANDINGS = st.tuples(*[st.sampled_from(Standing)] * len(KEYS))
SIGNERS = st.lists(st.integers(0, len(KEYS) - 1), min_size=1, unique=True)


def store_with(standings: tuple[Standing, ...], threshold: int) -> TrustStore:
    text = ""
    for key, standing in zip(KEYS, standings, strict=True):
        patterns = ["other"] if standing is Standing.FOREIGN else ["sam*"]
        lines = "not_after = 2026-01-01T00:00:00Z" if standing is Standing.EXPIRED else ""
        if standing is not Standing.UNKNOWN:
            text += store_text(key, patterns=patterns, lines=lines)
        if standing is Standing.REVOKED:
            text += f'[[revoked]]\nkey = "{key.key_id}"\nreason = "x"\ndate = 2026-01-01\n'
    return TrustStore.parse(f"{text}[policy]\nthreshold = {threshold}\n".encode())


@given(STANDINGS, SIGNERS, st.integers(1, 4), st.sets(st.integers(0, len(KEYS) - 1)))
def test_exactly_the_good_ones_count(
    standings: tuple[Standing, ...], signers: list[int], threshold: int, renamed: set[int]
) -> None:
    contents = signed_by(UNSIGNED, *(KEYS[i] for i in signers))
    entries = [
        {**entry, "keyid": f"another name of {i}"} if i in renamed else entry
        for i, entry in zip(signers, signatures_of(contents), strict=True)
    ]
    contents = with_signatures(contents, entries)
    expected = [KEYS[i].key_id for i in signers if standings[i] is Standing.GOOD]
    try:
        bundle = verify(contents, store_with(standings, threshold), NOW)
    except UntrustedError:
        assert len(expected) < threshold
        return
    assert len(expected) >= threshold
    assert [key.id for key in bundle.signers] == expected
    assert len(bundle.disregarded) == len(signers) - len(expected)
