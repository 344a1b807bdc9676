"""Bytes and arrays between a host, which has no numpy, and plugins, of which one has."""

from __future__ import annotations

import array
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_host import BlockingHost, BlockingPlugin, SandboxHost
from sandbox_host.errors import MessageTooLargeError, NotSerializableError
from tests.support.bundles import make_key, signed_plugin, trust_store
from tests.support.command_line import LocalCommandLine
from tests.support.host import Load, Workshop

pytestmark = pytest.mark.needs("landlock", "seccomp")

ENVIRONMENT = Path(__file__).parents[2] / ".plugin-env"
MIB = 1024 * 1024

PLAIN = """
import array

@operation
def told(value):
    if isinstance(value, memoryview):
        return [value.format, list(value.shape), value.readonly, value.tolist()]
    return type(value).__name__

@operation
def make(count):
    return array.array("d", bytes(8 * count))

@operation
def total(values, *, scale):
    return sum(values) * sum(scale["by"])
"""

NUMPY = """
import numpy

@operation
def described(value):
    return [type(value).__name__, str(value.dtype), list(value.shape), float(value.sum())]

@operation
def grid(rows, columns):
    return {"cells": numpy.arange(rows * columns, dtype="f4").reshape(rows, columns).T}

@operation
def zeros(count):
    return numpy.zeros(count)

@operation
def scalar():
    return [numpy.float32(1.5), numpy.array(2), numpy.arange(3).sum()]

@operation
def words():
    return numpy.array(["a", "b"])

@operation
def imaginary():
    return numpy.array([1j])
"""


def test_without_numpy_on_either_side(load: Load) -> None:
    plugin = load(PLAIN)
    sent = memoryview(array.array("i", range(6))).cast("B").cast("i", (2, 3))
    assert plugin.call("told", sent) == ["i", [2, 3], True, [[0, 1, 2], [3, 4, 5]]]
    assert (
        plugin.call("total", array.array("d", [1.5, 2]), scale={"by": array.array("B", b"\1\2")})
        == 10.5
    )
    for row in (b"ab", bytearray(b"ab"), memoryview(b"ab")):
        assert plugin.call("told", row) == "bytes"
    back = plugin.call("echo", sent)
    assert (back.format, back.shape, back.readonly) == ("i", (2, 3), True)
    assert back.tolist() == sent.tolist()


