"""Strangers' sources are read in the sandbox: what is fatal to read is a finding, and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import HostConfig
from sandbox_host.bundle.contents import Contents
from sandbox_host.bundle.rules import check_contents
from sandbox_host.bundle.source import read_bundle
from sandbox_host.model import MIB, Permissions
from sandbox_host.runtime.scanner import (
    MAX_DEATHS,
    MAX_TOLD,
    ConfinedReader,
    scan_files,
    source_reader,
)
from sandbox_host.scan import internal
from sandbox_host.scan.finding import Finding
from sandbox_host.scan.scan import MAX_SOURCE_BYTES, scan
from sandbox_host.scan.sightings import Sighting, read_sightings
from tests.support.bundles import plugin_files
from tests.support.scans import findings_in, read_here

pytestmark = pytest.mark.needs

PLUGINS = Path(__file__).parents[2] / "plugins"


def by_file(found: tuple[Finding, ...]) -> dict[str, set[str]]:
    """Return the rules that each file broke."""
    rules: dict[str, set[str]] = {}
    for one in found:
        rules.setdefault(one.path, set()).add(one.rule)
    return rules


def test_hostile_sources_are_findings_and_cost_the_others_nothing() -> None:
    files = {
        "a.py": b"(" * 100_000,
        "b.py": b"x = " + b"-" * 100_000 + b"1",
        "c.py": b"x" + b".y" * 100_000,
        "d.py": b"x = 1\n\0eval(x)",
        "e.py": b"# coding: utf-7\n+AGUAdgBhAGw-(x)",
        "f.py": b"\xff\xfe\x00",
        "g.py": b"x = '" + b"A" * (10 * MIB) + b"'",
        "h.py": b"x = " + b"9" * 500_000,
        "i.py": b"x = '" + b"Q1z" * 300_000 + b"'",
        "j.py": b"\\\n" * 400_000,
        "z.py": b"import os\nos.system('id')",
    }
    found = scan_files(files, Permissions(), HostConfig())
    rules = by_file(found)
    assert {path: told - {"SH307"} for path, told in rules.items()} == {
        "a.py": {"SH405"},
        "b.py": {"SH405"},
        "c.py": {"SH405"},
        "d.py": {"SH404"},
        "e.py": {"SH201", "SH403"},
        "f.py": {"SH402"},
        "g.py": {"SH406"},
        "h.py": {"SH401"},
        "i.py": {"SH310"},
        "j.py": {"SH401"},
        "z.py": {"SH112"},
    }


def test_what_takes_for_ever_is_ended_and_the_next_one_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(internal, "LIMITS", replace(internal.LIMITS, cpu_seconds=0.5))
    slow = b"f(g(h(i), j), k)\n" * 20_000
    found = scan_files({"a.py": slow, "b.py": b"eval(x)"}, Permissions(), HostConfig())
    assert [(one.path, one.rule) for one in found] == [("a.py", "SH407"), ("b.py", "SH201")]
    assert found[0].message == "ended the process that read it: it needs too much cpu"


def test_what_takes_too_much_memory_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(internal, "LIMITS", replace(internal.LIMITS, memory_bytes=96 * MIB))
    dense = b"0\n" * (MAX_SOURCE_BYTES // 4)
    (found,) = scan_files({"a.py": dense}, Permissions(), HostConfig())
    assert (found.rule, found.message.rpartition(" ")[2]) == ("SH407", "memory")


def test_the_example_plugins_have_no_findings() -> None:
    with source_reader(HostConfig()) as reader:
        for path in sorted(PLUGINS.glob("weather_*/")):
            files = read_bundle(path).files
            assert scan(files, check_contents(files).permissions, reader) == ()


def test_the_sandbox_finds_what_the_same_code_finds_here_and_finds_it_again() -> None:
    files = {"b.py": b"import socket\neval(x)", "a.py": b"open('/etc/passwd', 'w')"}
    first = scan_files(files, Permissions(), HostConfig())
    assert first == scan_files(files, Permissions(), HostConfig())
    assert first == scan(files, Permissions(), read_here)


def test_without_sources_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox_host.runtime.scanner.source_reader", None)
    assert scan_files({"data.txt": b"eval(x)"}, Permissions(), HostConfig()) == ()
    assert findings_in("eval(x)", path="data.txt") == ()


# -- a reader that a source has taken over ---------------------------------------------------------


def taken_over(body: str) -> Callable[[str], Contents]:
    """Return a maker of readers that do something else than reading."""

    def make(name: str) -> Contents:
        main = f"import os, time\nfrom plugin_sdk import operation\nseen = []\n{body}"
        return Contents(plugin_files({"main.py": main}, name=name), None, "the test")

    return make


def failed(path: str, rule: str, reason: str) -> Sighting:
    """Return what is told of a file that was not read."""
    return Sighting(path, 1, 1, rule, reason)


def read_by(body: str, *batches: dict[str, bytes]) -> list[list[Sighting]]:
    """Return what a reader that was taken over gets to say of each plugin."""
    with ConfinedReader(HostConfig(), taken_over(body), read_sightings, failed) as reader:
        return [list(reader(batch)) for batch in batches]


EXAMINE = "@operation\ndef examine(data):\n    "
LIES = {
    "exits": "os._exit(0)",
    "raises": "raise ValueError('\\x1b[2J')",
    "nothing": "return None",
    "other-rule": "return [['SH000', 1, 1, '']]",
    "host's-rule": "return [['SH410', 1, 1, '']]",
    "too-much": "return [['SH101', 1, 1, 'x']] * 60_000",
    "too-large": "return 'x' * 9_000_000",
}


@pytest.mark.parametrize("body", LIES.values(), ids=LIES)
def test_a_reader_that_lies_or_ends_is_a_finding(body: str) -> None:
    ((seen,),) = read_by(EXAMINE + body, {"a.py": b""})
    assert (seen.path, seen.rule) == ("a.py", "SH407")
    assert seen.what.isprintable()


def test_sources_that_end_every_reader_end_the_scan() -> None:
    sources = {f"{n}.py": b"" for n in range(MAX_DEATHS + 2)}
    (seen,) = read_by(EXAMINE + "os._exit(1)", sources)
    assert [one.rule for one in seen] == ["SH407"] * MAX_DEATHS + ["SH410"] * 2


def test_sources_of_which_there_is_no_end_of_findings_end_the_scan() -> None:
    """They would take the host's memory, and a report that nobody could open."""
    body = EXAMINE + f"return [['SH101', 1, 1, 'x']] * {MAX_TOLD // 2 + 1}"
    (seen,) = read_by(body, {f"{n}.py": b"" for n in range(4)})
    told = [one.path for one in seen if one.rule == "SH101"]
    assert set(told) == {"0.py", "1.py"}
    assert [(one.path, one.rule) for one in seen[len(told) :]] == [
        ("2.py", "SH410"),
        ("3.py", "SH410"),
    ]


