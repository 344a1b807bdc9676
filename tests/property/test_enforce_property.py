"""Verdicts on budgets and what else is decided about hostile figures and texts."""

from __future__ import annotations

import re
from dataclasses import fields, replace

from hypothesis import example, given
from hypothesis import strategies as st

from sandbox_host.backends.linux import procfs
from sandbox_host.budget.enforce import Facts, Running, Step, judge, judge_minute, tightened
from sandbox_host.budget.place import place_in
from sandbox_host.model import Cause, Limits, OperationLimits
from sandbox_host.reading import is_printable
from sandbox_host.runtime.answers import clean

count = st.integers(0, 2**50)
seconds = st.floats(0, 1e6)
limits = st.builds(
    Limits,
    memory_bytes=count,
    threads=count,
    cpu_seconds=seconds,
    cpu_seconds_per_minute=seconds,
)
facts = st.builds(Facts, count, count)
running = st.builds(
    lambda cpu, start, allowed, asked: Running("o", cpu, start, start + allowed, asked),
    seconds,
    seconds,
    seconds,
    st.one_of(st.just(0.0), seconds),
)


@given(limits, st.none() | facts, st.none() | running, seconds)
def test_an_excess_is_one(
    limit: Limits, fact: Facts | None, run: Running | None, now: float
) -> None:
    excess = judge(limit, fact, run, now)
    over = {
        "memory": fact is not None and fact.resident_bytes > limit.memory_bytes,
        "threads": fact is not None and fact.threads > limit.threads,
        "cpu": run is not None and run.cpu_seconds > limit.cpu_seconds,
        "wall_time": run is not None and now >= run.deadline,
    }
    if excess is None:
        assert not any(over[budget] for budget in ("memory", "threads", "cpu"))
        assert not over["wall_time"] or (run is not None and run.interrupted_at > 0)
        return
    assert over[excess.budget]
    assert excess.used >= excess.limit
    assert excess.step is Step.END or excess.budget == "wall_time"


@given(limits, facts, running, seconds, count)
def test_more_is_never_worse(
    limit: Limits, fact: Facts, run: Running, now: float, more: int
) -> None:
    generous = replace(
        limit,
        memory_bytes=limit.memory_bytes + more,
        threads=limit.threads + more,
        cpu_seconds=limit.cpu_seconds + more,
    )
    if judge(limit, fact, run, now) is None:
        assert judge(generous, fact, run, now) is None


tighter = st.builds(
    OperationLimits,
    cpu_seconds=st.none() | seconds,
    memory_bytes=st.none() | count,
    threads=st.none() | count,
)


@given(limits, tighter)
def test_what_a_call_gets_is_above_neither_side(limit: Limits, wanted: OperationLimits) -> None:
    got = tightened(limit, wanted)
    for field in fields(Limits):
        of_plugin, asked = getattr(limit, field.name), getattr(wanted, field.name, None)
        assert getattr(got, field.name) == (of_plugin if asked is None else min(of_plugin, asked))


@given(limits, seconds)
def test_a_minute_is_exceeded_or_not(limit: Limits, used: float) -> None:
    excess = judge_minute(limit, used, "o")
    assert (excess is not None) == (used > limit.cpu_seconds_per_minute)
    assert excess is None or (excess.cause, excess.used) == (Cause.CPU, used)


@given(st.binary(max_size=400), st.sampled_from(["/p", "/p/", "/"]))
@example(b'  File "/p/main.py", line 3 in f', "/p")
@example(b'  File "/p/\x1b.py", line 3 in f', "/p")
@example(b'  File "/p/a\xff.py", line 3 in \xff\x00', "/p")
def test_place_is_short_printable_text_or_nothing(dump: bytes, package: str) -> None:
    place = place_in(dump, package)
    assert place.isprintable()
    assert len(place) < 700
    assert not place or re.fullmatch(r".*:\d{1,9} in .*", place)


@given(st.text() | st.none() | st.integers() | st.binary(), st.integers(3, 50))
@example("\ud800" * 60, 50)
def test_shown_text_is_bounded_and_speaks_to_no_terminal(value: object, limit: int) -> None:
    shown = clean(value, limit)
    assert is_printable(shown)
    assert len(shown) <= limit


names = st.text(st.characters(exclude_characters="\n\x00"), max_size=16)


@given(names | st.sampled_from([") R", "(", "))) S 1 2", " "]), count, st.integers(1, 2**20))
def test_stat_is_read_behind_any_name(name: str, pages: int, threads: int) -> None:
    fields = ["S", *["0"] * 49]
    fields[17] = str(threads)
    stat = procfs.parse_stat(f"1 ({name}) {' '.join(fields)}")
    assert (stat.state, stat.threads) == ("S", threads)
    statm = f"{pages + 9} {pages + 7} 7 1 0 {pages} 0\n"
    assert procfs.parse_statm(statm) == pages * procfs.PAGE_BYTES


@given(names)
def test_status_is_read_by_line(name: str) -> None:
    # The kernel escapes a line feed in the name; nothing else ends a line of this file.
    status = procfs.parse_status(f"Name:\t{name}\nSeccomp:\t2\nCapEff:\t0000000000000000\n")
    assert (status["Seccomp"], status["CapEff"]) == ("2", "0" * 16)
