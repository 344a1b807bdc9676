from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.cli import output

HOSTILE = "a\x1b[2Jb\nc\u202ed[bold]e\udcff"


@given(st.text(max_size=200))
def test_nothing_that_a_terminal_would_act_on_passes(text: str) -> None:
    shown = output.clean(text)
    assert "\n" not in shown
    assert "\x1b" not in shown
    shown.encode()
    if text.isascii() and text.isprintable():
        assert shown == text


def test_every_way_to_print_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(HOSTILE)
    output.field("label", HOSTILE)
    output.note(HOSTILE)
    output.fail(HOSTILE)
    output.print_table(("A", "B"), [(HOSTILE, 1)])
    output.print_json({"key": HOSTILE})
    out, err = capsys.readouterr()
    assert out.count(r"a\x1b[2Jb\nc\u202ed[bold]e\udcff") == 3
    assert err.count(r"a\x1b[2Jb\nc\u202ed[bold]e\udcff") == 2
    assert (out + err).isascii() or all(c.isprintable() for c in (out + err).replace("\n", ""))
    assert "\x1b" not in out + err


def test_json_has_its_version_and_only_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"name": "für"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"schema_version": 1, "name": "für"}


def test_a_table_fits_80_columns_and_loses_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    digest = "0123456789abcdef" * 4
    output.print_table(("WHAT", "DIGEST", "WHY"), [("x" * 40, digest, "a reason " * 9)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "WHAT" in lines[0]
    assert "".join(lines).count("x") == 40
    assert "".join("".join(lines).split()).count("reason") == 9


def test_warnings_of_the_library_are_notes_inside_the_block_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = logging.getLogger("sandbox_host")
    with output.library_notes():
        log.warning("first\x1b")
        log.info("too quiet")
        with output.no_library_notes():
            log.error("not shown")
        log.warning("second")
    log.warning("after")
    assert capsys.readouterr().err == "note: first\\x1b\nnote: second\n"


def test_working_is_silent_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with output.working("thinking"):
        pass
    assert capsys.readouterr() == ("", "")
