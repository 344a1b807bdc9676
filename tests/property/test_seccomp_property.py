"""The compiled filter says what the policy's data says, for any call with any arguments."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.backends.linux.seccomp import (
    ALLOW,
    ARCHITECTURES,
    KILL,
    Arg,
    Rule,
    build_filter,
    rules,
)
from tests.support.bpf_simulator import Call, run, verify

PID = 4_321
WORD = 2**32 - 1
EPERM = 0x5_0001

OPTIONS = [
    {"own_pid": PID, "native_code": native, "truncate_by_path": truncate, "own_root": root}
    for native in (False, True)
    for truncate, root in ((False, False), (True, False), (True, True))
]
POLICIES: list[tuple[Any, dict[str, Rule], bytes]] = [
    (architecture, by_argument, build_filter(architecture, by_argument))
    for architecture in ARCHITECTURES.values()
    for by_argument in (rules(**options) for options in OPTIONS)
]

INTERESTING = sorted(
    {
        value
        for _, by_argument, _ in POLICIES
        for rule in by_argument.values()
        for alternative in rule.alternatives
        for arg in alternative
        for value in (*arg.values, arg.bits)
    }
)
low = st.one_of(st.sampled_from(INTERESTING), st.integers(0, WORD))
argument = st.one_of(low, st.builds(lambda a, b: a << 32 | b, st.integers(0, WORD), low))
arguments = st.lists(argument, min_size=6, max_size=6).map(tuple)
policies = st.sampled_from(POLICIES)


def holds(arg: Arg, value: int) -> bool:
    if arg.wide:
        return value == arg.values[0]
    return (value & WORD) & arg.bits in arg.values


def expected(rule: Rule | None, given_arguments: tuple[int, ...]) -> int:
    """Decide from the data, without the compiler."""
    if rule is None:
        return ALLOW
    for alternative in rule.alternatives:
        if all(holds(arg, given_arguments[arg.index]) for arg in alternative):
            return ALLOW
    return 0x5_0000 | rule.errno


@given(policies, st.data(), arguments)
def test_listed_calls(policy: Any, data: Any, values: tuple[int, ...]) -> None:
    architecture, by_argument, program = policy
    name = data.draw(st.sampled_from(sorted({*by_argument} & {*architecture.numbers})))
    call = Call(architecture.numbers[name], architecture.audit, values)
    assert run(program, call) == expected(by_argument[name], values)


@given(policies, st.integers(0, 2**32 - 1), arguments)
def test_any_number(policy: Any, number: int, values: tuple[int, ...]) -> None:
    architecture, by_argument, program = policy
    verdict = run(program, Call(number, architecture.audit, values))
    names = {n: name for name, n in architecture.numbers.items()}
    if number >= 0x4000_0000:
        assert verdict == KILL
    elif number not in names:
        assert verdict == EPERM
    else:
        assert verdict == expected(by_argument.get(names[number]), values)


@given(policies, st.integers(0, 2**32 - 1), st.integers(0, 600), arguments)
def test_any_other_architecture(
    policy: Any, audit: int, number: int, values: tuple[int, ...]
) -> None:
    architecture, _, program = policy
    if audit != architecture.audit:
        assert run(program, Call(number, audit, values)) == KILL


def test_every_filter_would_be_loaded() -> None:
    for _, _, program in POLICIES:
        verify(program)
        assert len(program) // 8 < 1_000


@given(st.integers(2, 2**22), st.integers(0, 2**64 - 1))
def test_no_process_but_its_own_is_ever_signalled(pid: int, target: int) -> None:
    architecture = ARCHITECTURES["x86_64"]
    by_argument = rules(own_pid=pid, native_code=True, truncate_by_path=True)
    program = build_filter(architecture, {"kill": by_argument["kill"]})
    verdict = run(program, Call(architecture.numbers["kill"], architecture.audit, (target, 15)))
    assert (verdict == ALLOW) is (target & WORD == pid)
