"""Event types, and who may publish which."""

from __future__ import annotations

import pytest

from sandbox_host.broker.topics import MAX_PATTERNS, Wanted, check_type, may_publish
from sandbox_host.errors import UsageError
from sandbox_host.model import HOST_EVENTS, STANDARD_EVENTS


@pytest.mark.parametrize("event_type", [*sorted(STANDARD_EVENTS), "a", "A.b_1.2", "x" * 64])
def test_well_formed(event_type: str) -> None:
    assert check_type(event_type) == event_type


@pytest.mark.parametrize("event_type", ["", "_a", "1a", "a.", ".a", "a..b", "a b", "é", "x" * 65])
def test_malformed(event_type: str) -> None:
    with pytest.raises(UsageError, match="no event type"):
        check_type(event_type)
    assert not may_publish(event_type, ["*"])


@pytest.mark.parametrize("event_type", sorted(HOST_EVENTS))
@pytest.mark.parametrize("granted", [[], ["*"], ["plugin_*"], sorted(HOST_EVENTS)])
def test_the_hosts_own_are_never_for_plugins(event_type: str, granted: list[str]) -> None:
    assert not may_publish(event_type, granted)


@pytest.mark.parametrize(
    ("granted", "allowed"),
    [([], False), (["*"], True), (["data_*"], True), (["DATA_*"], False), (["data"], False)],
)
def test_by_pattern(granted: list[str], allowed: bool) -> None:
    assert may_publish("data_processed", granted) is allowed


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        ([], True),
        (["weather.rain"], True),
        (["weather.*"], True),
        (["*"], True),
        (["other", "*.rain"], True),
        (["weather.rai?"], True),
        (["weather"], False),
        (["weather.?"], False),
        (["WEATHER.*"], False),
        (["weather.*.*"], False),
        (["rain*"], False),
        (["*weather"], False),
    ],
)
def test_what_a_subscriber_wants(patterns: list[str], wanted: bool) -> None:
    assert ("weather.rain" in Wanted(patterns)) is wanted


@pytest.mark.parametrize(
    "pattern", ["", "a b*", "[ab]*", "*" * 65, "a-*", "é*", "weather.", ".*\n"]
)
def test_malformed_patterns(pattern: str) -> None:
    with pytest.raises(UsageError, match="no event type"):
        Wanted([pattern])


def test_patterns_are_bounded() -> None:
    assert len(Wanted(["a"] * (MAX_PATTERNS + 1)).patterns) == 1
    with pytest.raises(UsageError, match="at most 64"):
        Wanted(f"a{number}" for number in range(MAX_PATTERNS + 1))
