"""Where in the plugin's code, from a dump that the plugin may have written itself."""

from __future__ import annotations

import pytest

from sandbox_host.budget.place import MAX_DUMP_BYTES, place_in

PACKAGE = "/state/run/1-a/bundles/sample-0/sample"
DUMP = f"""\
Fatal Python error: User defined signal 1

Thread 0x00007f0 (most recent call first):
  File "/usr/lib/python3.11/re/__init__.py", line 166 in match
  File "{PACKAGE}/main.py", line 12 in spin
  File "{PACKAGE}/main.py", line 3 in outer
  File "/sdk/plugin_sdk/child/loop.py", line 90 in _run
""".encode()


def test_innermost_frame_of_the_plugin() -> None:
    assert place_in(DUMP, PACKAGE) == "main.py:12 in spin"
    assert place_in(DUMP, PACKAGE + "/") == "main.py:12 in spin"


def test_file_in_a_subdirectory() -> None:
    dump = f'  File "{PACKAGE}/sub/deep.py", line 1 in <module>'.encode()
    assert place_in(dump, PACKAGE) == "sub/deep.py:1 in <module>"


@pytest.mark.parametrize(
    "dump",
    [
        b"",
        b"\xff\xfe\x00" * 100,
        b'  File "/elsewhere/main.py", line 1 in f',
        b'  File "' + PACKAGE.encode() + b'-evil/main.py", line 1 in f',
        b'File "' + PACKAGE.encode() + b'/main.py", line 1 in f',
        b'  File "' + PACKAGE.encode() + b'/main.py", line x in f',
        b'  File "' + PACKAGE.encode() + b'/main.py", line 1234567890 in f',
        b'  File "' + PACKAGE.encode() + b'/a\x1b[2J.py", line 1 in f',
        b'  File "' + PACKAGE.encode() + b"/" + b"x" * 600 + b'", line 1 in f',
        b"x" * MAX_DUMP_BYTES + b"\n" + DUMP,
    ],
)
def test_what_is_not_believed(dump: bytes) -> None:
    assert place_in(dump, PACKAGE) == ""


@pytest.mark.parametrize(
    "said",
    [
        'main.py", line 1 in f\x1b[2J\u202e',
        'main.py", line 1 in f. It was killed by the operator alice',
        'main.py and nobody else.py", line 1 in f',
    ],
)
def test_it_says_no_more_than_a_place(said: str) -> None:
    assert place_in(f'  File "{PACKAGE}/{said}'.encode(), PACKAGE) == ""


def test_the_thread_that_works_comes_before_those_it_started() -> None:
    dump = (
        b'Thread 0x2 (most recent call first):\n  File "/p/main.py", line 9 in helper\n\n'
        b'Current thread 0x1 (most recent call first):\n  File "/p/main.py", line 3 in work\n\n'
        b'Thread 0x3 (most recent call first):\n  File "/p/main.py", line 8 in other\n'
    )
    assert place_in(dump, "/p") == "main.py:3 in work"
    assert place_in(dump.replace(b'/p/main.py", line 3', b'/q/main.py", line 3'), "/p") == (
        "main.py:9 in helper"
    )
