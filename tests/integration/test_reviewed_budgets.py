"""What an attacker found in the budgets, as it was found, and that it does not work any more."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from sandbox_host import BlockingHost, Cause
from sandbox_host.errors import PluginEndedError
from tests.support.host import Load
from tests.support.traces import eventually

pytestmark = pytest.mark.needs("landlock", "seccomp")


def test_a_thread_gets_no_table_of_descriptors_of_its_own(load: Load) -> None:
    """CLOSE_RANGE_UNSHARE: each would have had as many as the whole plugin, seen by nobody."""
    plugin = load("""
        @operation
        def close_range(flags):
            return ctypes.CDLL(None).syscall(436, 1000, 2000, flags)
    """)
    assert plugin.call("close_range", 0) == 0
    assert plugin.call("close_range", 4) == 0
    assert plugin.call("close_range", 2) == -1
    assert plugin.call("close_range", 6) == -1


HALF_A_FRAME = """
@operation
def answer_half(then):
    # The first bytes of a large answer, and no more.
    for descriptor in range(3, 10):
        try:
            if os.fstat(descriptor).st_mode & 0o170000 == 0o010000:
                os.write(descriptor, bytes([0, 0, 0, 3, 0, 1, 0, 0, 0x92]))
        except OSError:
            pass
    if then == "leave":
        os._exit(3)
    if then == "crash":
        ctypes.string_at(0)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("then", "cause"),
    [("leave", Cause.EXITED), ("crash", Cause.CRASHED), ("wait", Cause.KILLED)],
)
def test_who_dies_while_it_answers_has_broken_no_rule(load: Load, then: str, cause: Cause) -> None:
    plugin = load(HALF_A_FRAME)
    told, before = [], plugin._process.channel.bytes_in

    def ask() -> None:
        with pytest.raises(PluginEndedError) as caught:
            plugin.call("answer_half", then)
        told.append(caught.value.cause)

    asking = threading.Thread(target=ask)
    asking.start()
    if then == "wait":
        assert eventually(lambda: plugin._process.channel.bytes_in > before)
        os.kill(plugin.receipt.pid, signal.SIGKILL)
    asking.join()
    assert told == [cause]


def test_a_report_of_a_handler_is_small(host: BlockingHost, load: Load) -> None:
    """It is read by whoever reads for everybody, and nobody asked for it."""
    plugin = load(
        """
        from plugin_sdk.wire.codec import pack
        import plugin_sdk.child.running as running

        @operation
        def prepare(size):
            running.pack = lambda value: pack({**(value or {}), "more": "x" * size})

        @on("data_processed")
        def handle(event):
            raise ValueError("no")
        """,
        events=["data_processed"],
    )
    plugin.call("prepare", 1 << 20)
    host.publish("data_processed", {})
    assert plugin._process.ended.wait(10)
    assert plugin.cause is Cause.PROTOCOL_VIOLATION


def test_events_of_another_do_not_keep_calls_waiting(host: BlockingHost, load: Load) -> None:
    plugin = load(
        """
        seen = []

        @on("data_processed")
        def handle(event):
            seen.append(event.data)
            time.sleep(0.01)

        @operation
        def count():
            return len(seen)

        @operation
        def all_seen():
            return seen
        """,
        events=["data_processed"],
    )
    for number in range(200):
        host.publish("data_processed", number)
    # At most as many as are with the plugin at a time stand before it: not two hundred.
    assert plugin.call("count", deadline=20.0) < 100
    assert eventually(lambda: plugin.call("count") == 200, seconds=30.0)
    assert plugin.call("all_seen") == list(range(200)), "in order, and none is lost"


def test_a_byte_at_a_time_costs_the_host_no_read_each(load: Load) -> None:
    plugin = load("""
        @operation
        def dribble(seconds):
            written, until = 0, time.monotonic() + seconds
            while time.monotonic() < until:
                written += os.write(1, b"x")
            return written
    """)
    reads: list[int] = []
    output = plugin._process._output
    plain = output._read

    def counted(role: str) -> bytes | None:
        data = plain(role)
        reads.append(len(data or b""))
        return data

    output._read = counted  # type: ignore[method-assign]
    written = plugin.call("dribble", 1.0)
    assert written > 10_000
    assert eventually(lambda: sum(reads) >= written)
    assert len(reads) < written / 10


def test_failing_handlers_do_not_fill_the_log(
    host: BlockingHost, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    load(
        '@on("data_processed")\ndef handle(event):\n    raise ValueError("no")\n',
        events=["data_processed"],
    )
    began = time.monotonic()
    for _ in range(400):
        host.publish("data_processed", {})
    assert eventually(lambda: "a handler of data_processed failed" in caplog.text)
    time.sleep(0.5)
    told = caplog.text.count("a handler of data_processed failed")
    assert told <= 102 + time.monotonic() - began
