"""What does a call cost? Ours beside C, pipes of Python, pools and RPC, in one interleaved run.

Run it with ``.venv/bin/python benchmarks/roundtrip.py [--rounds N] [--calls N] [--quick]``. Every
way echoes 32 bytes with one call outstanding. Ours is the real thing: verified, fully confined,
with a deadline, budgets and usage counted.

C has two rows, because a blocking round trip costs a few microseconds or several dozens by the luck
of which CPU the other end wakes on; the one that polls first, as we do, does not depend on that.
"""

from __future__ import annotations

from contextlib import ExitStack

import peers  # beside this file, like the others
from frame import Results, Turn, options_of, reason, take_turns
from ours import OURS, OURS_ASYNC, confinement, ground, our_async_peer, our_peer

PAYLOAD = b"x" * 32


def main() -> None:
    """Measure all ways in turns and print the table."""
    options = options_of(
        __doc__,
        rounds=(15, 3, "turns that each way takes"),
        calls=(2_000, 300, "calls in one turn"),
    )
    results = Results("What does a call cost?")
    table = results.table("roundtrip", "one call, 32 bytes", "µs", peers.C_YIELDING)
    with ExitStack() as stack:
        there, table.missing = peers.opened(stack, *peers.OPENERS)
        where = stack.enter_context(ground())
        try:
            ours = stack.enter_context(our_peer(where)())
            there[OURS] = ours
            results.remarks.append(confinement(ours.plugin))
            there[OURS_ASYNC] = stack.enter_context(our_async_peer(where))
        except Exception as error:  # noqa: BLE001 - told, as of any other way
            table.lacks(OURS, reason(error))
        ways: dict[str, Turn] = {
            name: lambda peer=peer: peer.trips(PAYLOAD, options.calls)  # type: ignore[misc]
            for name, peer in there.items()
        }
        take_turns(table, ways, options.rounds)
    results.tell(options.json)


if __name__ == "__main__":
    main()
