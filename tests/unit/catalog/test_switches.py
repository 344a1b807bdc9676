"""What the operator disabled: kept strictly, or an error; never a guess."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sandbox_host.catalog.switches as room
from sandbox_host.catalog.switches import MAX_FILE_BYTES, SWITCHES_NAME, Switches
from sandbox_host.errors import ConfigError, PluginDisabledError, UsageError

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state of a host"


def test_disabled_and_enabled(state_dir: Path) -> None:
    switches = Switches(state_dir)
    assert switches.disabled() == {}
    assert not state_dir.exists()
    assert switches.disable("a", NOW)
    assert not switches.disable("a", NOW + timedelta(days=1))
    assert switches.disable("b_2", NOW)
    assert Switches(state_dir).disabled() == {"a": NOW, "b_2": NOW}
    assert switches.enable("a")
    assert not switches.enable("a")
    assert switches.disabled() == {"b_2": NOW}


def test_who_is_disabled_is_refused_with_what_to_do(state_dir: Path) -> None:
    switches = Switches(state_dir)
    switches.check("a")  # nothing was ever disabled here
    switches.disable("a", NOW)
    switches.check("b")
    with pytest.raises(PluginDisabledError, match="disabled: its operator") as caught:
        switches.check("a")
    assert "2026-01-31 12:00 UTC" in str(caught.value)
    assert "`sandbox-host enable a`" in caught.value.remedy
    switches.path.write_bytes(b"{")
    with pytest.raises(ConfigError):
        switches.check("b")


def test_modes(state_dir: Path) -> None:
    before = os.umask(0)
    try:
        Switches(state_dir).disable("a", NOW)
    finally:
        os.umask(before)
    assert state_dir.stat().st_mode & 0o777 == 0o700
    assert (state_dir / SWITCHES_NAME).stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(state_dir)) == ["disabled.json", "disabled.lock"]


@pytest.mark.parametrize("name", ["", "../a", "A", "é", "a" * 129, "a/b"])
def test_only_identities(state_dir: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is no plugin's name"):
        Switches(state_dir).disable(name, NOW)
    with pytest.raises(UsageError, match="is no plugin's name"):
        Switches(state_dir).enable(name)
    assert not state_dir.exists()


def test_no_instance_alone(state_dir: Path) -> None:
    for switch in (Switches(state_dir).enable, lambda name: Switches(state_dir).disable(name, NOW)):
        with pytest.raises(UsageError, match="with all of them") as refused:
            switch("a@tenant")
        assert "Name the plugin (a)" in str(refused.value.remedy)
    assert not state_dir.exists()


BROKEN = {
    "no json": b"{",
    "other": b"[]",
    "no schema": b'{"disabled": {}}',
    "newer": b'{"schema": 2, "disabled": {}}',
    "more": b'{"schema": 1, "disabled": {}, "x": 1}',
    "path": b'{"schema": 1, "disabled": {"../a": "2026-01-31T12:00:00+00:00"}}',
    "no time": b'{"schema": 1, "disabled": {"a": true}}',
    "no zone": b'{"schema": 1, "disabled": {"a": "2026-01-31T12:00:00.000"}}',
    "large": b" " * (MAX_FILE_BYTES + 1),
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_damaged_file_is_an_error_and_stays(state_dir: Path, case: str) -> None:
    state_dir.mkdir(mode=0o700)
    file = state_dir / SWITCHES_NAME
    file.write_bytes(BROKEN[case])
    file.chmod(0o600)
    for act in (Switches.disabled, lambda one: one.disable("a", NOW), lambda one: one.enable("a")):
        with pytest.raises(ConfigError, match="What was disabled is not known") as caught:
            act(Switches(state_dir))
        assert "`sandbox-host disable NAME`" in caught.value.remedy
    assert file.read_bytes() == BROKEN[case]


def test_what_others_could_have_written_is_refused(state_dir: Path) -> None:
    switches = Switches(state_dir)
    switches.disable("a", NOW)
    switches.path.chmod(0o620)
    with pytest.raises(ConfigError, match="by its group or by others"):
        switches.disabled()
    switches.path.chmod(0o600)
    state_dir.chmod(0o777)
    with pytest.raises(ConfigError, match="one that others can write"):
        switches.enable("a")


def test_links_and_fifos_are_refused(state_dir: Path, tmp_path: Path) -> None:
    state_dir.mkdir(mode=0o700)
    switches = Switches(state_dir)
    switches.path.symlink_to(tmp_path / "other")
    with pytest.raises(ConfigError, match="cannot be opened"):
        switches.disabled()
    switches.path.unlink()
    os.mkfifo(switches.path, 0o600)
    with pytest.raises(ConfigError, match="no regular file"):
        switches.disabled()


def test_two_at_once(state_dir: Path) -> None:
    names = [f"p{number}" for number in range(8)]
    threads = [
        threading.Thread(target=Switches(state_dir).disable, args=(name, NOW)) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(Switches(state_dir).disabled()) == set(names)


def test_one_that_keeps_the_lock(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LOCK_SECONDS", 0.0)
    state_dir.mkdir(mode=0o700)
    with open(state_dir / "disabled.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="is locked by another process"):
            Switches(state_dir).disable("a", NOW)
    assert Switches(state_dir).disable("a", NOW)


_IDENTITIES = st.from_regex(r"[a-z][a-z0-9_]{0,127}", fullmatch=True)
_TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@given(st.dictionaries(_IDENTITIES, _TIMES.map(lambda t: t.replace(microsecond=0)), max_size=8))
def test_what_is_written_is_read(disabled: dict[str, datetime]) -> None:
    assert room._parse(room._render(disabled)) == disabled


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.binary(max_size=64) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_refused_or_read(data: bytes) -> None:
    try:
        read = room._parse(data)
    except room.BadValueError:
        return
    assert room._parse(room._render(read)) == read
