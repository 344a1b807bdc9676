"""What a host remembers at each admission, and the lines that the journal gets."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import MappingProxyType, SimpleNamespace

import pytest

from sandbox_host.admission.history import Downgrade
from sandbox_host.bundle.trust import StoreMark
from sandbox_host.config import HostConfig
from sandbox_host.errors import (
    ClockError,
    EquivocationError,
    HeldError,
    HistoryError,
    RollbackError,
    TrustStoreError,
    UsageError,
)
from sandbox_host.model import Limits, Permissions
from sandbox_host.observe.journal import Journal
from sandbox_host.runtime.admissions import Admissions, check_remembered, difference
from sandbox_host.runtime.config_digest import config_digests
from sandbox_host.runtime.history_store import HistoryStore

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def bundle(version="1.0", digest="0", *, role="publisher", name="weather", **asks):
    manifest = SimpleNamespace(
        identity=name,
        version=version,
        permissions=Permissions(**asks),
        limits=MappingProxyType({}),
        dependencies=(),
    )
    return SimpleNamespace(
        manifest=manifest,
        root_digest=digest * 64,
        signers=(SimpleNamespace(roles=(role,)),),
        origin="plugins/weather",
    )


def trust(version=1, digest="a", origin="/etc/trust.toml", root=""):
    return SimpleNamespace(
        origin=origin, version=version, mark=StoreMark(version, digest * 64, root)
    )


@pytest.fixture
def state(tmp_path):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    return state


@pytest.fixture
def journal(state):
    with Journal(state / "journal.jsonl") as journal:
        yield journal


@pytest.fixture
def memory(state, journal):
    made = Admissions(state, journal)
    made.start(HostConfig(state_dir=state))
    return made


def told(state):
    lines = map(json.loads, (state / "journal.jsonl").read_text().splitlines())
    return [(line["event"], line["plugin"], line["detail"]) for line in lines]


def test_a_release_is_remembered_and_an_older_one_refused(state, memory):
    memory.admit(bundle("1.0"), trust(), NOW)
    memory.admit(bundle("1.1", "1"), trust(), NOW)
    for act in (memory.check, memory.admit):
        with pytest.raises(RollbackError):
            act(bundle("1.0"), trust(), NOW)
        with pytest.raises(EquivocationError):
            act(bundle("1.1", "2"), trust(), NOW)
    with pytest.raises(RollbackError):
        check_remembered(state, bundle("1.0"), trust(), NOW)
    check_remembered(state, bundle("1.2"), trust(), NOW)
    assert HistoryStore(state).read().plugins["weather"].highest.version == "1.1"
    assert told(state) == [("history_started", "", "")]


def test_another_host_remembers_it_too(state, journal, memory):
    memory.admit(bundle("2.0"), trust(), NOW)
    other = Admissions(state, journal)
    other.start(HostConfig(state_dir=state))
    with pytest.raises(RollbackError):
        other.admit(bundle("1.0"), trust(), NOW)


def test_development_is_not_remembered(state, memory):
    memory.admit(bundle("2.0", role="developer"), trust(), NOW)
    memory.admit(bundle("1.0", "1", role="developer"), trust(), NOW)
    assert HistoryStore(state).read().plugins == {}


def test_a_downgrade_is_written_down_once(state, memory):
    memory.admit(bundle("2.0"), trust(), NOW)
    word = [Downgrade("weather", "1.0", "2.0 is slow")]
    memory.check(bundle("1.0", "1"), trust(), NOW, word)
    memory.admit(bundle("1.0", "1"), trust(), NOW, word)
    memory.admit(bundle("1.0", "1"), trust(), NOW, word)
    memory.admit(bundle("1.0", "1"), trust(), NOW)
    detail = f"1.0, {'1' * 64}, after 2.0: 2.0 is slow"
    assert told(state)[1:] == [("downgrade_allowed", "weather", detail)]


def test_a_word_that_is_not_needed_is_not_written_down(state, memory):
    memory.admit(bundle("1.0"), trust(), NOW, [Downgrade("weather", "1.0", "r")])
    memory.admit(bundle("2.0"), trust(), NOW, [Downgrade("weather", "2.0", "r")])
    assert told(state)[1:] == []


def test_the_clock(state, memory):
    memory.admit(bundle(), trust(), NOW)
    with pytest.raises(ClockError):
        memory.admit(bundle(), trust(), NOW - timedelta(hours=3))
    memory.accept_clock(NOW - timedelta(hours=3), "it was wrong")
    memory.admit(bundle(), trust(), NOW - timedelta(hours=3))
    event, _, detail = told(state)[-1]
    assert (event, detail) == ("clock_accepted", "after 2026-01-31 12:00:00+00:00: it was wrong")


def test_a_moment_later_writes_nothing(state, memory):
    memory.admit(bundle(), trust(), NOW)
    before = (state / "history.jsonl").stat().st_ino
    memory.admit(bundle(), trust(), NOW + timedelta(seconds=50))
    assert (state / "history.jsonl").stat().st_ino == before
    memory.admit(bundle(), trust(), NOW + timedelta(seconds=70))
    assert HistoryStore(state).read().latest == NOW + timedelta(seconds=70)


def test_an_older_trust_store_is_refused(state, memory):
    memory.admit(bundle(), trust(3), NOW)
    for act in (memory.check, memory.admit):
        with pytest.raises(TrustStoreError, match="version 2, and version 3 was seen"):
            act(bundle(), trust(2), NOW)
    memory.admit(bundle(), trust(1, origin="/another.toml"), NOW)
    memory.accept_store(trust(2), "begun anew")
    memory.admit(bundle(), trust(2), NOW)
    assert told(state)[-1][0] == "trust_store_accepted"


def test_a_changed_trust_store_is_written_down_once(state, memory):
    memory.admit(bundle(), trust(3), NOW)
    with pytest.raises(RollbackError):  # nothing is remembered of this, and nothing told
        memory.admit(bundle("0.1"), trust(4, "b"), NOW)
    memory.admit(bundle(), trust(4, "b"), NOW)
    memory.admit(bundle(), trust(4, "b"), NOW)
    (line,) = [detail for event, _, detail in told(state) if event == "trust_store_changed"]
    assert "version 3, SHA-256 aaa" in line
    assert "is now version 4, bbb" in line


def test_more_is_held_until_it_is_approved(state, memory):
    memory.admit(bundle("1.0"), trust(), NOW)
    update = bundle("1.1", "1", env=("TOKEN",))
    memory.check(update, trust(), NOW)
    with pytest.raises(HeldError, match=r"permissions\.env: TOKEN"):
        memory.admit(update, trust(), NOW)
    shown = difference(state, update)
    memory.approve(update, trust(), NOW, shown)
    with pytest.raises(HeldError):
        memory.admit(bundle("1.1", "2", env=("TOKEN",)), trust(), NOW)
    memory.admit(update, trust(), NOW)
    detail = f"1.1, {'1' * 64}: permissions.env: TOKEN (before: -)"
    assert told(state)[1:] == [("approved", "weather", detail)]
    assert difference(state, update) == ()


def test_only_what_was_shown_is_approved(state, memory):
    memory.admit(bundle("1.0"), trust(), NOW)
    update = bundle("1.2", "1", env=("TOKEN",))
    shown = difference(state, update)
    memory.admit(bundle("1.1", "2"), trust(), NOW)
    memory.approve(update, trust(), NOW, shown)
    with pytest.raises(UsageError, match="differs from what was shown"):
        memory.approve(bundle("1.2", "1", env=("OTHER",)), trust(), NOW, shown)
    with pytest.raises(UsageError, match="nothing to approve"):
        memory.approve(bundle("1.2", "1"), trust(), NOW, ())
    with pytest.raises(RollbackError):
        memory.approve(bundle("0.1", "1", env=("TOKEN",)), trust(), NOW, shown)


def test_the_first_is_approved_by_its_grants(state, memory):
    assert difference(state, bundle(env=("TOKEN",))) == ()
    memory.admit(bundle(env=("TOKEN",)), trust(), NOW)
    memory.admit(bundle("1.1", "1", env=("TOKEN",)), trust(), NOW)


def test_a_history_that_was_removed_is_missed(state, journal, memory):
    memory.admit(bundle("2.0"), trust(), NOW)
    (state / "history.jsonl").unlink()
    again = Admissions(state, journal)
    with pytest.raises(HistoryError, match="is missing, and the journal says") as caught:
        again.start(HostConfig(state_dir=state))
    assert "sandbox-host history new" in caught.value.remedy
    assert again.start_new(NOW, "lost") is None
    again.start(HostConfig(state_dir=state))
    again.admit(bundle("1.0"), trust(), NOW)
    assert ("history_started", "", "anew: lost") in told(state)


def test_what_is_forgotten_is_new_again(state, memory):
    memory.admit(bundle("2.0"), trust(), NOW)
    memory.forget("weather", "not used any more")
    memory.admit(bundle("1.0"), trust(), NOW)
    assert told(state)[-1] == ("forgotten", "weather", f"2.0, {'0' * 64}: not used any more")
    with pytest.raises(UsageError, match="Nothing is remembered"):
        memory.forget("other", "r")


def test_a_configuration_that_changed_is_named(state, journal, memory):
    for config in (
        HostConfig(state_dir=state),
        HostConfig(state_dir=state, grants={"x": {"env": ["A"]}}, ceilings=Limits(threads=3)),
        HostConfig(state_dir=state, grants={"x": {"env": ["A"]}}, ceilings=Limits(threads=3)),
        HostConfig(state_dir=state, grants={"x": {"env": ["B"]}}),
    ):
        Admissions(state, journal).start(config)
    changed = [line for line in told(state) if line[0] == "configuration_changed"]
    assert [line[2] for line in changed] == ["ceilings, grants", "ceilings, grants"]


def test_digests_do_not_depend_on_the_order():
    one = HostConfig(grants={"a": {"env": ["A"]}, "b": {}}, accept_missing={"memory", "cpu"})
    two = HostConfig(grants={"b": {}, "a": {"env": ["A"]}}, accept_missing={"cpu", "memory"})
    assert config_digests(one) == config_digests(two)
    assert set(config_digests(one)) == set(HostConfig.model_fields)
    other = config_digests(HostConfig(grants={"a": {"env": ["A"]}}))
    assert {name for name, digest in other.items() if digest != config_digests(one)[name]} == {
        "grants",
        "accept_missing",
    }
