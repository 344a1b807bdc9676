"""What do many quick calls cost? Batches, streams and pipelined calls, beside peers, in one run.

Run it with ``.venv/bin/python benchmarks/batch.py [--rounds N] [--calls N] [--quick]``. Every way
has 32 bytes echoed so many times, 1,000 of them outstanding (what hands out whole batches decides
itself), and gets the answers in order. The pools run pickled functions of whoever asks, unconfined;
ours is the real thing: verified, confined, with a deadline, budgets and usage counted.

C has two rows: a program that writes each call when it is made, and one that has all of them to
hand and writes a thousand at once, as no caller but a benchmark does.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from contextlib import ExitStack
from typing import Any

import children  # beside this file, like the others
import peers
from frame import NotThereError, Results, Turn, options_of, reason, take_turns
from ours import OURS, OURS_ASYNC, OurPeer, ground, our_async_peer, our_peer

PAYLOAD = b"x" * 32
WINDOW = 1_000
C_SINGLY, C_COALESCED = "C over a pipe, a write for each", "C over a pipe, coalesced"
POOL_CHUNKS, POOL_SINGLY = (
    "multiprocessing.Pool.map, chunks",
    "multiprocessing.Pool.map, one by one",
)
PEERS = (
    *(peers.RAW, peers.MP, peers.EXECUTOR, peers.ZMQ, peers.GRPC),
    *(peers.PLUGIN, peers.PLUGIN_TLS, peers.EXTISM),
)
SLOW = {
    peers.MP,
    peers.GRPC,
    peers.PLUGIN,
    peers.PLUGIN_TLS,
    POOL_SINGLY,
    "sandbox-host, call by call",
}
"""These do a tenth of the calls, so that their turns are as long as the others'."""


def pool_ways(pool: Any, calls: int) -> dict[str, Turn]:
    """Return the ways of a `multiprocessing.Pool`."""

    def mapped(chunk: int, calls: int) -> list[float]:
        payloads = peers.distinct(PAYLOAD, calls)
        start = time.perf_counter()
        pool.map(children.echo, payloads, chunk)
        return [calls / (time.perf_counter() - start)]

    return {
        POOL_CHUNKS: lambda: mapped(peers.CHUNK, calls),
        POOL_SINGLY: lambda: mapped(1, calls // 10),
    }


def our_ways(ours: OurPeer, calls: int) -> dict[str, Turn]:
    """Return the ways of our blocking API."""

    def one_by_one() -> list[float]:
        count, start = calls // 10, time.perf_counter()
        for _ in range(count):
            ours.call(PAYLOAD)
        return [count / (time.perf_counter() - start)]

    return {
        f"{OURS}, call_many": lambda: [calls / ours.many(PAYLOAD, calls, WINDOW)],
        f"{OURS}, a stream in and out": lambda: [calls / ours.streamed(PAYLOAD, calls)],
        f"{OURS}, begun and then waited for": lambda: [
            calls / ours.pipelined(PAYLOAD, calls, WINDOW)
        ],
        f"{OURS}, call by call": one_by_one,
    }


def c_ways(stack: ExitStack, calls: int) -> dict[str, Turn]:
    """Return the ways of C; how it is compiled and started is in `peers`."""
    program = stack.enter_context(peers.c_program())

    def way(kind: str) -> list[float]:
        count = 10 * calls  # it is so quick that its turns would be too short otherwise
        return [count / program.order(kind, len(PAYLOAD), count, window=WINDOW)[0] * 1e9]

    return {C_SINGLY: lambda: way("n"), C_COALESCED: lambda: way("w")}


def main() -> None:
    """Measure all ways in turns and print the table."""
    options = options_of(
        __doc__,
        rounds=(9, 2, "turns that each way takes"),
        calls=(20_000, 5_000, "calls in one turn"),
    )
    if options.calls % (10 * WINDOW):
        options.calls += 10 * WINDOW - options.calls % (10 * WINDOW)
    results = Results("What do many quick calls cost?")
    table = results.table("batch", "quick calls", "calls/s", C_SINGLY, rate=True, places=0)
    with ExitStack() as stack:
        measure(stack, table, options)
    results.tell(options.json)


def measure(stack: ExitStack, table: Any, options: argparse.Namespace) -> None:
    """Open all ways, and let them take turns."""
    ways: dict[str, Turn] = {}
    try:
        ways |= c_ways(stack, options.calls)
    except NotThereError as error:
        table.missing |= dict.fromkeys((C_SINGLY, C_COALESCED), str(error))
    there, missing = peers.opened(stack, *PEERS)
    table.missing |= missing
    for name, peer in there.items():
        calls = options.calls // (10 if name in SLOW else 1)
        ways[name] = lambda peer=peer, calls=calls: [calls / peer.many(PAYLOAD, calls, WINDOW)]  # type: ignore[misc]
    with peers.bare_main():
        pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(1))
        pool.map(children.echo, [b""])
    ways |= pool_ways(pool, options.calls)
    where = stack.enter_context(ground())
    try:
        ways |= our_ways(stack.enter_context(our_peer(where)()), options.calls)
        ours = stack.enter_context(our_async_peer(where))
        ways[f"{OURS_ASYNC}, gathered"] = lambda: [
            options.calls / ours.many(PAYLOAD, options.calls, WINDOW)
        ]
    except Exception as error:  # noqa: BLE001 - told, as of any other way
        table.lacks(OURS, reason(error))
    take_turns(table, ways, options.rounds)


if __name__ == "__main__":
    main()
