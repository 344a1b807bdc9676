"""The history command: what is remembered, and an operator's corrections."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandbox_host.admission.changes import Asks
from sandbox_host.admission.history import History, Record, Release
from sandbox_host.bundle.trust import StoreMark
from sandbox_host.model import Permissions
from sandbox_host.runtime.history_store import HistoryStore
from tests.support.bundles import make_key, trust_store
from tests.support.command_line import LocalCommandLine

LATEST = datetime(2126, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def store(cli: LocalCommandLine) -> HistoryStore:
    cli.state_dir.mkdir(mode=0o700, parents=True)
    store = HistoryStore(cli.state_dir)
    asks = Asks(Permissions(env=("TOKEN",)), {"memory_bytes": 2**26}, ("x >= 1.0",))
    record = Record(Release("1.2", "a" * 64), asks, Release("1.0", "b" * 64), "c" * 64)
    with store.change() as draft:
        mark = StoreMark(9, "d" * 64)
        draft.history = History({"weather_model": record}, LATEST, {"/etc/trust.toml": mark})
    return store


def events(cli: LocalCommandLine) -> list[tuple[str, str]]:
    lines = (cli.state_dir / "journal.jsonl").read_text().splitlines()
    return [(json.loads(line)["event"], json.loads(line)["detail"]) for line in lines]


def test_nothing(cli: LocalCommandLine) -> None:
    ran = cli("history", "list")
    assert (ran.code, ran.err) == (0, "")
    assert "0 plugins" in ran.out
    assert not cli.state_dir.exists()


def test_list(cli: LocalCommandLine, store: HistoryStore) -> None:
    ran = cli("history", "list")
    assert ran.code == 0
    assert "1 plugin, latest time 2126-01-31T12:00:00Z" in ran.out
    assert "trust store /etc/trust.toml: version 9" in ran.out
    for text in ("weather_model", "1.2", "TOKEN"):
        assert text in ran.out
    document = json.loads(cli("history", "list", "--format", "json").out)
    assert document["plugins"] == [
        {
            "plugin": "weather_model",
            "version": "1.2",
            "digest": "a" * 64,
            "downgrade": "1.0",
            "approved": "c" * 64,
            "asks": ["see the variable TOKEN", "memory 64 MiB", "x >= 1.0"],
        }
    ]
    assert document["trust_stores"][0]["version"] == 9


def test_one_that_is_broken_is_told(cli: LocalCommandLine, store: HistoryStore) -> None:
    store.path.write_bytes(b"x")
    ran = cli("history", "list")
    assert ran.code == 6
    assert "sandbox-host history new --reason" in ran.err
    ran = cli("history", "new", "--reason", "damaged", "--yes")
    assert ran.code == 0, ran.err
    assert "history.jsonl.aside-" in ran.out
    assert events(cli) == [("history_started", "anew: damaged")]
    assert cli("history", "list").code == 0


def test_forget(cli: LocalCommandLine, store: HistoryStore) -> None:
    assert cli("history", "forget", "other", "--reason", "r", "--yes").code == 2
    ran = cli("history", "forget", "WeatherModel", "--reason", "gone", "--yes")
    assert ran.code == 0, ran.err
    history = store.read()
    assert history is not None
    assert history.plugins == {}
    assert events(cli)[-1] == ("forgotten", f"1.2, {'a' * 64}: gone")


def test_the_clock(cli: LocalCommandLine, store: HistoryStore) -> None:
    ran = cli("history", "accept", "clock", "--reason", "it was wrong", "--yes")
    assert ran.code == 0, ran.err
    history = store.read()
    assert history is not None
    assert history.latest is not None
    assert history.latest < LATEST
    assert events(cli)[-1][0] == "clock_accepted"


def test_the_trust_store(cli: LocalCommandLine, store: HistoryStore, tmp_path: Path) -> None:
    path = trust_store(tmp_path, make_key())
    options = ("--trust-store", path, "--reason", "begun anew", "--yes")
    ran = cli("history", "accept", "trust-store", *options)
    assert ran.code == 0, ran.err
    history = store.read()
    assert history is not None
    assert str(path) in history.stores


@pytest.mark.parametrize(
    "command", [("forget", "weather_model"), ("accept", "clock"), ("new",)], ids=lambda c: c[0]
)
def test_each_needs_a_reason_and_a_word(
    cli: LocalCommandLine, store: HistoryStore, command: tuple[str, ...]
) -> None:
    before = store.path.read_bytes()
    assert cli("history", *command, "--yes").code == 2
    assert cli("history", *command, "--reason", "  ", "--yes").code == 2
    ran = cli("history", *command, "--reason", "r")
    assert ran.code == 2
    assert "Give --yes." in ran.err
    assert store.path.read_bytes() == before


def test_what_is_no_version_is_told(cli: LocalCommandLine, signed: Path) -> None:
    ran = cli("call", signed, "x", "--allow-downgrade", "sample", "x y", "r")
    assert ran.code == 2
    assert "is no version" in ran.err
    ran = cli("run", signed, "--allow-downgrade", "sample", "1.0", " ")
    assert ran.code == 2
    assert "the reason is empty" in ran.err
