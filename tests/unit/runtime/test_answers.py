"""A plugin's answers as values and errors; its text is shown, never obeyed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from plugin_sdk.wire import codec
from plugin_sdk.wire.messages import Failure
from sandbox_host.budget.enforce import Excess, Step
from sandbox_host.errors import DeadlineExceededError, OperationError, PluginError
from sandbox_host.ipc.calls import Pending
from sandbox_host.model import Cause, Limits, Permissions
from sandbox_host.runtime.answers import (
    BadAnswerError,
    clean,
    exceeded,
    hint,
    outcomes_of,
    too_late,
    value_of,
)


def call(*, started: bool = True) -> Pending:
    """Return a call that was sent at 100 s and had one second."""
    pending = Pending(1, "predict", 101.0, 100.0)
    pending.started_at = 100.0 if started else 0.0
    return pending


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\r\nb", "a\\r\\nb"),
        ("\x00", "\\x00"),
        ("\u202eevil", "\\u202eevil"),
        ("\ud800", "\\ud800"),
        ("é \U0001f600", "é \U0001f600"),
        (None, ""),
        (3, ""),
        (b"bytes", ""),
        (["list"], ""),
    ],
)
def test_clean(text: object, shown: str) -> None:
    assert clean(text, 100) == shown


def test_clean_keeps_what_it_is_told_to() -> None:
    assert clean("a\n\tb\r", 100, keep="\n\t") == "a\n\tb\\r"


def test_clean_is_bounded_and_keeps_the_end() -> None:
    assert clean("x" * 50 + "end", 10) == "...xxxxend"


@pytest.mark.parametrize("ended", [True, False])
def test_too_late(ended: bool) -> None:
    error = too_late("sample", call(), 101.5, ended=ended, place="main.py:3 in f")
    assert (error.budget, error.limit, error.used, error.unit) == ("wall_time", 1.0, 1.5, "seconds")
    assert (error.ended, error.place) == (ended, "main.py:3 in f")
    assert "sample.predict took too long at main.py:3 in f" in str(error)
    assert ("goes on" in str(error)) is not ended


@pytest.mark.parametrize(("started", "waited"), [(False, None), (True, True)])
def test_too_late_in_line(started: bool, waited: bool | None) -> None:
    error = too_late("sample", call(started=started), 102.0, ended=False, waited=waited)
    assert "waited for its turn" in str(error)


@pytest.mark.parametrize(
    ("finished_at", "kind"), [(100.9, OperationError), (101.1, DeadlineExceededError)]
)
def test_a_failure_after_the_deadline_is_a_missed_deadline(
    finished_at: float, kind: type[PluginError]
) -> None:
    pending = call()
    pending.finished_at = finished_at
    payload = codec.pack({"type": "CallError", "message": "its time was over"})
    answer = Failure(1, "exception", payload=payload)
    plan: Any = SimpleNamespace(identity="sample", limits=Limits(), permissions=Permissions())
    with pytest.raises(kind) as raised:
        value_of(plan, pending, answer, None)
    told = raised.value if kind is OperationError else raised.value.__cause__
    assert "raised CallError: its time was over" in str(told)


def test_exceeded() -> None:
    excess = Excess(Step.END, Cause.CPU, "cpu", 1.0, 1.25, "seconds", "predict")
    error = exceeded("sample", call(), excess, "main.py:3 in f", 101.5)
    assert (error.budget, error.limit, error.used, error.unit) == ("cpu", 1.0, 1.25, "seconds")
    assert (error.ended, error.place) == (True, "main.py:3 in f")
    assert "limits" in error.remedy


def test_exceeded_deadline_is_a_late_call() -> None:
    excess = Excess(Step.END, Cause.DEADLINE, "wall_time", 1.0, 1.25, "seconds", "predict")
    error = exceeded("sample", call(), excess, "", 101.5)
    assert isinstance(error, DeadlineExceededError)
    assert error.ended


@pytest.mark.parametrize(
    ("kind", "message", "words"),
    [
        ("PermissionError", "[Errno 13] Permission denied: '/etc/passwd'", "its own directories"),
        ("ModuleNotFoundError", "No module named 'numpy'", "plugin environment"),
        ("socket.gaierror", "Temporary failure in name resolution", "no network"),
        ("urllib.error.URLError", "<urlopen error>", "no network"),
        ("OSError", "[Errno 27] File too large", "file_size"),
        ("KeyError", "'x'", ""),
        ("", "", ""),
    ],
)
def test_a_wall_of_the_sandbox_is_named(kind: str, message: str, words: str) -> None:
    told = hint(kind, message)
    assert words in told
    assert bool(told) is bool(words)


PLAN: Any = SimpleNamespace(identity="sample", limits=Limits(), permissions=Permissions())


def test_outcomes_of_a_batch() -> None:
    told = {"code": "exception", "type": "ValueError", "message": "no"}
    outcomes = outcomes_of(PLAN, call(), [[1, None, None], [[1, told]]], 3)
    assert (outcomes[0], outcomes[2]) == (1, None)
    assert isinstance(outcomes[1], OperationError)
    assert "no" in str(outcomes[1])


@pytest.mark.parametrize(
    "value",
    [
        None,
        [1, 2],
        [[1], []],
        [[1, 2, 3], []],
        [[1, 2]],
        [[1, 2], [], []],
        [[1, 2], {}],
        [[1, 2], [1]],
        [[1, 2], [[2, {}]]],
        [[1, 2], [[-1, {}]]],
        [[1, 2], [[True, {}]]],
        [[1, 2], [["1", {}]]],
        [[1, 2], [[1, "told"]]],
        [[1, 2], [[1, {}], [1, {}]]],
        [[1, 2], [[1, {}], [0, {}]]],
    ],
    ids=repr,
)
def test_what_is_no_answer_to_a_batch_of_two(value: Any) -> None:
    with pytest.raises(BadAnswerError, match="batch"):
        outcomes_of(PLAN, call(), value, 2)
