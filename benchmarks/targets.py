"""Where we want to be, and where we are: each target beside what one run of everything has reached.

A figure is a ratio within one run wherever it can be, because only ratios hold on other machines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import peers  # beside this file, like the others
from batch import C_COALESCED, C_SINGLY
from density import ONE
from ours import OURS, OURS_ASYNC
from start import BARE, NURSERY, POOL, name_of

Whole = Mapping[str, Mapping[str, Any]]
"""The results of each file, by its name, as they are in JSON."""

MIB = 1 << 20
MANY = 1_000


class UnknownError(Exception):
    """A figure is missing; its text says which, and why if that is known."""


def value(whole: Whole, file: str, table: str, name: str, column: str = "p50") -> float:
    """Return one figure of one row.

    Raises:
        UnknownError: it was not measured.
    """
    rows = whole.get(file, {}).get("tables", {}).get(table, {}).get("rows", ())
    row = next((row for row in rows if row["name"] == name), {})
    found = row.get(column)
    if found is None:
        raise UnknownError(f"{name}: {row.get('missing', 'not measured')}")
    return float(found)


def fact(whole: Whole, file: str, name: str) -> float:
    """Return one of the other figures.

    Raises:
        UnknownError: it was not measured.
    """
    found = whole.get(file, {}).get("facts", {}).get(name)
    if not isinstance(found, int | float):
        raise UnknownError(f"{name}: not measured")
    return float(found)


def c_trip(whole: Whole) -> float:
    """Return the median of a round trip in C, of the quicker of the two ways."""
    names = (peers.C_BLOCKING, peers.C_YIELDING)
    return min(value(whole, "roundtrip", "roundtrip", name) for name in names)


def trip(name: str) -> Callable[[Whole], float]:
    """Return what compares a round trip with C."""
    return lambda whole: value(whole, "roundtrip", "roundtrip", name) / c_trip(whole)


def trip_p99(whole: Whole) -> float:
    """Compare the slow calls with those over a raw pipe."""
    ours = value(whole, "roundtrip", "roundtrip", OURS, "p99")
    return ours / value(whole, "roundtrip", "roundtrip", peers.RAW, "p99")


def batched(peer: str) -> Callable[[Whole], float]:
    """Return what compares batched calls with a peer's."""
    ours = f"{OURS}, call_many"
    return lambda whole: value(whole, "batch", "batch", ours) / value(whole, "batch", "batch", peer)


def fan_out(whole: Whole) -> float:
    """Compare events to 32 subscribers with zmq's."""
    return value(whole, "fanout", "fanout-32", OURS) / value(
        whole, "fanout", "fanout-32", peers.ZMQ
    )


def echoes(whole: Whole) -> float:
    """Return the worst ratio of large payloads, 1 to 16 MiB, to `multiprocessing.Pipe`."""
    sizes = (MIB, 4 * MIB, 16 * MIB)
    return min(value(whole, "payload", f"echo-{size}", OURS, "ratio") for size in sizes)


def started(start: str, *, process: bool) -> Callable[[Whole], float]:
    """Return what compares a start with that of a bare interpreter."""
    return lambda whole: (
        value(whole, "start", "start", name_of(start, process=process))
        / value(whole, "start", "start", BARE)
    )


def memory(whole: Whole) -> float:
    """Return the memory of one of a thousand idle plugins in MiB."""
    return value(whole, "density", "memory", f"{OURS}, {MANY} alive, each called")


def one_more(whole: Whole) -> float:
    """Return a call with a thousand plugins alive, by one with one, both beside the raw pipe."""
    if fact(whole, "density", "plugins alive") < MANY:
        raise UnknownError("not so many were alive")
    few = value(whole, "density", "calls-1", ONE, "ratio")
    return value(whole, "density", f"calls-{MANY}", ONE, "ratio") / few


@dataclass(frozen=True)
class Target:
    """What we want.

    Attributes:
        what: is measured.
        bound: the figure is to be on the right side of it.
        unit: of both, with the peer where it is a ratio.
        figure: returns what was reached.
        at_least: the right side is above.
    """

    what: str
    bound: float
    unit: str
    figure: Callable[[Whole], float]
    at_least: bool = False


TARGETS = (
    Target("round trip, 32 B, p50", 2.0, "× C over a pipe", trip(OURS)),
    Target("the same, p99", 0.06, "× raw Python over a pipe", trip_p99),
    Target("asyncio call, 32 B, p50", 3.0, "× C over a pipe", trip(OURS_ASYNC)),
    Target(
        "batched calls a second", 0.2, "× C, a write for each", batched(C_SINGLY), at_least=True
    ),
    Target("the same", 0.2, "× C, coalesced", batched(C_COALESCED), at_least=True),
    Target("the same", 1.5, "× zmq", batched(peers.ZMQ), at_least=True),
    Target("events to 32 subscribers", 1.0, "× zmq PUB", fan_out, at_least=True),
    Target("echo of 1 to 16 MiB, the worst", 8.0, "× multiprocessing.Pipe", echoes, at_least=True),
    Target("start, nursery: the process", 0.4, f"× {BARE}", started(NURSERY, process=True)),
    Target(
        "start, nursery: load and first call", 0.4, f"× {BARE}", started(NURSERY, process=False)
    ),
    Target("start, warm pool: the process", 0.07, f"× {BARE}", started(POOL, process=True)),
    Target(
        "start, warm pool: load and first call", 0.07, f"× {BARE}", started(POOL, process=False)
    ),
    Target("memory of an idle plugin, of 1,000", 1.0, "MiB (PSS)", memory),
    Target(
        "plugins alive in one host",
        float(MANY),
        "plugins",
        lambda whole: fact(whole, "density", "plugins alive"),
        at_least=True,
    ),
    # What is below a twentieth, no run here can tell from the mood of the machine.
    Target("a call with 1,000 alive, by one with 1", 1.05, "× (beside the raw pipe)", one_more),
)


def judged(whole: Whole) -> list[tuple[str, str, str, str]]:
    """Return a row for each target: what, wanted, reached, and whether."""
    rows = []
    for target in TARGETS:
        sign = "≥" if target.at_least else "≤"
        wanted = f"{sign} {target.bound:,g} {target.unit}"
        try:
            figure = target.figure(whole)
        except (UnknownError, ZeroDivisionError) as error:
            rows.append((target.what, wanted, str(error), "not measured"))
            continue
        reached = figure >= target.bound if target.at_least else figure <= target.bound
        rows.append((target.what, wanted, shown(figure), "yes" if reached else "no"))
    return rows


def shown(figure: float) -> str:
    """Return a figure with three digits that mean something."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"  # noqa: PLR2004 - digits
