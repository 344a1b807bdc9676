"""Does it become slower with time? The cost of a call and of an event, after up to a million.

Run it with ``.venv/bin/python benchmarks/growth.py [--most N] [--calls N] [--quick]``. One plugin
is called, and another handles events, on and on; after 1,000, 10,000, 100,000 and 1,000,000 calls
and as many events their cost is measured, in turns with a raw pipe of Python that has the same
history. The memory of the host's process and of the plugin is told each time. What grows with the
number of plugins is in `density`, with the size of the payload in `payload`.
"""

from __future__ import annotations

import os
import statistics
from contextlib import ExitStack

import peers  # beside this file, like the others
from density import Crowd, pss_mib
from frame import Results, options_of, progress, take_turns
from ours import OURS, ground

from sandbox_host import SandboxHost

PAYLOAD = b"x" * 32
CALL, EVENT = f"{OURS}, a call", f"{OURS}, an event"
TURNS = 6


def main() -> None:
    """Measure after each power of ten, and print the tables."""
    options = options_of(
        __doc__,
        most=(1_000_000, 20_000, "calls and events in the end"),
        calls=(2_000, 300, "calls in one turn"),
    )
    results = Results("Does it become slower with time?")
    lines = results.line(
        "history", "One call or event, by how many there were", "calls so far", "µs"
    )
    with ExitStack() as stack:
        pipe = stack.enter_context(peers.raw_pipe())
        where = stack.enter_context(ground())
        crowd = Crowd(where, stack.enter_context(SandboxHost.blocking(where.config())))
        crowd.grow(1)
        done = 0
        for level in levels(options.most):
            progress(f"{level} calls and events")
            while done < level:
                chunk = min(10_000, level - done)
                crowd.one(chunk)
                crowd.event(chunk)
                pipe.trips(PAYLOAD, chunk)
                done += chunk
            table = results.table(f"after-{level}", f"after {level:,}", "µs", peers.RAW)
            ways = {
                peers.RAW: lambda: pipe.trips(PAYLOAD, options.calls),
                CALL: lambda: crowd.one(options.calls),
                EVENT: lambda: crowd.event(options.calls),
            }
            take_turns(table, ways, 2 if options.quick else TURNS)
            for name, turns in table.turns.items():
                middle = statistics.median([value for turn in turns for value in turn])
                lines.setdefault(name, []).append([level, middle])
            results.facts[f"MiB of the host after {level:,}"] = pss_mib_of_self()
            results.facts[f"MiB of the plugin after {level:,}"] = crowd.memory()[0]
    results.tell(options.json)


def levels(most: int) -> list[int]:
    """Return the powers of ten from a thousand on, up to the last one."""
    return sorted({*(10**power for power in range(3, 10) if 10**power < most), most})


def pss_mib_of_self() -> float:
    """Return the memory of this process, the host's, in MiB."""
    return pss_mib(os.getpid())


if __name__ == "__main__":
    main()
