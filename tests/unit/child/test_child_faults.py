from __future__ import annotations

import errno
import linecache
import os
import resource
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from plugin_sdk.child.faults import (
    DESCRIPTORS,
    EXCEPTION,
    MAX_MESSAGE_BYTES,
    MEMORY,
    Faults,
    raised_by_the_call,
    text_of,
)
from plugin_sdk.wire.codec import pack
from plugin_sdk.wire.limits import MAX_ERROR_TEXT_BYTES

HERE = str(Path(__file__).parent)


def raised(function: Callable[..., object], *arguments: object) -> BaseException:
    try:
        function(*arguments)
    except BaseException as error:  # noqa: BLE001
        return error
    pytest.fail("nothing was raised")


def fail(error: BaseException) -> NoReturn:
    raise error


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text")

    __repr__ = __str__


def test_an_exception_is_told_with_its_place() -> None:
    code, told = Faults(HERE).describe(raised(fail, ValueError("no such day")))
    assert code == EXCEPTION
    assert told["type"] == "ValueError"
    assert told["message"] == "no such day"
    assert told["traceback"].startswith("Traceback (most recent call last):")
    assert told["traceback"].endswith("ValueError: no such day\n")
    line = fail.__code__.co_firstlineno + 1
    assert told["place"] == f"test_child_faults.py:{line} in fail"


def test_the_place_is_the_innermost_frame_of_the_plugin_itself() -> None:
    def calls_the_library() -> None:
        os.stat_result(())  # type: ignore[call-overload]
        pytest.fail("nothing was raised")

    def calls_python_outside() -> None:
        weakref.WeakValueDictionary()[1]

    for function in (calls_the_library, calls_python_outside):
        _, told = Faults(HERE).describe(raised(function))
        assert told["place"].endswith(f"in {function.__name__}")


def test_outside_the_plugin_there_is_no_place() -> None:
    assert Faults("/elsewhere").describe(raised(fail, ValueError()))[1]["place"] == ""
    # A directory whose name only starts alike is elsewhere as well.
    assert Faults(HERE[:-1]).describe(raised(fail, ValueError()))[1]["place"] == ""


def test_a_function_has_a_place_of_its_own() -> None:
    line = fail.__code__.co_firstlineno
    assert Faults(HERE).place_of(fail) == f"test_child_faults.py:{line} in fail"
    assert Faults("/elsewhere").place_of(fail) == ""
    assert Faults(HERE).place_of(len) == ""


def test_a_syntax_error_has_a_place(tmp_path: Path) -> None:
    file = tmp_path / "main.py"
    file.write_text("x = 1\ndef broken(:\n", encoding="utf-8")
    error = raised(compile, file.read_text(encoding="utf-8"), str(file), "exec")
    assert Faults(str(tmp_path)).describe(error)[1]["place"] == "main.py:2"


def test_classes_are_named_with_their_module() -> None:
    _, told = Faults(HERE).describe(raised(fail, UnprintableError()))
    assert told["type"].endswith("test_child_faults.UnprintableError")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError(), EXCEPTION),
        (MemoryError(), MEMORY),
        (OSError(errno.EMFILE, "too many"), DESCRIPTORS),
        (OSError(errno.ENFILE, "too many"), DESCRIPTORS),
        (OSError(errno.ENOENT, "none"), EXCEPTION),
        (RecursionError(), EXCEPTION),
    ],
    ids=repr,
)
def test_budgets_are_told_apart(error: BaseException, code: str) -> None:
    assert Faults(HERE).describe(raised(fail, error))[0] == code


def test_a_budget_behind_another_exception_is_found() -> None:
    def explicitly() -> None:
        try:
            fail(OSError(errno.EMFILE, "too many"))
        except OSError as error:
            raise ValueError("cannot open") from error

    def implicitly() -> None:
        try:
            fail(MemoryError())
        finally:
            fail(KeyError())

    assert Faults(HERE).describe(raised(explicitly))[0] == DESCRIPTORS
    assert Faults(HERE).describe(raised(implicitly))[0] == MEMORY


