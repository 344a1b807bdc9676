"""Exceptions as text: what was raised, where in the plugin, and which budget it stands for.

The exception is the plugin's: its ``__str__`` may raise, its traceback may hold the very memory or
descriptors whose lack it reports. Nothing here may fail, and nothing here may keep it alive.
"""

from __future__ import annotations

import os
import sys
from errno import EMFILE, ENFILE
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

from plugin_sdk.wire.limits import MAX_ERROR_TEXT_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Any

    from plugin_sdk.child.loader import LoadOrder

EXCEPTION = "exception"
MEMORY = "memory"
DESCRIPTORS = "descriptors"

MAX_MESSAGE_BYTES = 4 * 1024
MAX_TYPE_BYTES = 256

# Frames and links of a chain of exceptions that are looked at.
_MAX_FRAMES = 50
_MAX_CHAIN = 20

# Address space that is given back before a MemoryError is described. Enough to import
# `traceback`, which nothing else in the child needs. Never written to, so it costs no memory.
# Mapped: what `bytes` frees may stay with the C library, where new arenas cannot get it.
_RESERVE_BYTES = 4 * 1024 * 1024

# Once memory has run out, the C library may keep what a plugin gave back. Then this much of *its*
# memory is the reserve; `traceback` is imported by now.
_SECOND_RESERVE_BYTES = 512 * 1024

_CHILD_DIR = os.path.dirname(__file__) + os.sep


class Faults:
    """Describes exceptions of one plugin.

    Args:
        package_dir: where the plugin's files are; places are told relative to it.
        order: what was loaded, for explanations of what it was refused; None: there are none.
    """

    def __init__(self, package_dir: str, order: LoadOrder | None = None) -> None:
        self._prefix = os.path.join(package_dir, "")
        self._order = order
        self._memory: mmap | bytes | None = None
        self._descriptor: int | None = None
        self.take_reserve()

    def take_reserve(self) -> None:
        """Take what is missing of the reserve, if as much remains beside it; called before a call.

        A plugin that keeps all memory would else leave nothing to send the answer with.
        """
        if self._memory is not None and self._descriptor is not None:
            return
        try:
            if self._descriptor is None:
                self._descriptor = os.dup(0)
        except OSError:
            pass  # still exhausted: the next call tries again
        if self._memory is None:
            self._memory = _map_reserve() or _allocate_reserve()

    def describe(self, error: BaseException) -> tuple[str, dict[str, Any]]:
        """Return a code, and ``{type, message, traceback, place}`` with every text capped.

        The code is `EXCEPTION`, or the budget that ran out: `MEMORY` or `DESCRIPTORS`. The frames
        of an exception that stands for a budget are cleared, which frees what they hold. One that
        stands for a refusal gets a note of it, and there is ``denied: {rule, asked, where}``.
        """
        code = EXCEPTION
        place = ""
        try:
            code = _code(error)
            if code == MEMORY and made_code(error):
                code = EXCEPTION
            if code != EXCEPTION:
                self._give_reserve()
            place = self._place(error)
            denied = self._explained(error, place) if code == EXCEPTION else None
            if code != EXCEPTION:
                _clear_frames(error)
            described: dict[str, Any] = {
                "type": _type_name(error),
                "message": head(text_of(error), MAX_MESSAGE_BYTES),
                "traceback": _tail(_traceback_text(error), MAX_ERROR_TEXT_BYTES),
                "place": place,
            }
            if denied is not None:
                described["denied"] = denied
            return code, described
        except BaseException:  # noqa: BLE001 - memory may run out again, or a signal handler raise
            text = "an exception that could not be described"
            return code, {"type": "", "message": text, "traceback": "", "place": place}
        finally:
            self.take_reserve()

    def _explained(self, error: BaseException, place: str) -> dict[str, str] | None:
        """Return which refusal it stands for, having noted that in it, or None."""
        if self._order is None or not _may_be_refusal(error):
            return None
        try:
            from plugin_sdk.child.explain import explain, note_of

            explained = explain(error, self._order)
            if explained is None:
                return None
            found, link = explained
            note = note_of(found, self._order)
            if note not in getattr(error, "__notes__", ()):
                BaseException.add_note(error, note)
            return {**found, "where": self._place(link) or place}
        except BaseException:  # noqa: BLE001 - the plugin's class, or no memory: it stays unexplained
            return None

    def _place(self, error: BaseException) -> str:
        """Return ``"main.py:12 in predict"`` for the innermost frame of the plugin, or ``""``."""
        prefix, innermost = self._prefix, None
        step = error.__traceback__
        while step is not None:
            if step.tb_frame.f_code.co_filename.startswith(prefix):
                innermost = step
            step = step.tb_next
        if innermost is not None:
            code = innermost.tb_frame.f_code
            return self._told(code.co_filename, innermost.tb_lineno, code.co_name)
        if isinstance(error, SyntaxError) and str(error.filename).startswith(prefix):
            return self._told(str(error.filename), error.lineno)
        return ""

    def place_of(self, function: object) -> str:
        """Return ``"main.py:12 in predict"`` for where a function of the plugin is defined."""
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        path = getattr(code, "co_filename", "")
        if code is None or not path.startswith(self._prefix):
            return ""
        return self._told(path, code.co_firstlineno, code.co_name)

    def _told(self, path: str, line: int | None, function: str = "") -> str:
        place = f"{path[len(self._prefix) :]}:{line}"
        return head(f"{place} in {function}" if function else place, MAX_TYPE_BYTES)

    def _give_reserve(self) -> None:
        # Freed with its last reference; a mapping is unmapped by that.
        self._memory = None
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _map_reserve() -> mmap | None:
    try:
        # Private: what is shared is refused to plugins.
        mmap(-1, 2 * _RESERVE_BYTES, MAP_PRIVATE | MAP_ANONYMOUS).close()
        return mmap(-1, _RESERVE_BYTES, MAP_PRIVATE | MAP_ANONYMOUS)
    except (MemoryError, OSError):
        return None


