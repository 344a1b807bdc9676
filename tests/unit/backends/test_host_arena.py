"""The memory that a host shares with a plugin: its size stays, whatever is done to it."""

from __future__ import annotations

import fcntl
import os

import pytest

from plugin_sdk.wire.arena import ARENA_BYTES
from sandbox_host.backends.linux import arena as arenas
from sandbox_host.backends.linux.arena import make_arena


def test_nobody_can_make_it_smaller_or_larger() -> None:
    descriptor, arena = make_arena()
    assert arena is not None
    assert os.fstat(descriptor).st_size == ARENA_BYTES
    for size in (0, ARENA_BYTES - 1, ARENA_BYTES + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)
    with pytest.raises(PermissionError):
        os.pwrite(descriptor, b"x", ARENA_BYTES)
    with pytest.raises(PermissionError):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    assert os.fstat(descriptor).st_blocks == 0, "no page before it is written to"
    os.close(descriptor)
    arena.close()


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
