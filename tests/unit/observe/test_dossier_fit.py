"""A dossier is cut to its size; what is cut is told where it stood."""

from __future__ import annotations

import math
from dataclasses import fields
from types import MappingProxyType
from typing import Any

import pytest

from sandbox_host.model import Enforced, Layer, OperationUsage, Usage
from sandbox_host.observe.curve import Point
from sandbox_host.observe.dossier import Dossier, Exceeded, FrameHeader
from sandbox_host.observe.dossier_files import FILES, LOG, STACKS, SUMMARY, parse, render
from sandbox_host.observe.dossier_fit import STACKS_CUT, fitted, line_of, log_cut
from tests.support.dossier_examples import example

LEAST = 96 * 1024
ROOM = 256 * 1024


def total(dossier: Dossier) -> int:
    return sum(map(len, render(dossier).values()))


def test_what_fits_is_left_as_it_is() -> None:
    assert fitted(example(), ROOM) == example()
    assert fitted(example(), LEAST) == example()


def test_the_log_keeps_its_end() -> None:
    lines = tuple(f"{number:>8} {'x' * 1_000}" for number in range(150))
    small = fitted(example(log=lines), LEAST)
    kept = len(small.log) - 1
    assert 60 < kept < 100
    assert small.log == (log_cut(150 - kept), *lines[-kept:])
    assert total(small) <= LEAST


def test_too_many_lines() -> None:
    lines = tuple(map(str, range(1_000)))
    assert fitted(example(log=lines), ROOM).log == (log_cut(801), *lines[-199:])
    assert fitted(example(log=lines[:200]), ROOM).log == lines[:200]


def test_the_stacks_keep_their_beginning_and_leave_room_for_the_log() -> None:
    lines = [f'  File "main.py", line {number} in spin' for number in range(5_000)]
    log = tuple("y" * 1_000 for _ in range(180))
    small = fitted(example(stacks="\n".join(lines), log=log), LEAST)
    shown = small.stacks.split("\n")
    assert shown == [*lines[: len(shown) - 1], STACKS_CUT]
    files = render(small)
    assert len(files[STACKS]) > LEAST / 3
    assert len(files[LOG]) > LEAST / 3
    assert total(small) <= LEAST


def test_what_the_log_does_not_need_the_stacks_may_have() -> None:
    stacks = "\n".join("z" * 99 for _ in range(600))
    assert fitted(example(stacks=stacks), LEAST).stacks == stacks


def test_a_dump_of_any_size_takes_bounded_work() -> None:
    small = fitted(example(stacks="\x1b" * 10_000_000), ROOM)
    assert small.stacks.endswith(STACKS_CUT)
    assert len(small.stacks) < 1_000


def test_control_characters_are_escaped_everywhere() -> None:
    evil = "a\x1b[2J\r\n\u202e\udcff"
    shown = r"a\x1b[2J\r\n\u202e\udcff"
    small = fitted(
        example(
            text=evil, operation=evil, place=evil, log=(evil,), stacks=evil, version=evil,
            excess=Exceeded(evil, 1, 2, evil), limits=(Enforced(evil, evil, evil),),
            frames=(FrameHeader(1.0, "in", "Call\x1b", 1, 2, evil),),
            usage=Usage(operations=MappingProxyType({evil: OperationUsage(1, 0, 1, 1, 1, 1)})),
        ),
        ROOM,
    )  # fmt: skip
    assert {small.text, small.operation, small.place, small.version, *small.log} == {shown}
    assert small.stacks == "a\\x1b[2J\\r\n\\u202e\\udcff"
    assert small.excess == Exceeded(shown, 1, 2, shown)
    assert small.limits == (Enforced(shown, shown, shown),)
    assert (small.frames[0].kind, small.frames[0].name) == ("call-", shown)
    assert list(small.usage.operations) == [shown]
    assert parse(render(small)) == small


def test_numbers_that_are_none() -> None:
    small = fitted(
        example(
            pid=-1, started_at=-5.0, ended_at=math.inf, exit_code=2**60,
            excess=Exceeded("memory", math.nan, 1e300, "bytes"),
            curve=(Point(-1.0, math.nan, -7, 2**70, 3),),
        ),
        ROOM,
    )  # fmt: skip
    assert (small.pid, small.started_at, small.ended_at, small.exit_code) == (0, 0, 0, 2**53 - 1)
    assert small.excess == Exceeded("memory", 0.0, float(2**53 - 1), "bytes")
    assert small.curve == (Point(0.0, 0.0, 0, 2**53 - 1, 3),)
    assert parse(render(small)) == small


def test_the_operations_that_cost_most() -> None:
    costs = {f"op{n}": OperationUsage(1, 0, float(n), 1.0, 1, 1) for n in range(100)}
    small = fitted(example(usage=Usage(operations=MappingProxyType(costs))), ROOM)
    assert list(small.usage.operations) == [f"op{n}" for n in range(99, 83, -1)]


def largest(kind: type[Any], **others: Any) -> Any:
    numbers = {"int": 2**60, "float": 1e9}
    figures = {f.name: numbers[str(f.type)] for f in fields(kind) if str(f.type) in numbers}
    return kind(**figures, **others)


@pytest.mark.parametrize("letter", ["x", '"', "\\", "\x1b", "é", "\U0001f600", "\u202e"])
@pytest.mark.parametrize("room", [LEAST, ROOM, 1024 * 1024], ids=["least", "usual", "most"])
def test_the_largest_of_everything_keeps_the_bound_and_is_read_back(letter: str, room: int) -> None:
    long = letter * 5_000
    names = {f"{n}{long}": largest(OperationUsage) for n in range(99)}
    fields: dict[str, Any] = {
        **dict.fromkeys(("plugin", "version", "root_digest", "text", "operation"), long),
        "place": long,
        "pid": 2**60,
        "excess": Exceeded(long, 1e300, 1e300, long),
        "usage": largest(Usage, operations=MappingProxyType(names)),
        "limits": tuple(Enforced(f"{n}{long}", long, long) for n in range(99)),
        "layers": tuple(Layer),
        "curve": tuple(Point(1e8 + n / 7, 1e8 + n / 7, 2**60, 2**60, 2**60) for n in range(999)),
        "frames": tuple(FrameHeader(1e9, "out", "c" * 99, 2**60, 2**60, long) for _ in range(999)),
        "log": tuple(f"{n}{long}" for n in range(999)),
        "stacks": "\n".join(f"{n}{long}" for n in range(999)),
    }
    small = fitted(example(**fields), room)
    files = render(small)
    assert sum(map(len, files.values())) <= room
    assert all(len(data) <= FILES[name] for name, data in files.items())
    assert len(files[SUMMARY]) > 8_000
    assert small.log
    assert small.stacks
    assert parse(files) == small
    assert fitted(small, room) == small


@pytest.mark.parametrize("text", ["", "x", "é" * 10, "\x1b" * 10, "x" * 11, "\U0001f600" * 3])
def test_a_line_has_at_most_so_many_bytes(text: str) -> None:
    shown = line_of(text, 10)
    assert len(shown.encode()) <= 10
    assert shown == text or shown.endswith("...")
