from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from plugin_sdk.wire.limits import MAX_STREAM_BYTES, MAX_STREAM_ITEMS
from plugin_sdk.wire.messages import Yield
from sandbox_host.ipc.flows import Inflow, Outflow


@given(st.lists(st.sampled_from(["put", "take"]), max_size=300), st.integers(0, 100_000))
def test_every_item_that_was_taken_is_credited_and_no_other(steps: list[str], size: int) -> None:
    credited: list[int] = []
    flow = Inflow(credited.append)
    put = taken = 0
    for step in steps:
        if step == "put":
            flow.put(Yield(1, payload=put.to_bytes(4) + bytes(size)))
            put += 1
        else:
            payload = flow.take()
            assert (payload is None) is (taken == put)
            if payload is not None:
                assert int.from_bytes(payload[:4]) == taken
                taken += 1
        assert len(flow) == put - taken
        assert sum(credited) <= taken
        if not len(flow):
            assert sum(credited) == taken  # or the writer would wait for ever
        # What is not credited yet is less than the window: the writer never waits for it alone.
        assert taken - sum(credited) < MAX_STREAM_ITEMS // 4
        assert (taken - sum(credited)) * (size + 4) < MAX_STREAM_BYTES // 4 + size + 4


def test_what_comes_after_the_reader_left_is_dropped() -> None:
    flow = Inflow(lambda _: None)
    flow.put(Yield(1, payload=b"a"))
    flow.close()
    flow.put(Yield(1, payload=b"b"))
    assert len(flow) == 0
    assert flow.take() is None


def test_news_wake_who_waits() -> None:
    flow = Outflow()
    open_: list[bool] = []
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(flow.wait, lambda: bool(open_))
        open_.append(True)
        flow.notify()
        waiting.result(20)


def test_the_end_wakes_who_waits_for_room() -> None:
    flow = Outflow()
    woken: list[bool] = []
    flow.wake = lambda: woken.append(flow.stopped)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(flow.wait, lambda: False)
        flow.stop()
        waiting.result(20)
    assert woken == [True]
