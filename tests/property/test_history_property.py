"""What is remembered of plugins: older, twin and untimely releases never get in unasked."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.admission.changes import Asks
from sandbox_host.admission.history import (
    CLOCK_TOLERANCE,
    Candidate,
    Downgrade,
    History,
    Record,
    Release,
    admitted,
    approve,
    asks_more,
    check_history,
    permission_for,
)
from sandbox_host.admission.versions import version_key
from sandbox_host.bundle.plugin_json import is_version
from sandbox_host.errors import (
    ClockError,
    EquivocationError,
    HeldError,
    RefusedError,
    RollbackError,
)
from sandbox_host.model import Permissions

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ORDERED = [
    *("0.9", "1.0.0-x.7", "1.0.0.dev1", "1.0.0-alpha", "1.0.0-alpha.beta", "1.0.0-alpha.1"),
    *("1.0.0-rc.1", "1.0", "1.0.0.post1", "1.0.1", "2.0.0-alpha.beta.2", "2.0.0-alpha.beta.x"),
    *("2", "10.0", "1!0.1"),
]
VERSIONS = st.sampled_from(ORDERED)
MORE = Asks(Permissions(env=("TOKEN",)))


def candidate(version="1.0", digest="a", *, released=True, asks=None, identity="p"):
    return Candidate(identity, Release(version, digest), released, asks or Asks())


CANDIDATES = st.builds(
    candidate,
    VERSIONS,
    st.sampled_from("ab"),
    released=st.booleans(),
    identity=st.sampled_from("pq"),
)


def all_admitted(candidates, history=None):
    history = history or History()
    for one in candidates:
        try:
            history = admitted(one, history, NOW)
        except RefusedError:
            continue
    return history


def test_the_order_of_versions():
    keys = [version_key(text) for text in ORDERED]
    assert all(map(is_version, ORDERED))
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "one", ["1.0.0-0.0.a-b", "1.0.0+--", "1.0.0--", "1.0.0-1.--.2", "1.0.0-a.b+c"]
)
def test_what_only_semantic_versioning_reads_has_a_place(one):
    assert is_version(one)
    assert version_key("0.9.9") < version_key(one) < version_key("1.0.1")


@pytest.mark.parametrize("text", ["", "x", "-1", "1.0.0 beta x"])
def test_what_is_no_version_has_none(text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        version_key(text)


SEMVER = st.from_regex(
    r"(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]?)\.(0|[1-9][0-9]?)"
    r"(-(0|[1-9][0-9]{0,2}|[0-9]?[a-z-][0-9a-z-]{0,3})(\.(0|[1-9][0-9]?|[a-z-]{1,3})){0,2})?"
    r"(\+[0-9a-z-]{1,4})?",
    fullmatch=True,
)


@given(SEMVER, SEMVER)
def test_every_version_that_is_read_can_be_compared(one, two):
    for text in (one, two):
        assert is_version(text)
    first, second = version_key(one), version_key(two)
    assert (first < second) + (first == second) + (first > second) == 1
    numbers = [
        tuple(map(int, t.partition("+")[0].partition("-")[0].split("."))) for t in (one, two)
    ]
    if numbers[0] != numbers[1]:
        assert (first < second) == (numbers[0] < numbers[1])


@given(st.lists(CANDIDATES, max_size=8), CANDIDATES)
def test_older_or_another_never_gets_in(before, then):
    """Whatever was there before, in whatever order, the highest and its twin are not got round."""
    history = all_admitted(before)
    record = history.plugins.get(then.identity)
    if record is None:
        assert not any(one.released and one.identity == then.identity for one in before)
        after = admitted(then, history, NOW)
        assert (then.identity in after.plugins) == then.released
        return
    asked, known = version_key(then.release.version), version_key(record.highest.version)
    if asked < known:
        with pytest.raises(RollbackError) as caught:
            admitted(then, history, NOW)
        assert caught.value.code == "rollback"
    elif asked == known and then.release.digest != record.highest.digest:
        with pytest.raises(EquivocationError):
            admitted(then, history, NOW)
    else:
        after = admitted(then, history, NOW)
        assert version_key(after.plugins[then.identity].highest.version) == max(asked, known)


@given(st.lists(CANDIDATES, max_size=8), CANDIDATES, CANDIDATES)
def test_a_downgrade_lets_in_what_it_names_and_nothing_else(before, then, other):
    history = all_admitted(before)
    word = Downgrade(then.identity, then.release.version, "because")
    after = admitted(then, history, NOW, [word])
    assert admitted(then, after, NOW) == after  # again, without the word
    try:
        plain = admitted(other, history, NOW)
    except RefusedError:
        plain = None
    same = other.identity == then.identity and version_key(other.release.version) == version_key(
        then.release.version
    )
    if plain is None and not same:
        with pytest.raises(RollbackError):
            admitted(other, history, NOW, [word])
        with pytest.raises(RollbackError):
            admitted(other, after, NOW)


def test_a_downgrade_ends_with_the_next_that_is_admitted():
    old, new, newer = candidate("1.0"), candidate("2.0"), candidate("3.0")
    history = all_admitted([old, new])
    word = [Downgrade("p", "1.0.0", "r")]
    assert permission_for(old, word) is word[0]
    history = admitted(old, history, NOW, word)
    assert history.plugins["p"].highest.version == "2.0"
    assert history.plugins["p"].exception == old.release
    with pytest.raises(RollbackError):  # pinned to those files
        admitted(candidate("1.0", "b"), history, NOW)
    for one in (new, newer):
        history = admitted(one, history, NOW)
        assert history.plugins["p"].exception is None
    with pytest.raises(RollbackError):
        admitted(old, history, NOW)


@given(st.timedeltas(timedelta(0), timedelta(days=400)))
def test_the_clock(back):
    history = admitted(candidate(), History(), NOW)
    assert history.latest == NOW
    if back > CLOCK_TOLERANCE:
        with pytest.raises(ClockError, match="history accept clock"):
            check_history(candidate(), history, NOW - back)
    else:
        assert check_history(candidate(), history, NOW - back).latest == NOW
    assert check_history(candidate(), history, NOW + back).latest == NOW + back


def test_the_clock_binds_developers_too():
    history = admitted(candidate(released=False), History(), NOW)
    assert history == History(latest=NOW)
    with pytest.raises(ClockError):
        admitted(candidate(released=False), history, NOW - timedelta(hours=2))


def test_development_comes_and_goes():
    history = History()
    for version, digest in [("2", "a"), ("1", "b"), ("1", "c")]:
        history = admitted(candidate(version, digest, released=False, asks=MORE), history, NOW)
    assert history.plugins == {}


def test_a_signature_taken_off_does_not_get_an_old_release_in():
    history = all_admitted([candidate("1.0", "a"), candidate("2.0", "b")])
    with pytest.raises(RollbackError):
        admitted(candidate("1.0", "a", released=False), history, NOW)
    with pytest.raises(EquivocationError):
        admitted(candidate("2.0", "c", released=False), history, NOW)


def test_more_is_held_until_exactly_that_is_approved():
    history = admitted(candidate("1.0"), History(), NOW)
    update = candidate("1.1", "b", asks=MORE)
    with pytest.raises(HeldError) as caught:
        admitted(update, history, NOW, origin="plug ins/p")
    assert caught.value.changes == ("permissions.env: TOKEN (before: -)",)
    assert 'approve "plug ins/p"' in caught.value.remedy
    assert [one.path for one in asks_more(update, history)] == ["permissions.env"]
    approved = approve(update, history)
    with pytest.raises(HeldError):
        admitted(candidate("1.1", "c", asks=MORE), approved, NOW)
    after = admitted(update, approved, NOW)
    assert after.plugins["p"] == Record(update.release, MORE)
    assert admitted(candidate("1.2", "d", asks=MORE), after, NOW)


def test_narrower_goes_through_and_is_what_the_next_is_compared_with():
    history = admitted(candidate("1.0", asks=MORE), History(), NOW)
    history = admitted(candidate("1.1", "b"), history, NOW)
    with pytest.raises(HeldError):
        admitted(candidate("1.2", "c", asks=MORE), history, NOW)


def test_what_is_refused_is_not_remembered():
    history = admitted(candidate("1.0"), History(), NOW)
    with pytest.raises(HeldError):
        admitted(candidate("9.0", "b", asks=MORE), history, NOW)
    assert admitted(candidate("1.1", "c"), history, NOW).plugins["p"].highest.version == "1.1"


def test_of_a_bundle():
    manifest = SimpleNamespace(
        identity="p", version="1.0", permissions=Permissions(), limits={}, dependencies=()
    )
    keys = [SimpleNamespace(roles=("developer",)), SimpleNamespace(roles=("publisher",))]
    for signers, released in [(keys, True), (keys[:1], False)]:
        bundle = SimpleNamespace(manifest=manifest, root_digest="a", signers=signers)
        assert Candidate.of(bundle) == candidate(released=released)
