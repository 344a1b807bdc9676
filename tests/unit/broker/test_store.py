"""Durable events: kept until acknowledged, over restarts, within bounds, in order."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from plugin_sdk.wire.codec import pack
from sandbox_host.broker import store as store_module
from sandbox_host.broker.durable import DurableBounds
from sandbox_host.broker.store import MAX_DURABLE
from sandbox_host.errors import EventStoreError, EventStoreFullError, UsageError
from tests.support.event_stores import BOUNDS, Shop, all_of, shop
from tests.support.traces import eventually


def rows(directory: Path, table: str) -> int:
    """How many rows a second connection sees: what is committed."""
    connection = sqlite3.connect(directory / "events.sqlite3")
    try:
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    finally:
        connection.close()
    return int(count)


def test_what_was_not_acknowledged_comes_again_after_a_restart(tmp_path: Path) -> None:
    with shop(tmp_path) as first:
        reader = first.read()
        ids = [first.publish(number) for number in range(5)]
        got = [reader.wait(10) for _ in range(3)]
        assert [event.id for event in got if event] == ids[:3]
        got[1].ack()  # type: ignore[union-attr]
        got[1].ack()  # type: ignore[union-attr]
    with shop(tmp_path) as second:
        again = list(iter(second.read().take, None))
        assert [(event.id, event.data) for event in again] == [
            (ids[0], 0),
            (ids[2], 2),
            (ids[3], 3),
            (ids[4], 4),
        ]
        assert {(event.type, event.source, event.timestamp) for event in again} == {
            ("orders.new", "host", 1_000.0)
        }


def test_events_wait_for_a_subscription_that_nobody_reads(tmp_path: Path) -> None:
    with shop(tmp_path) as first:
        first.read()
    with shop(tmp_path) as second:
        second.publish("before anybody reads")
        second.publish("unwanted", "other")
        assert [info.reading for info in second.store.infos()] == [False]
        assert all_of(second.read()) == ["before anybody reads"]


def test_it_is_on_the_disk_when_publishing_returns(tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        opened.read()
        for number in range(1, 4):
            opened.publish(number)
            assert rows(tmp_path, "event") == rows(tmp_path, "waiting") == number


def test_what_everybody_has_acknowledged_leaves_the_disk(tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        readers = [opened.read(name) for name in ("one", "two")]
        opened.publish(1)
        readers[0].wait(10).ack()  # type: ignore[union-attr]
        assert eventually(lambda: rows(tmp_path, "waiting") == 1)
        assert rows(tmp_path, "event") == 1
        readers[1].wait(10).ack()  # type: ignore[union-attr]
        assert eventually(lambda: rows(tmp_path, "waiting") == rows(tmp_path, "event") == 0)


def test_ids_are_never_used_again(tmp_path: Path) -> None:
    seen: set[int] = set()
    for _ in range(3):
        with shop(tmp_path) as opened:
            reader = opened.read()
            identifier = opened.publish(None)
            assert identifier not in seen
            seen.add(identifier)
            reader.wait(10).ack()  # type: ignore[union-attr]
    assert sorted(seen) == [1, 2, 3]


def test_redelivery_when_nobody_acknowledges(tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        reader = opened.read(after=0.02)
        ids = [opened.publish(number) for number in range(2)]
        assert [reader.wait(10).id for _ in range(2)] == ids  # type: ignore[union-attr]
        again = reader.wait(10)
        assert again is not None
        assert again.id == ids[0]
        again.ack()
        assert reader.wait(10).id == ids[1]  # type: ignore[union-attr]
        pause = reader.pause()
        assert pause is not None
        assert pause <= 0.02


def test_nothing_comes_again_before_its_time(tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        reader = opened.read()
        opened.publish(1)
        assert (all_of(reader), all_of(reader), reader.wait(0.01)) == ([1], [], None)


def test_the_next_reader_gets_what_the_last_one_left(tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        reader = opened.read()
        for number in range(4):
            opened.publish(number)
        late = [reader.take() for _ in range(3)]
        reader.close()
        assert reader.wait(None) is None
        late[1].ack()  # type: ignore[union-attr]
        assert all_of(opened.read()) == [0, 2, 3]


def test_one_reader_at_a_time(tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        opened.read()
        with pytest.raises(UsageError, match="being read already"):
            opened.read()


def test_a_reader_that_waits_is_woken(tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        reader = opened.read()
        got: list[object] = []
        thread = threading.Thread(target=lambda: got.extend([reader.wait(None), reader.wait(None)]))
        thread.start()
        opened.publish("now")
        assert eventually(lambda: len(got) or opened.store.infos()[0].delivered)
        reader.close()
        thread.join(10)
    assert got[0].data == "now"  # type: ignore[attr-defined]
    assert got[1] is None


def test_other_types_from_now_on(tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        opened.read("billing", "orders.*").close()
        opened.publish(1)
        opened.read("billing", "invoices.*").close()
        opened.publish(2)
        opened.publish(3, "invoices.new")
    with shop(tmp_path) as again:
        assert again.store.infos()[0].types == ("invoices.*",)
        assert all_of(again.read("billing", "invoices.*")) == [1, 3]


def test_dropping(tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        readers = [opened.read(name) for name in ("one", "two")]
        opened.publish(1)
        assert opened.store.drop("one") == 1
        assert readers[0].closed
        assert (rows(tmp_path, "event"), rows(tmp_path, "waiting")) == (1, 1)
        assert opened.store.drop("two") == 1
        assert (rows(tmp_path, "event"), rows(tmp_path, "waiting")) == (0, 0)
        with pytest.raises(UsageError, match="there are: none"):
            opened.store.drop("two")
        opened.publish(2)
        assert rows(tmp_path, "event") == 0
        assert all_of(opened.read("one")) == []


def test_group_commit_keeps_the_order(tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        reader = opened.read()
        with ThreadPoolExecutor(16) as pool:
            ids = set(pool.map(opened.publish, range(300)))
        events = [reader.wait(10) for _ in range(300)]
        assert [event.id for event in events if event] == sorted(ids)


@pytest.mark.parametrize(
    ("bounds", "size", "fitting"),
    [
        (DurableBounds(3, 1024 * 1024, 60.0), 1, 3),
        (DurableBounds(100, 1_000, 60.0), 398, 2),
    ],
    ids=["events", "bytes"],
)
def test_a_full_subscription_refuses_the_publisher(
    tmp_path: Path, bounds: DurableBounds, size: int, fitting: int
) -> None:
    with shop(tmp_path, bounds) as opened:
        reader, live = opened.read(), opened.broker.subscribe([])
        for _ in range(fitting):
            opened.publish(bytes(size))
        with pytest.raises(EventStoreFullError, match="was not published") as caught:
            opened.publish(bytes(size))
        assert caught.value.subscription == "billing"
        opened.publish(bytes(size), "other")
        # Whoever reads along did not get it either, and no id is missing.
        assert [event.id for event in iter(live.take, None)] == list(range(1, fitting + 2))
        reader.wait(10).ack()  # type: ignore[union-attr]
        opened.publish(bytes(size))
        assert opened.store.infos()[0].refused == 1


def test_a_subscription_that_nobody_reads_for_too_long_refuses(tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        reader = opened.read()
        opened.publish(1)
        opened.now += BOUNDS.age_seconds + 1
        with pytest.raises(EventStoreFullError, match="more than 3600 s"):
            opened.publish(2)
        reader.wait(10).ack()  # type: ignore[union-attr]
        opened.publish(3)


def test_a_plugin_leaves_room_for_others(tmp_path: Path) -> None:
    with shop(tmp_path, DurableBounds(10, 1024 * 1024, 60.0)) as opened:
        opened.read()
        for _ in range(5):
            opened.publish(0, source="flooding")
        with pytest.raises(EventStoreFullError, match="flooding"):
            opened.publish(0, source="flooding")
        for source in ("other", "host", "host", "host", "host"):
            opened.publish(0, source=source)
        with pytest.raises(EventStoreFullError, match="10 events"):
            opened.publish(0)


def test_one_that_is_full_takes_nothing_from_the_others(tmp_path: Path) -> None:
    with shop(tmp_path, DurableBounds(2, 1024 * 1024, 60.0)) as opened:
        first, second = opened.read("first"), opened.read("second", "orders.new", "x")
        opened.publish(1, "x")
        opened.publish(2, "x")
        for _ in range(5):
            with pytest.raises(EventStoreFullError, match="second"):
                opened.publish(3)
        assert (all_of(first), all_of(second)) == ([], [1, 2])
        assert [info.waiting for info in opened.store.infos()] == [0, 2]


def test_a_disk_that_fails_is_told_to_the_publisher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shop(tmp_path) as opened:
        reader = opened.read()
        opened.publish(1)
        event = reader.wait(10)
        assert event is not None
        with monkeypatch.context() as broken:

            def fail(*_: object) -> None:
                raise sqlite3.OperationalError("disk I/O error")

            broken.setattr(opened.store, "_commit", fail)
            event.ack()
            with pytest.raises(EventStoreError, match="disk I/O error"):
                opened.publish(2)
        assert opened.store.infos()[0].waiting == 0
        opened.publish(3)  # the acknowledgement is written with it
        assert (rows(tmp_path, "waiting"), all_of(reader)) == (1, [3])


def test_a_disk_that_does_not_answer_is_told_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shop(tmp_path) as opened:
        reader = opened.read()
        go_on = threading.Event()
        commit = opened.store._commit
        monkeypatch.setattr(opened.store, "_commit", lambda b: (go_on.wait(10), commit(b)))
        publication = opened.broker.begin("orders.new", pack(1), "host")
        assert publication.stored is not None
        with pytest.raises(EventStoreError, match="has not answered"):
            store_module.finish(publication.stored, 0.01)
        assert reader.take() is None
        go_on.set()
        publication.wait()
        assert all_of(reader) == [1]


def test_memory_is_bounded_while_the_disk_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_UNWRITTEN_BYTES", 250)
    with shop(tmp_path) as opened:
        opened.read()
        go_on = threading.Event()
        commit = opened.store._commit
        monkeypatch.setattr(opened.store, "_commit", lambda b: (go_on.wait(10), commit(b)))
        begun = [opened.broker.begin("orders.new", pack(bytes(98)), "host") for _ in range(2)]
        with pytest.raises(EventStoreError, match="does not keep up"):
            opened.publish(bytes(98))
        go_on.set()
        for publication in begun:
            publication.wait()
        opened.publish(bytes(98))


def test_closed(tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        reader = opened.read()
    opened.store.close()
    assert reader.closed
    with pytest.raises(EventStoreError, match="closed"):
        opened.publish(1)
    assert opened.broker.publish("other", pack(1), "host").type == "other"


@pytest.mark.parametrize("name", ["", ".a", "a b", "a" * 65, "é", "a/b"])
def test_malformed_names(tmp_path: Path, name: str) -> None:
    with shop(tmp_path) as opened, pytest.raises(UsageError, match="no name"):
        opened.read(name)


@pytest.mark.parametrize("after", [0.0, -1.0, 1e9, float("nan")])
def test_times_of_redelivery(tmp_path: Path, after: float) -> None:
    with shop(tmp_path) as opened:
        with pytest.raises(UsageError, match="redeliver_after"):
            opened.read(after=after)
        assert opened.store.infos() == []


def test_subscriptions_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_DURABLE == 64
    monkeypatch.setattr(store_module, "MAX_DURABLE", 2)
    with shop(tmp_path) as opened:
        for name in ("one", "two", "one"):
            opened.read(name).close()
        with pytest.raises(UsageError, match="which is the most"):
            opened.read("three")


def test_an_event_that_was_changed_behind_the_hosts_back(tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        reader = opened.read()
        opened.publish(1)
        connection = sqlite3.connect(tmp_path / "events.sqlite3")
        connection.execute("UPDATE event SET data = ?", (b"\xc1",))
        connection.commit()
        connection.close()
        with pytest.raises(EventStoreError, match="cannot be used"):
            reader.take()


def test_a_forked_copy_leaves_the_original_alone(tmp_path: Path) -> None:
    opened = Shop(tmp_path)
    connections = len(store_module._forked)
    opened.store.forget()  # what a copy does
    try:
        assert len(store_module._forked) == connections + 1
        with pytest.raises(EventStoreError, match="closed"):
            opened.read()
    finally:
        _, _, closing = store_module._forked.pop()  # type: ignore[misc]
        with opened.store._changed:
            opened.store._changed.notify_all()
        opened.store._thread.join(10)
        closing.close()
