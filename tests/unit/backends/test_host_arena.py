"""The memory that a host shares with a plugin: its size stays, whatever is done to it."""

from __future__ import annotations

import fcntl
import os

import pytest

from plugin_sdk.wire.arena import COUNT_BYTES, KEPT_BYTES, arena_bytes, map_arena
from plugin_sdk.wire.limits import MAX_ALLOWED_BYTES, MAX_PAYLOAD_BYTES
from plugin_sdk.wire.message import PLUGIN
from sandbox_host.backends.linux import arena as arenas
from sandbox_host.backends.linux.arena import make_arena

MIB = 1 << 20


@pytest.mark.parametrize("limit", [MAX_PAYLOAD_BYTES, MAX_ALLOWED_BYTES])
def test_nobody_can_make_it_smaller_or_larger(limit: int) -> None:
    descriptor, arena = make_arena(limit)
    assert arena is not None
    assert arena.capacity == limit
    whole = arena_bytes(limit)
    assert os.fstat(descriptor).st_size == whole
    for size in (0, whole - 1, whole + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)
    with pytest.raises(PermissionError):
        os.pwrite(descriptor, b"x", whole)
    with pytest.raises(PermissionError):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    assert os.fstat(descriptor).st_blocks == 0, "no page before it is written to"
    os.close(descriptor)
    arena.close()


def test_pages_that_few_payloads_need_are_given_back() -> None:
    descriptor, host = make_arena(KEPT_BYTES + MIB)
    plugin = map_arena(descriptor, PLUGIN)
    assert host is not None
    assert plugin is not None

    def kept() -> int:
        return os.fstat(descriptor).st_blocks * 512

    large, small = bytes(KEPT_BYTES + MIB), bytes(100)
    host.put(large)
    assert plugin.take(len(large)) == large
    plugin.put(large)
    assert kept() > 2 * (KEPT_BYTES + MIB)
    assert host.take(len(large)) == large
    assert kept() <= 2 * (KEPT_BYTES + COUNT_BYTES)
    host.put(large)
    plugin.put(small)
    assert host.take(len(small)) == small
    assert plugin.take(len(large)) == large, "what was not taken stays"
    plugin.put(small)
    host.take(len(small))
    assert kept() <= 2 * (KEPT_BYTES + COUNT_BYTES)
    for arena in (host, plugin):
        arena.close()
    os.close(descriptor)


@pytest.mark.parametrize("why", ["strict", "refused"])
def test_without_one_there_is_a_descriptor_of_nothing(
    monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    def refused(*_: object) -> int:
        raise PermissionError

    if why == "strict":
        monkeypatch.setattr(arenas, "_is_strict", lambda: True)
    else:
        monkeypatch.setattr(os, "memfd_create", refused)
    descriptor, arena = make_arena()
    assert arena is None
    assert os.readlink(f"/proc/self/fd/{descriptor}") == os.devnull
    os.close(descriptor)
