"""A dossier's files: text for people, and read back strictly."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandbox_host.errors import DossierError
from sandbox_host.model import Usage
from sandbox_host.observe.dossier_files import (
    CURVE,
    FILES,
    FRAMES,
    LOG,
    STACKS,
    STACKS_HEADING,
    SUMMARY,
    document,
    parse,
    render,
)
from tests.support.dossier_examples import example


def test_what_is_written_is_read_back() -> None:
    dossier = example()
    files = render(dossier)
    assert list(files) == list(FILES)
    assert parse(files) == dossier


def test_what_is_not_known_is_read_back_as_that() -> None:
    dossier = example(
        excess=None, exit_signal=None, usage=Usage(), limits=(), layers=(), curve=(), frames=(),
        log=(), stacks="", operation="", place="", frozen=False,
    )  # fmt: skip
    files = render(dossier)
    assert parse(files) == dossier
    assert (files[LOG], files[STACKS]) == (b"", b"")
    assert parse(render(example(exit_code=3, exit_signal=None))).exit_code == 3


def test_people_can_read_them() -> None:
    files = {name: data.decode() for name, data in render(example()).items()}
    told = json.loads(files[SUMMARY])
    assert (told["cause"], told["ended_at"]) == ("memory", "2026-01-31T12:00:00.250+00:00")
    assert told["what_next"] == list(example().advice)
    assert files[CURVE].splitlines()[:3] == [
        "at_seconds,cpu_seconds,resident_bytes,threads,descriptors",
        "0,0,0,2,9",
        "0.1,0.05,3145728,2,9",
    ]
    assert files[FRAMES].splitlines()[0] == "before_end_seconds direction kind id size_bytes name"
    assert files[FRAMES].splitlines()[3:] == [
        "1.5 out call 1 40 grow",
        "1.25 in publish 0 120 data_processed",
    ]
    assert files[LOG] == "starting\ngrowing \\x1b[2J\n"
    assert files[STACKS].splitlines()[0] == STACKS_HEADING
    assert "own process" in STACKS_HEADING


def test_the_document_has_all_of_it() -> None:
    told = json.loads(json.dumps(document(example())))
    assert told["curve"][1] == {
        "at_seconds": 0.1,
        "cpu_seconds": 0.05,
        "resident_bytes": 3145728,
        "threads": 2,
        "descriptors": 9,
    }
    assert told["frames"][2]["name"] == "grow"
    assert told["log"] == ["starting", "growing \\x1b[2J"]
    assert told["stacks"].endswith("line 7 in grow")
    assert told["usage"]["operations"]["grow"]["calls"] == 3


def changed(file: str, data: bytes) -> dict[str, bytes]:
    return {**render(example()), file: data}


def with_key(key: str, value: Any) -> dict[str, bytes]:
    told = json.loads(render(example())[SUMMARY])
    return changed(SUMMARY, json.dumps({**told, key: value}).encode())


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(name: str) -> None:
    files = render(example())
    del files[name]
    with pytest.raises(DossierError, match=f"{name} is missing"):
        parse(files)


@pytest.mark.parametrize(
    ("file", "data", "why"),
    [
        (SUMMARY, b"", "is not JSON"),
        (SUMMARY, b"[]", "expected an object"),
        (SUMMARY, b'{"format": 1, "format": 1}', "is not JSON"),
        (SUMMARY, b"[" * 50_000, "is not JSON"),
        (SUMMARY, b"\xff", "is not JSON"),
        (SUMMARY, b"{}", "missing; this key is required"),
        (CURVE, b"", "expected the heading"),
        (CURVE, b"no heading\n", "expected the heading"),
        (CURVE, b"\xff\n", "not UTF-8"),
        (LOG, b"half a li", "a part of it is missing"),
        (LOG, b"\x1b[2J\n", "control characters"),
        (LOG, b"x\n" * 201, "at most 200 lines"),
        (LOG, b"x" * 2_001 + b"\n", "at most 2000 characters"),
        (STACKS, b"File 'x'\n", "expected the heading"),
        (STACKS, STACKS_HEADING.encode() + b"\n\r\n", "control characters"),
    ],
)
def test_a_file_that_was_changed(file: str, data: bytes, why: str) -> None:
    with pytest.raises(DossierError, match=why) as caught:
        parse(changed(file, data))
    assert caught.value.message.startswith(file)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("1,2,3,4", "expected 5 cells"),
        ("-1,2,3,4,5", "two decimal numbers"),
        ("nan,2,3,4,5", "two decimal numbers"),
        ("1,2e9,3,4,5", "two decimal numbers"),
        ("1,2,3.5,4,5", "a whole number"),
        ("1,2,3,4,٣", "a whole number"),
        ("1,2,3,4," + "9" * 17, "a whole number"),
    ],
)
def test_a_line_of_the_curve(row: str, why: str) -> None:
    data = render(example())[CURVE] + row.encode() + b"\n"
    with pytest.raises(DossierError, match=f"curve.csv: line 28: .*{why}"):
        parse(changed(CURVE, data))


def test_too_long_a_curve() -> None:
    data = render(example())[CURVE] + b"1,2,3,4,5\n" * 220
    with pytest.raises(DossierError, match="at most 240 lines"):
        parse(changed(CURVE, data))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("1 in call 1 2", "expected 6 cells"),
        ("1 up call 1 2 x", "expected in or out"),
        ("1 in CALL 1 2 x", "a decimal number, a direction, a kind"),
        ("x in call 1 2 x", "a decimal number, a direction, a kind"),
        ("1 in call -1 2 x", "a whole number"),
        ("1 in call 1 2 " + "x" * 129, "at most 128 characters"),
        ("1 in call 1 2 \x1b", "control characters"),
    ],
)
def test_a_line_of_the_frames(row: str, why: str) -> None:
    data = render(example())[FRAMES] + row.encode() + b"\n"
    with pytest.raises(DossierError, match=f"frames.txt: line 6: .*{why}"):
        parse(changed(FRAMES, data))


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("format", 2, "expected 1, the one that this version reads, got 2"),
        ("extra", 1, "unknown key"),
        ("cause", "boredom", "a name that this version knows"),
        ("cause", [], "a name that this version knows"),
        ("pid", -1, "pid: expected"),
        ("pid", True, "pid: expected"),
        ("pid", 10**400, "pid: expected"),
        ("text", "two\nlines", "control characters"),
        ("text", 1, "text: expected text"),
        ("plugin", "x" * 65, "at most 64 characters"),
        ("started_at", "yesterday", "a date and time with its zone"),
        ("started_at", "2026-01-31T12:00:00", "a date and time with its zone"),
        ("started_at", "0001-01-01T00:00:00+00:00", "a number from 0"),
        ("started_at", 1.5, "expected text"),
        ("excess", [], "excess: expected an object"),
        ("excess", {"budget": "cpu"}, "excess.limit: missing"),
        ("exit_code", "0", "exit_code: expected"),
        ("frozen", 1, "true or false"),
        ("usage", None, "usage: expected an object"),
        ("usage", {"operations": {}, "calls": 1.5}, "usage.calls: expected a whole number"),
        ("usage", {"operations": {}, "lies": 1}, "usage.lies: unknown key"),
        ("usage", {"calls": 1}, "usage.operations: expected an object"),
        ("usage", {"operations": {"grow": {}}}, "usage.operations.grow.calls: missing"),
        ("usage", {"operations": {str(n): {} for n in range(17)}}, "at most 16 entries"),
        ("limits", [{"name": "x", "value": "y"}], r"limits\[0\].mechanism: missing"),
        ("limits", [{}] * 49, "limits: expected a list of at most 48"),
        ("layers", ["tinfoil"], r"layers\[0\]: expected a name"),
        ("layers", "seccomp", "layers: expected a list"),
        ("what_next", [""], r"what_next\[0\]"),
    ],
)
def test_a_value_of_the_summary(key: str, value: Any, why: str) -> None:
    with pytest.raises(DossierError, match=f"summary.json: .*{why}"):
        parse(with_key(key, value))


def test_a_number_that_json_does_not_know() -> None:
    data = render(example())[SUMMARY].replace(b'"limit": 67108864.0', b'"limit": NaN')
    assert b"NaN" in data
    with pytest.raises(DossierError, match=r"excess\.limit: expected a number"):
        parse(changed(SUMMARY, data))


def test_a_use_that_this_version_counts_and_an_older_one_did_not() -> None:
    told = json.loads(render(example())[SUMMARY])
    del told["usage"]["threads_peak"]
    read = parse(changed(SUMMARY, json.dumps(told).encode()))
    assert read.usage.threads_peak == 0
    assert read.usage.memory_peak_bytes == example().usage.memory_peak_bytes
