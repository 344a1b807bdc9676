"""A small interpreter of classic BPF, and the checks that the kernel makes before it loads one.

Written from Documentation/networking/filter.rst and net/core/filter.c, not from the assembler that
it tests: it starts from bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAX_INSTRUCTIONS = 4_096
DATA_BYTES = 64

LD_W_ABS, ALU_AND_K, RET_K = 0x20, 0x54, 0x06
JA, JEQ_K, JGT_K, JGE_K, JSET_K = 0x05, 0x15, 0x25, 0x35, 0x45
_KNOWN = {LD_W_ABS, ALU_AND_K, RET_K, JA, JEQ_K, JGT_K, JGE_K, JSET_K}
_CONDITIONAL = {JEQ_K, JGT_K, JGE_K, JSET_K}


class RejectedError(Exception):
    """The kernel would refuse to load the program (EINVAL)."""


@dataclass(frozen=True)
class Call:
    """What a filter sees: ``struct seccomp_data``, little-endian."""

    number: int
    architecture: int
    arguments: tuple[int, ...] = ()

    def data(self) -> bytes:
        """Return the 64 bytes."""
        arguments = [*self.arguments, *[0] * 6][:6]
        masked = [argument & (2**64 - 1) for argument in arguments]
        return struct.pack("<IIQ6Q", self.number, self.architecture, 0, *masked)


def instructions(program: bytes) -> list[tuple[int, int, int, int]]:
    """Return ``(code, jump if true, jump if false, value)`` of every instruction."""
    if not program or len(program) % 8:
        raise RejectedError(f"{len(program)} bytes are no array of struct sock_filter")
    return [tuple(item) for item in struct.iter_unpack("<HBBI", program)]  # type: ignore[misc]


def verify(program: bytes) -> None:
    """Make the kernel's checks.

    Raises:
        RejectedError: one of them fails.
    """
    code = instructions(program)
    if len(code) > MAX_INSTRUCTIONS:
        raise RejectedError(f"{len(code)} instructions")
    for at, (opcode, if_true, if_false, value) in enumerate(code):
        if opcode not in _KNOWN:
            raise RejectedError(f"opcode {opcode:#x} at {at}")
        if opcode == LD_W_ABS and (value % 4 or value >= DATA_BYTES):
            raise RejectedError(f"load of offset {value} at {at}")
        furthest = {JA: value}.get(opcode, max(if_true, if_false) * (opcode in _CONDITIONAL))
        if at + 1 + furthest >= len(code) and opcode != RET_K:
            raise RejectedError(f"leaves the program at {at}")
    if code[-1][0] != RET_K:
        raise RejectedError("does not end with a return")


def run(program: bytes, call: Call) -> int:
    """Return what the filter returns for a system call."""
    return run_counting(program, call)[0]


def run_counting(program: bytes, call: Call) -> tuple[int, int]:
    """Return what the filter returns, and how many instructions that took."""
    code, data = instructions(program), call.data()
    accumulator, at, steps = 0, 0, 0
    while True:
        opcode, if_true, if_false, value = code[at]
        at, steps = at + 1, steps + 1
        if opcode == RET_K:
            return value, steps
        if opcode == LD_W_ABS:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif opcode == ALU_AND_K:
            accumulator &= value
        elif opcode == JA:
            at += value
        else:
            holds = {
                JEQ_K: accumulator == value,
                JGT_K: accumulator > value,
                JGE_K: accumulator >= value,
                JSET_K: bool(accumulator & value),
            }[opcode]
            at += if_true if holds else if_false
