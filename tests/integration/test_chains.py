"""Chains: streams through several plugins, bounded by who reads, ended by who leaves or fails."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from plugin_sdk.wire.limits import MAX_STREAM_ITEMS
from sandbox_host import SandboxHost
from sandbox_host.errors import (
    CallCancelledError,
    DeadlineExceededError,
    KindMismatchError,
    MessageTooLargeError,
    NoSuchOperationError,
    NotAStreamError,
    OperationError,
    PluginEndedError,
    PluginNotFoundError,
    UsageError,
)
from sandbox_host.model import Cause, State
from sandbox_host.runtime.blocking import BlockingHost
from sandbox_host.runtime.chains import MAX_STAGES
from tests.support.host import Workshop
from tests.support.traces import eventually

SOURCE = """
made, left = [0], []

@operation
def read(until, *, size=0, breaks_at=None):
    made[0] = 0
    try:
        for number in range(until):
            if number == breaks_at:
                raise ValueError("the source breaks")
            made[0] += 1
            yield [number, bytes(size)] if size else number
    finally:
        left.append("read")

@operation
def slowly(until, pause):
    for number in range(until):
        time.sleep(pause)
        yield number

@operation
def once():
    yield 0
    time.sleep(60)

@operation
def same(rows):
    yield from rows

@operation
def count():
    return made[0]

@operation
def what_left():
    told = left[:]
    left.clear()
    return told
"""

FEATURES = """
left = []

@operation
def double(rows):
    try:
        for row in rows:
            yield 2 * row if isinstance(row, int) else row
    finally:
        left.append("double")

@operation
async def double_later(rows):
    async for row in rows:
        yield 2 * row

@operation
def few(rows, until=3):
    for _, row in zip(range(until), rows):
        yield row

@operation
def total(rows):
    return sum(rows)

@operation
def nothing(rows):
    return None

@operation
def breaks(rows):
    yield next(rows)
    raise KeyError("in the middle")

@operation
def dies(rows):
    yield next(rows)
    os._exit(3)

@operation
def hangs(rows):
    yield next(rows)
    time.sleep(30)

@operation
def large(rows):
    yield bytes(9 << 20)

@operation
def what_left():
    told = left[:]
    left.clear()
    return told
"""

MODEL = """
from plugin_sdk import StreamBrokenError

left = []

@operation
def predict(rows):
    return sum(rows)

@operation
def each(rows):
    try:
        for row in rows:
            yield row + 1
    finally:
        left.append("each")

@operation
def stubborn(rows):
    try:
        return sum(rows)
    except StreamBrokenError:
        return "a part"

@operation
def offended(rows):
    try:
        return sum(rows)
    except StreamBrokenError:
        raise LookupError("no rows") from None

@operation
def first(rows):
    row = next(rows)
    time.sleep(0.1)
    return row

@operation
def sizes(rows, pause=0):
    total = 0
    for _, block in rows:
        total += len(block)
        time.sleep(pause)
    return total

@operation
def sizes_slowly(rows):
    return sizes(rows, 0.15)

@operation
def what_left():
    told = left[:]
    left.clear()
    return told