def test_a_cycle_of_causes_ends() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert Faults(HERE).describe(first)[0] == EXCEPTION


def test_what_an_exhausted_plugin_holds_is_let_go() -> None:
    class Hoard:
        pass

    hoards: list[weakref.ref[Hoard]] = []

    def hog(error: BaseException) -> NoReturn:
        hoard = Hoard()
        hoards.append(weakref.ref(hoard))
        raise error

    kept = raised(hog, ValueError())
    assert hoards[-1]() is not None
    error = raised(hog, MemoryError())
    Faults(HERE).describe(error)
    assert hoards[-1]() is None
    Faults(HERE).describe(kept)
    assert hoards[0]() is not None


def test_descriptors_can_run_out_and_the_text_still_be_made() -> None:
    faults = Faults(HERE)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hoard: list[int] = []

    def exhaust() -> None:
        while True:
            hoard.append(os.dup(0))

    linecache.clearcache()  # so that the source has to be opened
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        code, told = faults.describe(raised(exhaust))
        # Nothing was freed by it: the list outlives the frame.
        assert raised(os.dup, 0).errno == errno.EMFILE  # type: ignore[attr-defined]
    finally:
        for descriptor in hoard:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert code == DESCRIPTORS
    assert "hoard.append(os.dup(0))" in told["traceback"]
    assert told["place"].endswith("in exhaust")


def test_texts_are_capped_at_the_end_that_matters_least() -> None:
    _, told = Faults(HERE).describe(raised(fail, ValueError("start" + "☃" * 100_000 + "end")))
    assert told["message"].startswith("start")
    assert told["message"].endswith("...")
    assert len(told["message"].encode()) <= MAX_MESSAGE_BYTES
    assert told["traceback"].startswith("...")
    assert told["traceback"].endswith("end\n")
    assert len(told["traceback"].encode()) <= MAX_ERROR_TEXT_BYTES


class TextOfItsOwn(str):
    __slots__ = ()

    def encode(self, *arguments: Any) -> NoReturn:
        raise SystemExit

    __len__ = __getitem__ = encode  # type: ignore[assignment]


class LyingError(Exception):
    __module__ = 3  # type: ignore[assignment]

    def __str__(self) -> str:
        return TextOfItsOwn("text of its own")


@pytest.mark.parametrize(
    "error",
    [
        UnprintableError(),
        LyingError(),
        ValueError("\ud800\udfff"),
        KeyError(UnprintableError()),
        SystemExit(3),
    ],
    ids=lambda error: type(error).__name__,
)
def test_hostile_exceptions_can_be_told_and_sent(error: BaseException) -> None:
    code, told = Faults(HERE).describe(raised(fail, error))
    assert code == EXCEPTION
    assert pack(told)
    assert told["place"].endswith("in fail")


def test_a_deep_recursion_is_told_in_bounds() -> None:
    def deeper() -> None:
        deeper()

    code, told = Faults(HERE).describe(raised(deeper))
    assert code == EXCEPTION
    assert told["type"] == "RecursionError"
    assert len(told["traceback"].encode()) <= MAX_ERROR_TEXT_BYTES


def test_an_exception_while_describing_is_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(error: BaseException) -> NoReturn:
        raise MemoryError

    monkeypatch.setattr("plugin_sdk.child.faults._traceback_text", interrupted)
    code, told = Faults(HERE).describe(raised(fail, MemoryError()))
    assert code == MEMORY
    assert told["message"] == "an exception that could not be described"
    assert told["place"].endswith("in fail")


def test_the_text_of_an_exception_never_raises() -> None:
    assert text_of(ValueError("plain")) == "plain"
    assert text_of(UnprintableError()) == "(an exception whose text cannot be made)"


def test_a_refused_call_is_told_from_a_fault_inside() -> None:
    def call(function: Callable[..., Any], *arguments: Any) -> BaseException:
        try:
            function(*arguments)
        except TypeError as error:
            return error
        pytest.fail("nothing was raised")

    def inside(value: Any) -> None:
        raise TypeError(value)

    assert raised_by_the_call(call(inside, 1, 2))
    assert not raised_by_the_call(call(inside, 1))
