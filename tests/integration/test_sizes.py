"""Large values: refused by size on either side, and the channel still works."""

from __future__ import annotations

import pytest

from sandbox_host import BlockingHost
from sandbox_host.errors import MessageTooLargeError
from tests.support.host import Load

pytestmark = pytest.mark.needs("landlock", "seccomp")

SOURCE = """
@operation
def make(size):
    return b"x" * size

@operation
def many(count):
    return [0] * count
"""


def test_too_large_either_way(host: BlockingHost, load: Load) -> None:
    plugin = load(SOURCE)
    with pytest.raises(MessageTooLargeError, match="echo"):
        plugin.call("echo", b"x" * (9 << 20))
    with pytest.raises(MessageTooLargeError, match="make"):
        plugin.call("make", 9 << 20)
    with pytest.raises(MessageTooLargeError, match="many"):
        plugin.call("many", 1_000_001)
    assert plugin.call("echo", 1) == 1


def test_megabytes_both_ways(host: BlockingHost, load: Load) -> None:
    plugin = load(SOURCE)
    large = bytes(range(256)) * (7 << 12)
    assert plugin.call("echo", large) == large
    assert len(plugin.call("make", 7 << 20)) == 7 << 20


def test_deep_nesting(host: BlockingHost, load: Load) -> None:
    from sandbox_host.errors import NotSerializableError

    plugin = load("""
        @operation
        def deep(levels):
            value = []
            for _ in range(levels):
                value = [value]
            return value
    """)
    with pytest.raises(NotSerializableError):
        plugin.call("deep", 40)
    assert plugin.call("deep", 5) == [[[[[[]]]]]]
