"""What do large payloads cost? One echo of 32 B to 64 MiB, ours beside peers, in one run.

Run it with ``.venv/bin/python benchmarks/payload.py [--rounds N] [--quick]``. Every way sends bytes
to another process and gets the same bytes back, one call outstanding; the other end reads all of a
payload before it answers. Small payloads take several calls a turn. The values are MiB per second
of one direction: a payload counts once, although it goes there and back.

A size above a limit of a way is told as that limit. Payloads are objects that nothing else refers
to, and every answer's length is looked at.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack

import peers  # beside this file, like the others
from frame import NotThereError, Results, Table, Turn, options_of, reason, take_turns
from ours import OURS, OURS_ASYNC, ground, our_async_peer, our_peer
from peers import Peer

KIB, MIB = 1 << 10, 1 << 20
SIZES = (32, KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB)
QUICK = (32, 64 * KIB, MIB, 16 * MIB)
PEERS = (
    *(peers.C_BLOCKING, peers.RAW, peers.MP_BYTES, peers.EXECUTOR, peers.ZMQ),
    *(peers.GRPC, peers.PLUGIN, peers.EXTISM),
)
BASE = peers.MP_BYTES
"""What most would reach for, at its fastest: without pickling."""

BYTES_A_TURN = 32 * MIB
MOST_CALLS = 200


def shown(size: int) -> str:
    """Return a size as text: ``64 KiB``."""
    for unit, name in ((MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"


def turn(peer: Peer, size: int) -> list[float]:
    """Return MiB per second of each call of one turn."""
    calls = max(1, min(MOST_CALLS, BYTES_A_TURN // (8 * size)))
    payload = bytes(bytearray(size))
    if len(peer.call(payload)) != size and not isinstance(peer, peers.CPeer):
        raise NotThereError("the answer is of another length")
    return [size / MIB / (took / 1e6) for took in peer.trips(payload, calls)]


def main() -> None:
    """Measure all ways in turns, size by size, and print a table for each."""
    options = options_of(__doc__, rounds=(7, 2, "turns that each way takes"))
    results = Results("What do large payloads cost?")
    with ExitStack() as stack:
        there, missing = peers.opened(stack, *PEERS)
        # The highest limit: 64 MiB, and what is around them.
        where = stack.enter_context(ground(max_payload_bytes=65 * MIB))
        try:
            # Room for a few copies: the default limits of memory are the plugin's own.
            there[OURS] = stack.enter_context(our_peer(where)())
            there[OURS_ASYNC] = stack.enter_context(our_async_peer(where))
        except Exception as error:  # noqa: BLE001 - told, as of any other way
            missing[OURS] = reason(error)
        for size in QUICK if options.quick else SIZES:
            title = f"echo of {shown(size)}"
            table = results.table(f"echo-{size}", title, "MiB/s", BASE, rate=True)
            table.missing |= missing
            ways: dict[str, Turn] = {
                name: lambda peer=peer, size=size: turn(peer, size)  # type: ignore[misc]
                for name, peer in there.items()
            }
            take_turns(table, ways, options.rounds)
    plot(results)
    results.tell(options.json)


def plot(results: Results) -> None:
    """Draw what was measured: throughput, and microseconds of one call, by size."""
    title, x = "Echo of one payload, one call outstanding", "bytes"
    rates = results.line("payload", title, x, "MiB/s")
    times = results.line("payload-time", title, x, "µs")
    for key, table in results.tables.items():
        size = int(key.removeprefix("echo-"))
        for name, middle in middles(table).items():
            rates.setdefault(name, []).append([size, middle])
            times.setdefault(name, []).append([size, size / MIB / middle * 1e6])


def middles(table: Table) -> dict[str, float]:
    """Return the median of each way."""
    return {
        name: statistics.median([value for turn in turns for value in turn])
        for name, turns in table.turns.items()
    }


if __name__ == "__main__":
    main()
