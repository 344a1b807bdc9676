"""What a frame of a traceback was doing: which function it called, and with which words.

The line of source says it, at the columns that the interpreter keeps for each instruction
(PEP 657). Where there is no source, nothing is known, and nothing fails.
"""

from __future__ import annotations

import os
from itertools import islice

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from types import FrameType
    from typing import Any

# The innermost frames of a traceback; those above have no part in a refusal.
_MAX_FRAMES = 30

_MAX_SOURCE = 2_000
_MAX_LINES = 40

_WRITERS = frozenset(
    {
        *("mkdir", "makedirs", "remove", "unlink", "rmdir", "removedirs", "rename", "renames"),
        *("replace", "truncate", "chmod", "utime", "touch", "write_text", "write_bytes", "rmtree"),
        *("mkstemp", "mkdtemp", "move", "link", "hardlink_to", "setxattr", "removexattr"),
    }
)
_OPENERS = frozenset({"open", "fdopen", "TemporaryFile", "NamedTemporaryFile"})
_WRITING_FLAGS = ("O_WRONLY", "O_RDWR", "O_CREAT", "O_APPEND", "O_TRUNC")


class Site:
    """One frame, at the instruction that an exception came out of.

    Attributes:
        filename: of its code.
        function: name of its code.
    """

    __slots__ = ("_call", "_frame", "_instruction", "filename", "function")

    def __init__(self, frame: FrameType, instruction: int) -> None:
        self._frame = frame
        self._instruction = instruction
        self._call: ast.Call | bool | None = False  # not looked for yet
        self.filename = frame.f_code.co_filename
        self.function = frame.f_code.co_name

    @property
    def call(self) -> ast.Call | None:
        """The call that it made, parsed, or None."""
        if isinstance(self._call, bool):
            self._call = _call_at(self._frame, self._instruction)
        return self._call

    @property
    def called(self) -> str:
        """Name of the function that it called, without what it was reached by; "" if unknown."""
        function = getattr(self.call, "func", None)
        name = getattr(function, "attr", None) or getattr(function, "id", None)
        return name if isinstance(name, str) else ""

    def is_in(self, *ends: str) -> bool:
        """Tell whether its file is one of these of the library, or below one that ends in "/"."""
        return any(
            f"/{end}" in self.filename if end.endswith("/") else self.filename.endswith(end)
            for end in ends
        )

    def local(self, name: str) -> Any:
        """Return the value of a local variable, or None."""
        return self._frame.f_locals.get(name)

    def words(self) -> tuple[list[Any], str]:
        """Return the arguments of the call that are plain here, and its source.

        An argument is plain where it is a constant or a local variable that is text or a number;
        the others are None.
        """
        call = self.call
        if call is None:
            return [], ""
        import ast

        values = [*call.args[:4], *(keyword.value for keyword in call.keywords[:8])]
        return [self._value(value) for value in values], ast.unparse(call)

    def _value(self, node: ast.expr) -> Any:
        import ast

        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            value = self._frame.f_locals.get(node.id)
            return value if type(value) in {str, int} else None
        return None


def sites_of(error: BaseException) -> list[Site]:
    """Return the innermost frames of an exception's traceback, the innermost last."""
    steps = []
    step = error.__traceback__
    while step is not None:
        steps.append((step.tb_frame, step.tb_lasti))
        del steps[:-_MAX_FRAMES]
        step = step.tb_next
    return [Site(frame, instruction) for frame, instruction in steps]


def writes(site: Site) -> bool:
    """Tell whether the call that a frame made would have changed something, by its words."""
    if site.called in _WRITERS:
        return True
    if site.called not in _OPENERS:
        return False
    values, source = site.words()
    flags = next((v for v in values[1:2] if isinstance(v, int)), 0)
    if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or any(f in source for f in _WRITING_FLAGS):
        return True
    return any(isinstance(v, str) and _is_writing_mode(v) for v in values[1:])


def _is_writing_mode(word: str) -> bool:
    return 0 < len(word) <= 4 and set(word) <= set("rwaxbt+") and bool(set(word) & set("wax+"))  # noqa: PLR2004 - "w+bt" is the longest


def _call_at(frame: FrameType, instruction: int) -> ast.Call | None:
    """Return the call that an instruction belongs to, parsed, or None."""
    import ast
    import linecache

    positions = islice(frame.f_code.co_positions(), instruction // 2, None)
    line, last, start, end = next(positions, (None, None, None, None))
    if line is None or last is None or start is None or end is None or last - line > _MAX_LINES:
        return None
    lines = [linecache.getline(frame.f_code.co_filename, n).encode() for n in range(line, last + 1)]
    lines[-1] = lines[-1][:end]  # columns are of UTF-8
    lines[0] = lines[0][start:]
    source = b"".join(lines).decode("utf-8", "replace")
    if not source or len(source) > _MAX_SOURCE:
        return None
    try:
        node = ast.parse(f"({source})", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return node if isinstance(node, ast.Call) else None