def test_too_large_either_way_and_the_next_call(load: Load) -> None:
    plugin = load(PLAIN)
    with pytest.raises(MessageTooLargeError, match="told"):
        plugin.call("told", array.array("d", bytes(9 * MIB)))
    with pytest.raises(MessageTooLargeError, match="told"):
        plugin.call("told", memoryview(bytes(20 * MIB))[::2])
    with pytest.raises(MessageTooLargeError, match="make"):
        plugin.call("make", 9 * MIB // 8)
    assert plugin.call("make", 7 * MIB // 8).nbytes == 7 * MIB
    large = memoryview(bytes(range(256)) * (7 << 12)).cast("q", (7 << 8, 512))
    assert plugin.call("echo", large).tobytes() == large.tobytes()


def test_a_host_may_allow_more_and_refuses_what_is_above_that(workshop: Workshop) -> None:
    each = "@operation\ndef each(values):\n    yield from values\n"
    bundle = workshop.write(PLAIN + each)
    with SandboxHost.blocking(workshop.config(max_payload_bytes=20 * MIB)) as host:
        plugin = host.load(bundle)
        large = bytes(range(256)) * (18 << 12)
        assert plugin.call("echo", large) == large
        assert plugin.call("make", 18 * MIB // 8).nbytes == 18 * MIB
        assert [*plugin.stream("each", iter([large]))] == [large]
        for refused in (
            lambda: plugin.call("echo", bytes(20 * MIB)),
            lambda: plugin.call("make", 3 * MIB),
        ):
            with pytest.raises(MessageTooLargeError, match=str(20 * MIB)):
                refused()
        assert plugin.call("echo", large) == large


def test_large_values_pass_beside_the_pipe_and_leave_no_descriptor(load: Load) -> None:
    plugin = load(
        """
        import os

        @operation
        def files():
            return sorted(filter(None, [link(f"/proc/self/fd/{n}") for n in range(64)]))

        def link(path):
            try:
                return os.readlink(path)
            except OSError:
                return ""
        """
    )
    arena = plugin._process._child.connection.arena
    assert arena is not None
    before = arena._put, arena._taken
    large = bytes(range(256)) * (7 << 12)
    for value in (large, [large, {"more": bytearray(large[:100_000])}]):
        assert plugin.call("echo", value) == value
    assert (arena._put, arena._taken) == (before[0] + 2, before[1] + 2)
    assert plugin.usage().bytes_in > len(large)
    assert not [name for name in plugin.call("files") if "arena" in name]


@pytest.fixture
def numerical(workshop: Workshop) -> Iterator[BlockingPlugin]:
    if not (ENVIRONMENT / "numpy").is_dir():
        pytest.fail("the plugin environment is not made: run `make env`")
    assert "numpy" not in sys.modules
    with SandboxHost.blocking(workshop.config(plugin_environment=ENVIRONMENT)) as host:
        yield host.load(workshop.write(NUMPY))


def test_numpy_in_the_plugin(numerical: BlockingPlugin) -> None:
    sent = memoryview(array.array("d", range(6))).cast("B").cast("d", (2, 3))
    assert numerical.call("described", sent) == ["ndarray", "float64", [2, 3], 15.0]
    octets = numerical.call("described", array.array("B", b"ab"))
    assert octets == ["ndarray", "uint8", [2], 195.0]

    cells = numerical.call("grid", 3, 2)["cells"]
    assert (cells.format, cells.shape) == ("f", (2, 3))
    assert cells.tolist() == [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]
    assert numerical.call("described", cells) == ["ndarray", "float32", [2, 3], 15.0]

    assert numerical.call("scalar") == [1.5, 2, 3]
    assert numerical.call("words") == ["a", "b"]
    with pytest.raises(NotSerializableError, match="complex"):
        numerical.call("imaginary")
    with pytest.raises(MessageTooLargeError, match="zeros"):
        numerical.call("zeros", 9 * MIB // 8)
    assert numerical.call("zeros", 7 * MIB // 8).nbytes == 7 * MIB


def test_an_array_in_an_event(host: BlockingHost, load: Load) -> None:
    load(
        """
        @on("user_action")
        def acted(event):
            rows = event.data["rows"]
            context().publish("model_updated", {"rows": rows, "sum": sum(rows)})
        """,
        events=["user_action"],
        permissions={"publish": ["model_updated"]},
    )
    with host.subscribe("model_updated") as events:
        host.publish("user_action", {"rows": array.array("h", [1, -3])})
        event = events.get(timeout=30)
    assert event is not None
    assert event.data["sum"] == -2
    assert (event.data["rows"].format, event.data["rows"].tolist()) == ("h", [1, -3])


def test_an_array_in_metadata_is_a_list(load: Load) -> None:
    source = {
        "__init__.py": """
import array
from plugin_sdk import operation

def init_plugin():
    return True

def get_metadata():
    return {"name": "sample", "sizes": array.array("i", [1, 2])}
"""
    }
    assert load(files=source).call("get_metadata")["sizes"].tolist() == [1, 2]


def test_the_command_line_shows_an_array_as_lists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = LocalCommandLine(tmp_path, capsys, monkeypatch)
    trust_store(tmp_path, make_key()).rename(tmp_path / "trust.toml")
    source = """
import array
from plugin_sdk import operation

@operation
def rows(count):
    return [array.array("d", [0.5, 1.5]), array.array("b", bytes(count))]
"""
    signed_plugin(tmp_path / "sample", make_key(), {"main.py": source})
    ran = cli("call", "sample", "rows", "2", "--trust-store", "trust.toml")
    assert (ran.code, json.loads(ran.out)) == (0, [[0.5, 1.5], [0, 0]])
    ran = cli("call", "sample", "rows", "1000002", "--trust-store", "trust.toml")
    shown = json.loads(ran.out)[1]
    assert (shown["format"], shown["shape"]) == ("b", [1_000_002])
    assert shown["base64"] == "AAAA" * (1_000_002 // 3)
