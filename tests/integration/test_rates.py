"""What a plugin says in a second is bounded: it waits, the others do not, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from sandbox_host import BlockingHost, SandboxHost
from sandbox_host.errors import DeadlineExceededError
from tests.support.host import Load, Workshop
from tests.support.traces import eventually

pytestmark = pytest.mark.needs("landlock", "seccomp")

TALKER = """
@operation
def publish(count, size=0):
    for number in range(count):
        context().publish("data_processed", "x" * size)
    return count

@operation
def talk(lines):
    for number in range(lines):
        print("line", number, "x" * 990, flush=True)
    return lines
"""
PUBLISH = {"permissions": {"publish": ["data_processed"]}, "events": ["data_processed"]}


def test_without_the_sandbox_it_says_as_much_as_it_likes() -> None:
    script = "import sys\nfor n in range(3_000): print('x' * 990, flush=True)"
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert len(done.stdout) == 3_000 * 991
    assert len(done.stdout) / (time.monotonic() - began) > 300_000


def test_messages_are_held_back(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config(event_queue=65_536)) as host:
        load = workshop.loader(host)
        neighbour = load(name="neighbour")
        plugin = load(TALKER, **PUBLISH, limits={"messages_per_second": 200})
        with host.subscribe("data_processed") as events:
            began = time.monotonic()
            assert plugin.call("publish", 500, 1_500, deadline=30.0) == 500
            assert neighbour.call("echo", 1) == 1
            got = 0
            while got < 500:
                assert events.get(10.0) is not None
                got += 1
            # 200 at once, one read more, and then 200 in a second.
            assert time.monotonic() - began > 1.0
            assert events.dropped == 0
        assert plugin.usage().held_back_seconds > 1.0
        assert neighbour.usage().held_back_seconds == 0.0


def test_bytes_of_messages_are_held_back(load: Load) -> None:
    plugin = load(TALKER, **PUBLISH, limits={"message_bytes_per_second": 10_000})
    began = time.monotonic()
    assert plugin.call("publish", 9, 3_000, deadline=30.0) == 9
    assert plugin.call("echo", 1, deadline=30.0) == 1
    assert time.monotonic() - began > 1.0
    assert plugin.usage().held_back_seconds > 1.0


def test_output_is_held_back_and_not_lost(host: BlockingHost, load: Load) -> None:
    neighbour = load(name="neighbour")
    plugin = load(TALKER, limits={"log_bytes_per_second": "100 kB"})
    began = time.monotonic()
    # 1.6 MB may come at once, and the pipe itself holds some more.
    assert plugin.call("talk", 1_900, deadline=30.0) == 1_900
    assert time.monotonic() - began > 1.5
    assert neighbour.call("echo", 1) == 1
    # On a busy machine it takes its time by itself, for which it is not held back.
    assert plugin.usage().held_back_seconds > 0.5
    assert eventually(lambda: "line 1899" in plugin.log_path.read_text())
    text = plugin.log_path.read_text()
    assert all(f"line {number} x" in text for number in range(1_900))


def test_a_call_that_is_late_for_that_is_told_so(load: Load) -> None:
    plugin = load(TALKER, limits={"log_bytes_per_second": "10 kB"})
    with pytest.raises(DeadlineExceededError, match="held back") as caught:
        plugin.call("talk", 2_000, deadline=1.0)
    assert "log_bytes_per_second" in str(caught.value)
