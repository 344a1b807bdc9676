"""Python's stacks for a person: who works first, who waits counted, what is ours left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.cli.dossier_stacks import shown_stacks

MAIN = """\
Current thread 0x01 (most recent call first):
  File "main.py", line 7 in spin
  File "plugin_sdk/child/loop.py", line 133 in _run
  File "plugin_sdk/nursery/serve.py", line 60 in serve
  File "<string>", line 1 in <module>"""
WAITING = """\
Thread 0x{} (most recent call first):
  File "main.py", line 3 in work
  File "/usr/lib/python3.11/threading.py", line 975 in run"""


def test_who_works_comes_first_and_who_waits_is_counted() -> None:
    text = "\n\n".join([WAITING.format("0a"), WAITING.format("0b"), MAIN])
    assert shown_stacks(text, 96) == [
        "Current thread 0x01 (most recent call first):",
        '  File "main.py", line 7 in spin',
        "  (3 frames of the runtime)",
        "",
        "2 alike: Thread 0x0a (most recent call first):",
        '  File "main.py", line 3 in work',
        '  File "/usr/lib/python3.11/threading.py", line 975 in run',
    ]


def test_the_one_that_works_names_those_that_stand_alike() -> None:
    text = "\n\n".join([WAITING.format("0a"), WAITING.format("0b").replace("Th", "Current th")])
    assert shown_stacks(text, 96)[0] == "2 alike: Current thread 0x0b (most recent call first):"


def test_what_says_why_stays_in_front() -> None:
    text = (
        f"Fatal Python error: Aborted\n\n{WAITING.format('0a')}\n\n{MAIN}\n\nExtension modules: x"
    )
    lines = shown_stacks(text, 96)
    firsts = [line.split()[0] for line in lines if line and not line.startswith(" ")]
    assert firsts == ["Fatal", "Current", "Thread", "Extension"]


def test_what_runs_outside_of_the_plugins_code_is_counted_too() -> None:
    idle = MAIN.replace('  File "main.py", line 7 in spin\n', "")
    assert shown_stacks(idle, 96)[1:] == ["  (3 frames of the runtime)"]


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (60, '  File "/usr/lib/python3.11/threading.py", line 975 in run'),
        (50, '  File "...thon3.11/threading.py", line 975 in run'),
        (10, '  File "...threading.py", line 975 in run'),
    ],
)
def test_of_a_long_path_the_beginning_goes(width: int, shown: str) -> None:
    """Function and line say more, and would be cut off otherwise."""
    assert shown_stacks(WAITING.format("0a"), width)[2] == shown


def test_what_is_no_stack_at_all() -> None:
    assert shown_stacks("nonsense\n\n\nmore", 80) == ["nonsense", "", "more"]
    assert shown_stacks("nonsense\n\nnonsense", 80) == ["2 alike: nonsense"]
    assert shown_stacks("", 80) == [""]


@given(st.text('CurenthadT0x(most):\n  File "main.py", line 7', max_size=300))
def test_whatever_is_written_there(text: str) -> None:
    lines = shown_stacks(text, 80)
    assert len(lines) <= len(text.split("\n")) + 1
    assert all("\n" not in line for line in lines)