def test_what_takes_a_reader_over_says_nothing_of_the_next_plugin() -> None:
    body = EXAMINE + "seen.append(1); return [['SH101', 1, 1, str(len(seen))]]"
    seen = read_by(body, {"a.py": b"", "b.py": b""}, {"c.py": b""})
    assert [[one.what for one in each] for each in seen] == [["1", "2"], ["1"]]


ATTEMPTS = """
import os, pathlib, socket

ATTEMPTS = (
    lambda: pathlib.Path({secret!r}).read_text(),
    lambda: socket.socket().close(),
    lambda: os.waitpid(os.fork() or os._exit(0), 0),
    lambda: os.environ["SCAN_SECRET"],
)

def outcome(attempt):
    try:
        return str(attempt())
    except (OSError, KeyError) as error:
        return type(error).__name__
"""


def test_what_takes_a_reader_over_reaches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("known")
    monkeypatch.setenv("SCAN_SECRET", "known")
    attempts = ATTEMPTS.format(secret=str(secret))
    here: dict[str, Any] = {}
    exec(attempts, here)
    outside = [here["outcome"](attempt) for attempt in here["ATTEMPTS"]]
    assert [one in {"OSError", "PermissionError", "KeyError"} for one in outside] == [False] * 4
    body = f"{attempts}\n{EXAMINE}return [['SH101', 1, 1, outcome(one)] for one in ATTEMPTS]"
    ((seen),) = read_by(body, {"a.py": b""})
    told = [one.what for one in seen]
    assert told[0] in {"FileNotFoundError", "PermissionError"}
    assert told[1:] == ["PermissionError", "PermissionError", "KeyError"]