def _allocate_reserve() -> bytes | None:
    try:
        bytes(2 * _SECOND_RESERVE_BYTES)
        return bytes(_SECOND_RESERVE_BYTES)
    except MemoryError:
        return None


def text_of(error: BaseException) -> str:
    """Return ``str(error)``, whatever the class of the exception does there."""
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - the plugin's code
        return "(an exception whose text cannot be made)"


def raised_by_the_call(error: BaseException) -> bool:
    """Tell whether the call itself was refused, such as for an argument too many.

    Then no frame but the caller's is in the traceback.
    """
    step = error.__traceback__
    return step is not None and step.tb_next is None


def _code(error: BaseException) -> str:
    """Return which budget the exception, or what caused it, stands for."""
    link: BaseException | None = error
    for _ in range(_MAX_CHAIN):
        if link is None:
            break
        if isinstance(link, MemoryError):
            return MEMORY
        if isinstance(link, OSError) and link.errno in {EMFILE, ENFILE}:
            return DESCRIPTORS
        link = link.__cause__ or link.__context__
    return EXCEPTION


def _may_be_refusal(error: BaseException) -> bool:
    """Tell whether it is worth a look, which costs an import and the parsing of a line or two."""
    link: BaseException | None = error
    for _ in range(_MAX_CHAIN):
        if link is None:
            return False
        if isinstance(link, OSError | ImportError | KeyError | RuntimeError | MemoryError):
            return True
        link = link.__cause__ or link.__context__
    return False


def made_code(error: BaseException) -> bool:
    """Tell whether it is ctypes' way to say that it may not make code for a callback.

    It raises an empty MemoryError, also where there is memory enough. Found by the names that the
    frame uses: with memory gone, there is none to look closer.
    """
    machine = sys.modules.get("_ctypes")
    step = error.__traceback__
    if machine is None or type(error) is not MemoryError or error.args or step is None:
        return False
    while step.tb_next is not None:
        step = step.tb_next
    frame = step.tb_frame
    code = frame.f_code
    if {"CFUNCTYPE", "PYFUNCTYPE"} & {*code.co_names}:
        return True
    # Not its local variables: to look at them makes a copy, which keeps alive what they hold.
    used = (frame.f_globals.get(name) for name in code.co_names)
    return any(type(one) is type(machine.CFuncPtr) for one in used)


def _clear_frames(error: BaseException) -> None:
    """Drop the local variables of all finished frames of the exception and its causes."""
    link: BaseException | None = error
    for _ in range(_MAX_CHAIN):
        if link is None:
            return
        step = link.__traceback__
        while step is not None:
            _clear_frame(step.tb_frame)
            step = step.tb_next
        link = link.__cause__ or link.__context__


def _clear_frame(frame: FrameType) -> None:
    try:
        frame.clear()
    except RuntimeError:
        return  # still running: one of ours


def _type_name(error: BaseException) -> str:
    kind = type(error)
    name = type.__dict__["__qualname__"].__get__(kind)
    module = kind.__dict__.get("__module__")
    if not isinstance(module, str) or module in {"builtins", "__main__"}:
        return head(name, MAX_TYPE_BYTES)
    return head(f"{module}.{name}", MAX_TYPE_BYTES)


def _traceback_text(error: BaseException) -> str:
    """Return the traceback as Python prints it, without the frames of this room."""
    try:
        import traceback

        step = _skip_ours(error.__traceback__)
        lines = traceback.format_exception(type(error), error, step, limit=-_MAX_FRAMES)
        return "".join(lines)
    except BaseException:  # noqa: BLE001 - the plugin's text, or no memory for ours
        return ""


def _skip_ours(step: TracebackType | None) -> TracebackType | None:
    while step is not None and step.tb_frame.f_code.co_filename.startswith(_CHILD_DIR):
        step = step.tb_next
    return step


def head(text: str, limit: int) -> str:
    """Return at most ``limit`` bytes of the start of ``text``, as valid UTF-8."""
    # `str.encode`, because the text may be of a subclass of str that the plugin wrote.
    data = str.encode(text, "utf-8", "backslashreplace")
    if len(data) <= limit:
        return data.decode()
    return data[: limit - 3].decode("utf-8", "ignore") + "..."


def _tail(text: str, limit: int) -> str:
    """Return at most ``limit`` bytes of the end of ``text``: what failed stands last."""
    data = str.encode(text, "utf-8", "backslashreplace")
    if len(data) <= limit:
        return data.decode()
    return "..." + data[3 - limit :].decode("utf-8", "ignore")
