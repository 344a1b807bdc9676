"""The assembler, against the simulator's own reading of the bytes."""

from __future__ import annotations

import struct

import pytest

from sandbox_host.backends.linux.bpf import (
    MAX_INSTRUCTIONS,
    Instruction,
    Label,
    assemble,
    give,
    if_at_least,
    if_equal,
    jump,
    load,
    mask,
)
from tests.support.bpf_simulator import Call, RejectedError, run, verify

FILL = [mask(0xFFFF_FFFF)]


def test_one_return() -> None:
    assert assemble([give(7)]) == struct.pack("=HBBI", 6, 0, 0, 7)


@pytest.mark.parametrize(("number", "result"), [(0, 1), (4, 1), (5, 2), (6, 3), (2**32 - 1, 3)])
def test_branches(number: int, result: int) -> None:
    program = assemble(
        [
            load(0),
            if_equal(5, then="five"),
            if_at_least(6, then="more"),
            give(1),
            Label("five"),
            give(2),
            Label("more"),
            give(3),
        ]
    )
    verify(program)
    assert run(program, Call(number, 0)) == result


def test_mask_and_otherwise() -> None:
    program = assemble(
        [load(16), mask(0xF0), if_equal(0x30, otherwise="no"), give(1), Label("no"), give(2)]
    )
    verify(program)
    assert run(program, Call(0, 0, (0x3F,))) == 1
    assert run(program, Call(0, 0, (0x4F,))) == 2


def test_far_jump() -> None:
    program = assemble([jump("end"), *FILL * 2_000, give(1), Label("end"), give(2)])
    verify(program)
    assert run(program, Call(0, 0)) == 2


@pytest.mark.parametrize("distance", [254, 255])
def test_longest_conditional_jump(distance: int) -> None:
    program = assemble([load(0), if_equal(0, then="end"), *FILL * distance, Label("end"), give(1)])
    verify(program)


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ([], "1 to 4096"),
        ([Label("only")], "1 to 4096"),
        ([load(0)], "ends with a return"),
        ([*FILL * MAX_INSTRUCTIONS, give(0)], "1 to 4096"),
        ([jump("nowhere"), give(0)], "unknown label 'nowhere'"),
        ([if_equal(0, then="nowhere"), give(0)], "unknown label 'nowhere'"),
        ([Label("a"), give(0), Label("a"), give(0)], "'a' stands twice"),
        ([Label("back"), load(0), jump("back"), give(0)], "'back' lies behind"),
        ([if_equal(0, then="e"), *FILL * 256, Label("e"), give(0)], "jump of 256"),
        ([if_equal(0, otherwise="e"), *FILL * 256, Label("e"), give(0)], "jump of 256"),
        ([give(-1)], "no 32-bit word"),
        ([give(1 << 32)], "no 32-bit word"),
        ([if_equal(1 << 32), give(0)], "no 32-bit word"),
    ],
)
def test_what_the_kernel_would_refuse(program: list[Instruction | Label], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        assemble(program)


def test_largest_program() -> None:
    verify(assemble([*FILL * (MAX_INSTRUCTIONS - 1), give(0)]))


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b"\x06\x00\x00",
        struct.pack("<HBBI", 0x20, 0, 0, 0),
        struct.pack("<HBBIHBBI", 0x20, 0, 0, 3, 6, 0, 0, 0),
        struct.pack("<HBBIHBBI", 0x20, 0, 0, 64, 6, 0, 0, 0),
        struct.pack("<HBBIHBBI", 0x15, 1, 0, 0, 6, 0, 0, 0),
        struct.pack("<HBBIHBBI", 0x05, 0, 0, 1, 6, 0, 0, 0),
        struct.pack("<HBBIHBBI", 0xFF, 0, 0, 0, 6, 0, 0, 0),
    ],
)
def test_the_simulator_refuses_what_the_kernel_does(program: bytes) -> None:
    with pytest.raises(RejectedError):
        verify(program)
