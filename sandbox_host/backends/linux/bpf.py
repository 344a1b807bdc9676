"""A small assembler for classic BPF, as far as seccomp filters need it.

A program is a list of instructions whose jumps name labels; `assemble` resolves them, checks what
the kernel's verifier would refuse, and returns the array of ``struct sock_filter`` as bytes. Jump
offsets are one byte and forward only. Source: Documentation/networking/filter.rst and
Documentation/userspace-api/seccomp_filter.rst in the kernel tree.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

MAX_INSTRUCTIONS: Final = 4_096
"""The kernel's BPF_MAXINSNS."""

_MAX_JUMP: Final = 255
_INSTRUCTION: Final = struct.Struct("=HBBI")

_LD_W_ABS: Final = 0x20
_ALU_AND_K: Final = 0x54
_JMP_JA: Final = 0x05
_JMP_JEQ_K: Final = 0x15
_JMP_JGE_K: Final = 0x35
_RET_K: Final = 0x06


@dataclass(frozen=True, slots=True)
class Label:
    """A place that jumps can name."""

    name: str


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction; ``then`` and ``otherwise`` name labels, None falls through."""

    code: int
    value: int
    then: str | None = None
    otherwise: str | None = None


Program = list[Instruction | Label]


def load(offset: int) -> Instruction:
    """Load the 32-bit word at ``offset`` of ``struct seccomp_data`` into the accumulator."""
    return Instruction(_LD_W_ABS, offset)


def mask(value: int) -> Instruction:
    """And the accumulator with ``value``."""
    return Instruction(_ALU_AND_K, value)


def if_equal(value: int, then: str | None = None, otherwise: str | None = None) -> Instruction:
    """Branch on accumulator == ``value``."""
    return Instruction(_JMP_JEQ_K, value, then, otherwise)


def if_at_least(value: int, then: str | None = None, otherwise: str | None = None) -> Instruction:
    """Branch on accumulator >= ``value``, unsigned."""
    return Instruction(_JMP_JGE_K, value, then, otherwise)


def jump(label: str) -> Instruction:
    """Go to ``label``, however far."""
    return Instruction(_JMP_JA, 0, label)


def give(action: int) -> Instruction:
    """Return ``action`` to the kernel."""
    return Instruction(_RET_K, action)


def assemble(program: Program) -> bytes:
    """Return the program as the kernel takes it.

    Raises:
        ValueError: an unknown, repeated or backward label, a conditional jump beyond 255
            instructions, a value that is no 32-bit word, too many instructions, or an end that is
            no return.
    """
    places: dict[str, int] = {}
    instructions: list[Instruction] = []
    for item in program:
        if isinstance(item, Instruction):
            instructions.append(item)
        elif places.setdefault(item.name, len(instructions)) != len(instructions):
            text = f"label {item.name!r} stands twice"
            raise ValueError(text)
    if not 0 < len(instructions) <= MAX_INSTRUCTIONS or instructions[-1].code != _RET_K:
        text = f"a filter has 1 to {MAX_INSTRUCTIONS} instructions and ends with a return"
        raise ValueError(text)
    return b"".join(_encode(item, at, places) for at, item in enumerate(instructions))


def _encode(item: Instruction, at: int, places: dict[str, int]) -> bytes:
    if not 0 <= item.value < 1 << 32:
        text = f"{item.value:#x} is no 32-bit word"
        raise ValueError(text)
    if item.code == _JMP_JA:
        return _INSTRUCTION.pack(item.code, 0, 0, _distance(item.then, at, places))
    jumps = [_distance(name, at, places) for name in (item.then, item.otherwise)]
    if max(jumps) > _MAX_JUMP:
        text = f"conditional jump of {max(jumps)} instructions; {_MAX_JUMP} are possible"
        raise ValueError(text)
    return _INSTRUCTION.pack(item.code, *jumps, item.value)


def _distance(label: str | None, at: int, places: dict[str, int]) -> int:
    if label is None:
        return 0
    if label not in places:
        text = f"unknown label {label!r}"
        raise ValueError(text)
    distance = places[label] - at - 1
    if distance < 0:
        text = f"label {label!r} lies behind the jump to it"
        raise ValueError(text)
    return distance
