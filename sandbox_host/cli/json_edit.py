"""Changes single values in the text of a JSON document, and leaves the rest as its author wrote it.

For documents that were parsed before: what is here finds places, and checks nothing.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_SCALAR: Final = re.compile(r"[^\s,\]}]+")
_LONG: Final = 88
"""A line that would be longer than this is written with an entry on each line."""


@dataclass(frozen=True, slots=True)
class _Member:
    """One member of an object: where its key and its value stand."""

    key: str
    start: int
    value: int
    end: int


def edited(text: str, path: tuple[str, ...], value: object) -> str:
    """Return the document with one value changed, added, or removed.

    Args:
        text: a JSON document whose top is an object.
        path: keys, from the top; objects on the way that are not there are made.
        value: what the value becomes; None removes the key.
    """
    start = _SPACE.match(text).end()  # type: ignore[union-attr]  # it matches nothing as well
    for depth, key in enumerate(path):
        members, end = _object(text, start)
        member = next((one for one in members if one.key == key), None)
        last = depth == len(path) - 1
        if member is None:
            if value is None:
                return text
            for below in reversed(path[depth + 1 :]):
                value = {below: value}
            return _added(text, start, end, members, key, value)
        if last:
            if value is None:
                return _removed(text, members, member)
            return _replaced(text, member, value)
        start = member.value
    return text


def _replaced(text: str, member: _Member, value: object) -> str:
    indent = _indent_before(text, member.start)
    column = member.value - (text.rfind("\n", 0, member.value) + 1)
    return text[: member.value] + _written(value, indent, column) + text[member.end :]


def _added(text: str, start: int, end: int, members: list[_Member], key: str, value: object) -> str:
    head = f"{json.dumps(key)}: "
    if not members:
        return f"{text[: start + 1]}{head}{json.dumps(value)}{text[end - 1 :]}"
    last = members[-1]
    between = text[text.rfind("\n", 0, last.start) + 1 : last.start] if members else ""
    on_lines = "\n" in text[start : members[0].start]
    gap = f",\n{between}" if on_lines and not between.strip() else ", "
    indent = between if on_lines else _indent_before(text, last.start)
    return text[: last.end] + gap + head + _written(value, indent, len(head)) + text[last.end :]


def _removed(text: str, members: list[_Member], member: _Member) -> str:
    index = members.index(member)
    if len(members) == 1:
        return text[: member.start].rstrip() + text[member.end :].lstrip()
    if index:
        return text[: members[index - 1].end] + text[member.end :]
    return text[: member.start] + text[members[1].start :]


def _written(value: object, indent: str, column: int) -> str:
    """Return a value as JSON: on one line, or a list's entries on lines of their own."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + column <= _LONG or not isinstance(value, list):
        return line
    entries = f",\n{indent}  ".join(json.dumps(one, ensure_ascii=False) for one in value)
    return f"[\n{indent}  {entries}\n{indent}]"


def _indent_before(text: str, place: int) -> str:
    line = text[text.rfind("\n", 0, place) + 1 : place]
    return line[: len(line) - len(line.lstrip())]


def _object(text: str, start: int) -> tuple[list[_Member], int]:
    """Return the members of the object that begins at `start`, and where it ends."""
    members: list[_Member] = []
    place = _skip(text, start + 1)
    while text[place] != "}":
        key, after = _string(text, place)
        value = _skip(text, _skip(text, after) + 1)
        end = _value_end(text, value)
        members.append(_Member(key, place, value, end))
        place = _skip(text, end)
        if text[place] == ",":
            place = _skip(text, place + 1)
    return members, place + 1


def _value_end(text: str, start: int) -> int:
    if text[start] == '"':
        return _string(text, start)[1]
    if text[start] not in "{[":
        return _SCALAR.match(text, start).end()  # type: ignore[union-attr]  # it is JSON
    depth, place = 0, start
    while True:
        char = text[place]
        if char == '"':
            place = _string(text, place)[1]
            continue
        depth += (char in "{[") - (char in "}]")
        place += 1
        if not depth:
            return place


def _string(text: str, start: int) -> tuple[str, int]:
    value, end = json.JSONDecoder().raw_decode(text, start)
    return str(value), end


def _skip(text: str, start: int) -> int:
    return _SPACE.match(text, start).end()  # type: ignore[union-attr]  # it matches nothing as well
