"""A program that signs; those here are small scripts, run by the tests' own interpreter."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox_host.bundle.sign import signature_of
from sandbox_host.errors import SignerError, UsageError
from sandbox_host.signing.program import ProgramSigner
from tests.support.bundles import make_key

KEY = make_key()
Write = Callable[[str], str]

GOOD = f"""\
import base64, sys
sys.path[:0] = {sys.path!r}
from sandbox_host.bundle.signature import PrivateKey
signature = PrivateKey.from_seed(bytes([1]) * 32).sign(sys.stdin.buffer.read())
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a script into a directory with a space, and return the command that runs it."""

    def written(source: str) -> str:
        file = tmp_path / "a script.py"
        file.write_text(source)
        return shlex.join([sys.executable, "-I", str(file)])

    return written


@pytest.mark.parametrize(
    "output",
    [
        "sys.stdout.buffer.write(signature)",
        "print(base64.b64encode(signature).decode())",
        "print('\\n'.join(base64.encodebytes(signature).decode().split()))",
    ],
    ids=["raw", "base64", "base64 on several lines"],
)
def test_a_program_signs(write: Write, output: str) -> None:
    signer = ProgramSigner(write(GOOD + output), KEY.public)
    message = bytes(range(256)) * 2_000  # more than a pipe holds
    assert signer.public == KEY.public
    assert signature_of(signer, message) == KEY.sign(message)


def test_arguments_are_passed_as_they_were_written_and_no_shell_sees_them(write: Write) -> None:
    words = ["$HOME", "; exit 3", "a b", "*"]
    source = f"import sys\nsys.stdin.read()\nsys.exit(0 if sys.argv[1:] == {words!r} else 9)\n"
    with pytest.raises(SignerError, match="printed 0 bytes"):
        ProgramSigner(f"{write(source)} {shlex.join(words)}", KEY.public).sign(b"message")


FLOOD = "import sys\nsys.stdin.read()\nfor _ in range(300): sys.{0}.write('x' * 4096)\n"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        pytest.param("", "printed 0 bytes", id="nothing"),
        pytest.param("print('no')", "printed 3 bytes", id="text"),
        pytest.param("print('A' * 84)", "neither a signature", id="base64 of fewer"),
        pytest.param(FLOOD.format("stdout"), "printed more than 4096 bytes", id="too much"),
        pytest.param("import sys; sys.exit(3)", "ended with exit code 3", id="exit code"),
        pytest.param("import sys; sys.exit('no token')", "and said: no token", id="complaint"),
        pytest.param(
            "import sys; sys.exit('\\x1b[2J' + 'x' * 900)", "and said: \\x1b[2Jxxx", id="escapes"
        ),
        pytest.param(
            "import os, signal; os.kill(os.getpid(), 9)", "ended by signal 9", id="signal"
        ),
        pytest.param(FLOOD.format("stderr") + "sys.exit(1)", "exit code 1", id="much complaint"),
        pytest.param("import os; os.close(0); os.close(1)", "printed 0 bytes", id="reads nothing"),
    ],
)
def test_programs_that_do_not_sign(write: Write, source: str, words: str) -> None:
    signer = ProgramSigner(write(source), KEY.public)
    with pytest.raises(SignerError) as caught:
        signer.sign(bytes(300_000))
    assert words in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1_000
    assert caught.value.remedy


def test_a_program_that_signs_with_another_key_is_not_believed(write: Write) -> None:
    command = write(GOOD + "sys.stdout.buffer.write(signature)")
    assert signature_of(ProgramSigner(command, KEY.public), b"m")
    with pytest.raises(SignerError, match="does not match"):
        signature_of(ProgramSigner(command, make_key(2).public), b"m")


def test_a_program_that_never_ends_has_a_deadline(write: Write) -> None:
    clock = itertools.chain([0.0, 1.0], itertools.repeat(1_000.0))
    signer = ProgramSigner(
        write("import time\ntime.sleep(600)"), KEY.public, clock=lambda: next(clock)
    )
    with pytest.raises(SignerError, match="took longer than 2 min"):
        signer.sign(b"message")


def test_a_program_that_closes_its_output_and_stays_has_a_deadline(write: Write) -> None:
    source = "import os, time\nos.close(1)\nos.close(2)\nos.read(0, 100)\ntime.sleep(600)"
    signer = ProgramSigner(write(source), KEY.public, seconds=0.5)
    with pytest.raises(SignerError, match="took longer than 500 ms"):
        signer.sign(b"message")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("/nowhere/program", "cannot be started: No such file"),
        ("/", "cannot be started: Permission denied"),
        ("a\0b", "cannot be started: embedded null byte"),
    ],
)
def test_programs_that_cannot_be_started(command: str, words: str) -> None:
    with pytest.raises(SignerError) as caught:
        ProgramSigner(command, KEY.public).sign(b"message")
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("command", "words"), [("", "no program"), (" ", "no program"), ("a 'b", "not a command")]
)
def test_what_is_no_command(command: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ProgramSigner(command, KEY.public)
