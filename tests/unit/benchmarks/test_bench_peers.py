"""The peers that need nothing installed are what they say; the others are told of."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType

import pytest

Bench = Callable[[str], ModuleType]
SIZES = (0, 32, 40_000, 300_000)


@pytest.fixture
def peers(bench: Bench) -> ModuleType:
    return bench("peers")


def test_what_cannot_be_opened_is_told(peers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise ImportError("No module named 'zmq'")

    monkeypatch.setitem(peers.OPENERS, peers.ZMQ, refuse)
    with ExitStack() as stack:
        there, missing = peers.opened(stack, peers.ZMQ)
    assert there == {}
    assert missing == {peers.ZMQ: "ImportError: No module named 'zmq'"}


def test_without_a_compiler_c_is_told(peers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer_pipes.shutil.which", lambda _: None)
    with ExitStack() as stack:
        _, missing = peers.opened(stack, peers.C_BLOCKING)
    assert missing == {peers.C_BLOCKING: "no C compiler (cc) is installed"}


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_c_does_all_kinds_of_work(peers: ModuleType) -> None:
    with peers.c_program() as program:
        for kind in "ry":
            assert len(program.order(kind, 32, 50)) == 50
        assert all(took > 0 for took in program.order("r", 300_000, 3))
        assert program.order("w", 32, 2_000, window=1_000)[0] > 0
        assert program.order("n", 32, 2_000, window=1_000)[0] > 0
        assert program.order("f", 32, 100, many=2)[0] > 0


def test_a_raw_pipe_echoes(peers: ModuleType) -> None:
    with peers.raw_pipe() as pipe:
        for size in SIZES:
            assert pipe.call(bytes(size)) == bytes(size)
        assert pipe.many(b"x" * 32, 200, 100) > 0
        assert len(pipe.trips(b"x", 7)) == 7


def test_payloads_of_pools_are_objects_of_their_own(peers: ModuleType) -> None:
    payloads = peers.distinct(b"abc", 3)
    assert payloads == [b"abc"] * 3
    assert len({id(payload) for payload in payloads}) == 3


def test_one_call_is_what_a_peer_does_unless_it_can_do_more(bench: Bench) -> None:
    peer = bench("peers").Peer(lambda payload: payload)
    with pytest.raises(bench("frame").NotThereError, match="one call outstanding"):
        peer.many(b"x", 10, 10)


def test_the_module_for_the_runtime_is_well_formed(peers: ModuleType) -> None:
    module = peers.wasm()
    assert module.startswith(b"\0asm\x01\0\0\0")
    at, sections = 8, []
    while at < len(module):
        sections.append(module[at])
        at += 2 + module[at + 1]
    assert at == len(module)
    assert sections == [1, 2, 3, 7, 10]