"""

SOURCES = {"source": SOURCE, "features": FEATURES, "model": MODEL}


def _load(host: BlockingHost, workshop: Workshop, **limits: object) -> None:
    for name, source in SOURCES.items():
        host.load(workshop.write(source, name=name, limits=limits))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("chains"))


@pytest.fixture(scope="module")
def open_host(shop: Workshop) -> Iterator[BlockingHost]:
    with SandboxHost.blocking(shop.config()) as host:
        _load(host, shop)
        yield host


@pytest.fixture
def host(open_host: BlockingHost, shop: Workshop) -> BlockingHost:
    """A host with three plugins that have just begun, or have nothing left to do."""
    for name, plugin in open_host.plugins.items():
        if plugin.state is not State.READY:
            open_host.load(shop.write(SOURCES[name], name=name))
        open_host.plugin(name).call("what_left")
    return open_host


def _serves(host: BlockingHost, *names: str) -> None:
    for name in names or SOURCES:
        assert host.plugin(name).call("echo", 7, deadline=10) == 7


def _feeding() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("sandbox-host-feed")]


def test_a_stream_through_three_plugins(host: BlockingHost) -> None:
    chain = host.chain("source.read", "features.double", "model.each")
    assert list(chain.stream(1000)) == [2 * n + 1 for n in range(1000)]
    assert list(chain.stream(0)) == []
    assert list(host.chain("Source.read", "features.double_later").stream(100)) == [
        2 * n for n in range(100)
    ]
    assert list(host.chain("source.read").stream(until=3)) == [0, 1, 2]
    assert repr(chain) == "<BlockingChain source.read, features.double, model.each>"
    assert eventually(lambda: not _feeding())


def test_the_value_of_the_last_stage(host: BlockingHost) -> None:
    chain = host.chain("source.read", "features.double", "model.predict")
    assert chain.call(500) == 2 * sum(range(500))
    assert chain.call(0) == 0
    assert host.chain("model.echo").call(8) == 8
    assert host.chain("source.read", "features.nothing", "model.predict").call(9) == 0


def test_what_the_application_yields_is_a_source(host: BlockingHost) -> None:
    chain = host.chain("features.double", "model.predict")
    assert chain.call(iter(range(300))) == 2 * sum(range(300))
    assert list(host.chain("features.few").stream(iter(range(10**9)), until=2)) == [0, 1]

    async def later() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(UsageError, match="asynchronous"):
        chain.call(later())

    def breaks() -> Iterator[int]:
        yield 1
        raise KeyError("the application's")

    with pytest.raises(OperationError, match=r"features\.double raised") as caught:
        chain.call(breaks())
    assert isinstance(caught.value.__cause__, KeyError)


def test_who_reads_slowly_holds_back_every_stage(host: BlockingHost) -> None:
    source = host.plugin("source")
    with host.chain("source.read", "features.double", "model.each").stream(100_000) as stream:
        assert [next(stream) for _ in range(10)] == [2 * n + 1 for n in range(10)]
        time.sleep(0.3)
    made = source.call("count")
    # A window into and out of each stage but the first, which has none in, and one in each hand.
    assert 10 <= made <= 10 + 5 * MAX_STREAM_ITEMS + 5
    assert source.call("what_left") == ["read"]


def test_large_items_are_bounded_by_their_bytes(host: BlockingHost) -> None:
    chain = host.chain("source.read", "features.double", "model.sizes")
    assert chain.call(40, size=300_000) == 40 * 300_000
    with host.chain("source.read", "features.double").stream(10**6, size=300_000) as stream:
        next(stream)
        time.sleep(0.2)
    assert host.plugin("source").call("count") <= 20  # three windows of 1 MiB


def test_a_reader_that_leaves_ends_every_stage(host: BlockingHost) -> None:
    with host.chain("source.read", "features.double", "model.each").stream(10**9) as stream:
        assert next(stream) == 1
    for name, stage in {"source": "read", "features": "double", "model": "each"}.items():
        assert host.plugin(name).call("what_left") == [stage]
    _serves(host)
    assert list(stream) == []
    with host.chain("source.once", "features.double", "model.each").stream() as stream:
        assert next(stream) == 1
    _serves(host)  # at once, although the source had nothing to say for long
    assert eventually(lambda: not _feeding())


def test_a_stage_that_needs_no_more_ends_those_before_it(host: BlockingHost) -> None:
    assert list(host.chain("source.read", "features.few").stream(10**9)) == [0, 1, 2]
    assert host.chain("source.read", "features.few", "model.predict").call(10**9) == 3
    assert host.plugin("source").call("what_left") == ["read", "read"]
    # What was not read was not missed.
    assert host.chain("source.read", "model.first").call(10, breaks_at=5) == 0


@pytest.mark.parametrize(
    ("stage", "error", "told", "serving"),
    [
        ("breaks", OperationError, r"features\.breaks raised KeyError", 3),
        ("dies", PluginEndedError, r"features\.dies was not answered: .* status 3", 2),
        ("large", MessageTooLargeError, "features", 3),
        ("total", KindMismatchError, r"features\.total returns a value", 3),
    ],
)
def test_what_fails_in_the_middle_arrives_where_the_reader_is(
    host: BlockingHost, stage: str, error: type[Exception], told: str, serving: int
) -> None:
    until = 100 if stage == "total" else 10**9
    chain = host.chain("source.read", f"features.{stage}", "model.each")
    with pytest.raises(error, match=told) as caught:
        list(chain.stream(until))
    assert caught.value.plugin == "features"  # type: ignore[attr-defined]
    place = f"Stage 2 of <BlockingChain source.read, features.{stage}, model.each>."
    assert caught.value.__notes__ == [place]
    _serves(host, *("source", "model", "features")[:serving])
    with pytest.raises((error, PluginEndedError)):
        host.chain("source.read", f"features.{stage}", "model.predict").call(until)
    if stage != "total":
        assert host.plugin("source").call("what_left")[:1] == ["read"]
    assert eventually(lambda: not _feeding())


def test_what_came_before_a_failure_comes_before_it(host: BlockingHost) -> None:
    chain = host.chain("source.read", "features.double", "model.each")
    stream = chain.stream(200, breaks_at=100)
    assert list(itertools.islice(stream, 100)) == [2 * n + 1 for n in range(100)]
    with pytest.raises(OperationError, match=r"source\.read raised ValueError") as caught:
        next(stream)
    assert caught.value.__notes__[0].startswith("Stage 1 of")


def test_a_part_is_not_taken_for_the_whole(host: BlockingHost) -> None:
    with pytest.raises(OperationError, match="the source breaks"):
        host.chain("source.read", "model.stubborn").call(10, breaks_at=5)
    with pytest.raises(OperationError, match="no rows") as caught:
        host.chain("source.read", "model.offended").call(10, breaks_at=5)
    assert isinstance(caught.value.__cause__, OperationError)
    assert caught.value.__cause__.plugin == "source"


def test_the_last_stage_read_as_what_it_is_not(host: BlockingHost) -> None:
    with pytest.raises(NotAStreamError, match=r"chain\.call"):
        list(host.chain("source.read", "model.predict").stream(5))
    with pytest.raises(NotAStreamError, match=r"chain\.stream"):
        host.chain("source.read", "model.each").call(5)
    _serves(host)


def test_chains_that_cannot_be(host: BlockingHost) -> None:
    for stages in [(), ("source",), (".read",), ("source.",), (7,), ("a.b",) * (MAX_STAGES + 1)]:
        with pytest.raises(UsageError, match=r"chain"):
            host.chain(*stages)  # type: ignore[arg-type]
    with pytest.raises(PluginNotFoundError):
        host.chain("source.read", "nowhere.at_all").call(3)
    with pytest.raises(NoSuchOperationError, match=r"no operation .*It has: .*predict"):
        host.chain("source.read", "model.foretell").call(3)
    with pytest.raises(UsageError, match="2 stages in a chain, and works on 1"):
        host.chain("source.read", "source.same").stream(3)
    with pytest.raises(UsageError, match="deadline"):
        host.chain("source.read").stream(3, deadline=float("nan"))
    assert host.plugin("source").call("what_left") == []  # nothing had begun


def test_a_plugin_may_be_two_stages_if_it_works_on_two(host: BlockingHost, shop: Workshop) -> None:
    host.load(shop.write(SOURCE, name="twice", concurrency=2, permissions={"threads": True}))
    chain = host.chain("twice.read", "features.double", "twice.same")
    assert list(chain.stream(300)) == [2 * n for n in range(300)]
    host.unload("twice")


def test_nobody_is_blamed_for_who_is_slow_before_him(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        _load(host, workshop, wall_time="400 ms")
        # The value takes longer than it may, and no stage takes that long for anything.
        assert host.chain("source.slowly", "features.double", "model.predict").call(4, 0.15) == 12
        assert host.chain("source.read", "model.sizes_slowly").call(5, size=300_000) == 1_500_000
        with pytest.raises(DeadlineExceededError, match=r"source\.slowly took too long"):
            host.chain("source.slowly", "features.double", "model.predict").call(1, 5)
        with pytest.raises(DeadlineExceededError, match=r"features\.hangs took too long"):
            list(host.chain("source.read", "features.hangs", "model.each").stream(10**9))
        _serves(host)
        assert {plugin.state for plugin in host.plugins.values()} == {State.READY}


def test_a_deadline_for_all_of_it(host: BlockingHost) -> None:
    with pytest.raises(DeadlineExceededError, match=r"0\.2 s"):
        list(host.chain("source.read", "features.double", "model.each").stream(10**9, deadline=0.2))
    with pytest.raises(DeadlineExceededError):
        host.chain("source.slowly", "model.predict").call(1, 5, deadline=0.1)
    _serves(host)


def test_a_plugin_that_is_unloaded_in_the_middle(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config(stop_timeout_seconds=0.2)) as host:
        for name in ("source", "features"):
            host.load(workshop.write(SOURCES[name], name=name))
        stream = host.chain("source.read", "features.double").stream(10**9)
        assert next(stream) == 0
        host.unload("source")
        with pytest.raises(PluginEndedError) as caught:
            list(stream)
        assert (caught.value.plugin, caught.value.cause) == ("source", Cause.UNLOADED)
        _serves(host, "features")


def test_for_asyncio(workshop: Workshop) -> None:
    async def rows(until: int) -> AsyncIterator[int]:
        for number in range(until):
            await asyncio.sleep(0)
            yield number

    async def run() -> None:
        async with SandboxHost(workshop.config()) as host:
            paths = [workshop.write(source, name=name) for name, source in SOURCES.items()]
            await asyncio.gather(*map(host.load, paths))
            chain = host.chain("source.read", "features.double", "model.each")
            assert [n async for n in chain.stream(500)] == [2 * n + 1 for n in range(500)]
            value = host.chain("source.read", "features.double", "model.predict")
            assert await value.call(500) == 2 * sum(range(500))
            assert await host.chain("features.double", "model.predict").call(rows(200)) == 39800
            assert await host.chain("features.double", "model.predict").call(iter([1, 2])) == 6
            async with chain.stream(10**9) as stream:
                assert await anext(stream) == 1
            assert await host.plugin("source").call("what_left") == ["read"] * 3
            with pytest.raises(NoSuchOperationError):
                await host.chain("source.nothing").call()
            with pytest.raises(OperationError, match=r"features\.breaks raised KeyError"):
                await host.chain("source.read", "features.breaks", "model.predict").call(10**9)
            calling = asyncio.ensure_future(value.call(10**9))
            await asyncio.sleep(0.05)
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            for name in SOURCES:
                assert await host.plugin(name).call("echo", 1) == 1
            with pytest.raises(PluginEndedError):
                await host.chain("source.read", "features.dies", "model.predict").call(10**9)
            assert await host.plugin("source").call("echo", 1) == 1

    asyncio.run(run())


def test_cancelling_from_outside_is_told(host: BlockingHost) -> None:
    stream = host.chain("source.read", "features.double").stream(10**9)
    next(stream)
    stream._process.talk.cancel(stream._pending)
    with pytest.raises(CallCancelledError):
        list(stream)
    _serves(host)
