"""Traces as lines, and several of one plugin as one."""

from __future__ import annotations

import pytest

from sandbox_host.model import Denial
from sandbox_host.runtime.trace import Trace, merged

ONE = Trace(
    plugin="sample",
    published=frozenset({"a", "b"}),
    handles=frozenset({"c"}),
    used=frozenset({("read", "/srv"), ("threads", "")}),
    denied=(Denial("read", "/x\n", "main.py:1 in f", "request", "text"),),
    denied_by_host=("connecting to b",),
    peaks={"memory_bytes": 10, "cpu_seconds": 0.5},
)
OTHER = Trace(
    plugin="sample",
    published=frozenset({"d"}),
    used=frozenset({("env", "A")}),
    denied=(Denial("read", "/x\n"), Denial("env", "B")),
    denied_by_host=("connecting to b", "connecting to c"),
    peaks={"memory_bytes": 5, "cpu_seconds": 0.7, "threads": 2},
)


@pytest.mark.parametrize("trace", [ONE, OTHER, Trace("x", problem="it ended")])
def test_a_line_is_read_as_it_was_written(trace: Trace) -> None:
    line = trace.line()
    assert line.count("\n") == 1
    assert Trace.of_line(line) == trace


@pytest.mark.parametrize("line", ["", "x", "{}", "[]", "3", '{"plugin": "a"}', "null"])
def test_a_line_of_something_else(line: str) -> None:
    with pytest.raises(ValueError, match=r"trace|Expecting"):
        Trace.of_line(line)


def test_several_are_one() -> None:
    both = merged([ONE, OTHER])
    assert both.published == {"a", "b", "d"}
    assert both.handles == {"c"}
    assert both.used == {("read", "/srv"), ("threads", ""), ("env", "A")}
    assert [(one.rule, one.asked) for one in both.denied] == [("read", "/x\n"), ("env", "B")]
    assert both.denied_by_host == ("connecting to b", "connecting to c")
    assert both.peaks == {"memory_bytes": 10, "cpu_seconds": 0.7, "threads": 2}
    assert merged([ONE]) == ONE


def test_what_is_not_known_of_one_is_not_known_of_all() -> None:
    assert merged([ONE, Trace("sample", problem="it ended")]).problem == "it ended"
