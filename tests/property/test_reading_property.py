"""Hostile text as people see it: nothing of it acts on a terminal, or hides."""

from __future__ import annotations

import sys
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.reading import escaped

ACTS = frozenset({"Cf", "Cc", "Cs", "Co", "Zl", "Zp"})
HOSTILE = st.text(
    st.one_of(
        st.characters(),
        st.characters(categories=sorted(ACTS)),
        st.sampled_from("\u200b\u200f\u202a\u202e\u2060\u2069\ufeff"),
    )
)


def acts(text: str) -> set[str]:
    return {c for c in text if unicodedata.category(c) in ACTS}


@given(text=HOSTILE, limit=st.integers(0, 80), keep_end=st.booleans())
def test_nothing_acts_on_a_terminal_or_hides(text: str, limit: int, keep_end: bool) -> None:
    shown = escaped(text, limit, keep_end=keep_end)
    assert acts(shown) == set()
    assert len(shown) <= max(limit, len("..."))


@given(text=HOSTILE, keep=st.sampled_from(["", "\n\t"]))
def test_what_is_kept_is_all_that_passes(text: str, keep: str) -> None:
    assert acts(escaped(text, 10_000, keep=keep)) <= set(keep)


def test_not_one_character_is_forgotten() -> None:
    hidden = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) in ACTS]
    assert len(hidden) > 130_000  # the private planes are most of them
    assert acts(escaped("".join(hidden), 20_000_000)) == set()


@given(text=st.text(st.characters(categories=["L", "M", "N", "P", "S", "Zs"]), max_size=200))
def test_what_people_write_is_left_as_it_is(text: str) -> None:
    assert escaped(text, 200) == text
