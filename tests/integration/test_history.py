"""Rollback, equivocation and a clock set back, by every way into a host."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sandbox_host import Downgrade, SandboxHost
from sandbox_host.errors import (
    ClockError,
    EquivocationError,
    HistoryError,
    RollbackError,
    TrustStoreError,
)
from sandbox_host.observe.journal import last_entries
from sandbox_host.runtime.history_store import HistoryStore
from sandbox_host.runtime.throwaway import ThrowawayHost
from tests.support.bundles import store_text
from tests.support.command_line import LocalCommandLine
from tests.support.releases import Publisher

pytestmark = pytest.mark.needs("landlock", "seccomp")


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path)


@pytest.fixture
def cli(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> LocalCommandLine:
    return LocalCommandLine(tmp_path, capsys, monkeypatch)


def load(publisher: Publisher, bundle: Path, *downgrades: Downgrade) -> str:
    """Load it in a host of its own, and say which version it is."""
    with SandboxHost.blocking(publisher.config()) as host:
        return host.load(bundle, downgrades=downgrades).version


def test_older_and_other_releases_are_refused_by_the_next_host(publisher: Publisher) -> None:
    old, new = publisher.release("1.0"), publisher.release("1.1")
    assert load(publisher, old) == "1.0"
    assert load(publisher, new) == "1.1"
    with pytest.raises(RollbackError, match=r"1\.0 is older than 1\.1"):
        load(publisher, old)
    twin = publisher.release("1.1", "\n# not what it was\n")
    with pytest.raises(EquivocationError, match="one version with two contents"):
        load(publisher, twin)
    with pytest.raises(EquivocationError):
        load(publisher, publisher.release("1.1.0", developer=True))
    assert load(publisher, publisher.release("1.1")) == "1.1"  # the same files, signed anew
    codes = [one.detail for one in last_entries(publisher.config().journal_path, "refused")]
    assert ["[rollback]" in one for one in codes] == [True, False, False]
    assert load(publisher, old, Downgrade("weather", "1.0", "1.1 is slow")) == "1.0"
    assert load(publisher, old) == "1.0"
    (entry,) = last_entries(publisher.config().journal_path, "downgrade_allowed")
    assert entry.detail.endswith(": 1.1 is slow")


def test_asyncio_is_the_same_way(publisher: Publisher) -> None:
    old, new = publisher.release("1.0"), publisher.release("1.1")

    async def scenario() -> None:
        async with SandboxHost(publisher.config()) as host:
            await host.load(new)
            await host.unload("weather")
            with pytest.raises(RollbackError):
                await host.load(old)
            plugin = await host.load(old, downgrades=[Downgrade("weather", "1.0", "r")])
            assert await plugin.call("version") == "1.0"

    asyncio.run(scenario())


def test_on_the_command_line(publisher: Publisher, cli: LocalCommandLine) -> None:
    old, new = publisher.release("1.0"), publisher.release("1.1")
    ran = cli("call", new, "version", *publisher.options)
    assert (ran.code, ran.out) == (0, '"1.1"\n'), ran.err
    ran = cli("call", old, "version", *publisher.options)
    assert (ran.code, ran.out) == (5, "")
    assert "--allow-downgrade weather 1.0 REASON" in ran.err
    assert cli("run", old, "--once", *publisher.options).code == 5
    word = ("--allow-downgrade", "Weather", "1.0", "because")
    other = ("--allow-downgrade", "weather", "0.9", "because")
    assert cli("call", old, "version", *other, *publisher.options).code == 5
    ran = cli("run", old, "--once", *word, *publisher.options)
    assert ran.code == 0, ran.err
    ran = cli("call", old, "version", *publisher.options)
    assert (ran.code, ran.out) == (0, '"1.0"\n'), ran.err


def test_authors_change_what_they_like(publisher: Publisher) -> None:
    for version, more in [("2.0", ""), ("1.0", ""), ("1.0", "\n# another\n")]:
        assert load(publisher, publisher.release(version, more, developer=True)) == version
    with ThrowawayHost(publisher.config()) as host:
        for version, more in [("2.0", ""), ("1.0", ""), ("1.0", "\n# another\n")]:
            process = host.load(publisher.release(version, more))
            host.unload(process)
            process.ended.wait(10)


def test_a_clock_set_back(publisher: Publisher, cli: LocalCommandLine) -> None:
    bundle = publisher.release("1.0")
    load(publisher, bundle)
    future = datetime.now(UTC) + timedelta(hours=2)
    with HistoryStore(publisher.state_dir).change() as draft:
        draft.history = type(draft.history)(draft.history.plugins, future)
    with pytest.raises(ClockError):
        load(publisher, bundle)
    state = ("--trust-store", publisher.trust_store, "--state-dir", publisher.state_dir)
    ran = cli("history", "accept", "clock", "--reason", "it was wrong", "--yes", *state)
    assert ran.code == 0, ran.err
    assert load(publisher, bundle) == "1.0"


def test_a_history_that_was_removed_or_damaged(publisher: Publisher) -> None:
    bundle = publisher.release("1.0")
    load(publisher, bundle)
    path = publisher.state_dir / "history.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[:-3])
    with pytest.raises(HistoryError, match="is not as the host wrote it"):
        load(publisher, bundle)
    path.unlink()
    with pytest.raises(HistoryError, match="is missing"):
        load(publisher, bundle)
    path.write_bytes(data)
    path.chmod(0o600)
    assert load(publisher, bundle) == "1.0"


def test_a_trust_store_put_back(publisher: Publisher) -> None:
    bundle, store = publisher.release("1.0"), publisher.trust_store
    store.write_text(f"version = 5\n{store_text(publisher.key)}")
    load(publisher, bundle)
    store.write_text(f"version = 4\n{store_text(publisher.key)}")
    with pytest.raises(TrustStoreError, match="version 4, and version 5 was seen before"):
        load(publisher, bundle)
    refused = last_entries(publisher.config().journal_path, "refused")
    assert "[trust-store]" in refused[-1].detail
    store.write_text(f"version = 6\n{store_text(publisher.key)}")
    load(publisher, bundle)
    (changed,) = last_entries(publisher.config().journal_path, "trust_store_changed")
    assert "is now version 6" in changed.detail
