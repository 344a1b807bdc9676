"""What GitHub's runner makes of a step's output: the commands in it, decoded.

As the runner's parser does it: a line that begins with ``::``, white space before it aside, is a
command of the second form; else one of the first form may stand anywhere in it, after ``##[``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SECOND = re.compile(r"\s*::(?P<name>[^\s:]*)(?: (?P<given>.*?))?::(?P<data>.*)", re.DOTALL)
_UNDONE = (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%"))


@dataclass(frozen=True)
class WorkflowCommand:
    """One command, such as an annotation; decoded."""

    name: str
    properties: dict[str, str]
    message: str


def _undo(text: str, *, in_property: bool) -> str:
    for written, meant in _UNDONE:
        if in_property or written not in {"%3A", "%2C"}:
            text = text.replace(written, meant)
    return text


def workflow_commands(output: str) -> list[WorkflowCommand]:
    """Return the commands in a step's output; a line ends where the runner's reader ends it."""
    found = []
    for line in re.split(r"\r\n|\r|\n", output):
        match = _SECOND.match(line)
        if match:
            pairs = [pair.partition("=") for pair in (match["given"] or "").split(",") if pair]
            given = {key.strip(): _undo(value, in_property=True) for key, _, value in pairs}
            found.append(
                WorkflowCommand(match["name"], given, _undo(match["data"], in_property=False))
            )
        elif "##[" in line:
            name = line.split("##[", 1)[1].split("]", 1)[0]
            found.append(WorkflowCommand(name, {}, line))
    return found
