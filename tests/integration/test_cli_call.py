"""`call` on signed plugins: results on standard output, everything else not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.bundles import make_key, signed_plugin, trust_store
from tests.support.command_line import LocalCommandLine, Ran

pytestmark = pytest.mark.needs

SOURCE = r"""
import time
from plugin_sdk import operation

@operation
def echo(*values, **named):
    return [list(values), named]

@operation
def raw():
    return {"data": b"\x00\xff", "text": "\x1b[2J f\u00fcr \u202e"}

@operation
def noisy():
    print("on standard output \x1b[2J")
    return True

@operation
def fails():
    raise ValueError("no \x1b[2J\n\nsuch luck")

@operation
def sleeps():
    time.sleep(30)

@operation
def unsendable():
    return {1, 2}

@operation
def ends():
    import os
    os._exit(9)
"""


@pytest.fixture
def cli(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> LocalCommandLine:
    made = LocalCommandLine(tmp_path, capsys, monkeypatch)
    trust_store(tmp_path, make_key()).rename(tmp_path / "trust.toml")
    signed_plugin(tmp_path / "sample", make_key(), {"main.py": SOURCE})
    return made


def call(cli: LocalCommandLine, *arguments: object) -> Ran:
    return cli("call", "sample", *arguments, "--trust-store", "trust.toml")


def test_json_in_and_out(cli: LocalCommandLine) -> None:
    ran = call(cli, "echo", "-5", '"two words"', "[1.5, null]", "--kw", 'more={"a": true}')
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out) == [[-5, "two words", [1.5, None]], {"more": {"a": True}}]


def test_a_result_cannot_act_on_the_terminal(cli: LocalCommandLine) -> None:
    ran = call(cli, "raw")
    assert ran.out.strip().isprintable()
    assert ran.out.isascii()
    assert json.loads(ran.out) == {"data": {"base64": "AP8="}, "text": "\x1b[2J für \u202e"}


def test_the_place_of_an_error_is_shown(cli: LocalCommandLine) -> None:
    ran = call(cli, "fails")
    assert (ran.code, ran.out) == (1, "")
    assert '  |   File "main.py", line 20, in fails\n' in ran.err
    why = r"raised ValueError at main.py:20 in fails: no \x1b[2J\n\nsuch luck"
    assert why in ran.err.splitlines()[-1]


def test_where_the_output_of_a_failed_plugin_is(cli: LocalCommandLine) -> None:
    assert call(cli, "noisy").code == 0
    ran = call(cli, "ends")
    assert ran.code == 1
    assert ran.err.endswith(f"log: {cli.state_dir}/logs/sample.log\n")


def test_what_it_prints_is_no_result(cli: LocalCommandLine) -> None:
    ran = call(cli, "noisy")
    assert (ran.code, ran.out, ran.err) == (0, "true\n", "")
    log = cli.state_dir / "logs" / "sample.log"
    assert "on standard output" in log.read_text()


@pytest.mark.usefixtures("long_grace")
@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("sleeps", "--deadline", "0.05"), 1, "missed its deadline of 0.05 s"),
        (("unsendable",), 1, "cannot be sent"),
        (("ends",), 1, "exit status 9"),
        (("nope",), 1, 'there is no operation "nope"'),
        (("echo", str(2**70)), 1, "cannot be sent"),
        (("echo", "words"), 2, "'words', is not a JSON value"),
        (("echo", "--nope"), 2, "'--nope', is not a JSON value"),
        (("echo", "[" * 100_000), 2, "is not a JSON value"),
        (("echo", "--kw", "x"), 2, "is not NAME=JSON"),
        (("echo", "--kw", "a b=1"), 2, "is not NAME=JSON"),
        (("echo", "--kw", "a=b"), 2, "--kw a, 'b', is not a JSON value"),
        (("echo", "--kw", "deadline=3"), 2, "mean --deadline SECONDS"),
        (("echo", "--deadline", "0"), 2, "--deadline"),
        (("echo", "--state-dir", "/proc/nope"), 6, "state directory"),
    ],
)
def test_what_goes_wrong_is_one_paragraph(
    cli: LocalCommandLine, arguments: tuple[str, ...], code: int, why: str
) -> None:
    ran = call(cli, *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert why in ran.err
    assert ran.err.startswith("sandbox-host: ")
    assert ran.err.count("\n") == 1
    assert "\x1b" not in ran.err


def test_nothing_of_a_changed_plugin_runs(cli: LocalCommandLine) -> None:
    with (cli.home / "sample" / "main.py").open("a") as file:
        file.write("print('it ran')\n")
    ran = call(cli, "noisy")
    assert (ran.code, ran.out) == (1, "")
    assert "main.py" in ran.err
    assert not (cli.state_dir / "logs" / "sample.log").exists()
