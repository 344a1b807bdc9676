"""The screens `status`, `top` and a receipt, as text at 80 and 160 columns, without colour.

The pictures are in ``screens/``; trailing spaces are left out there. To look at a changed one, run
the test with ``SCREENS=write`` in the environment, and read the difference.
"""

from __future__ import annotations

import copy
import io
import os
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk.wire import codec
from sandbox_host.cli.service_screens import (
    duration,
    is_well,
    milliseconds,
    print_one,
    print_status,
    print_top,
)
from sandbox_host.cli.tables import print_receipt
from sandbox_host.guarantees import standing
from sandbox_host.model import (
    MIB,
    Enforced,
    Layer,
    LayerReport,
    LayerStatus,
    Limits,
    Receipt,
)
from sandbox_host.runtime.receipt import with_watchdog
from sandbox_host.service.documents import receipt_document, receipt_of
from sandbox_host.service.frames import ANSWER

SCREENS = Path(__file__).with_name("screens")


def receipt() -> Receipt:
    missing = LayerReport(
        Layer.CGROUP,
        LayerStatus.UNAVAILABLE,
        "no group is writable",
        "Run the host in a systemd unit with Delegate=yes.",
    )
    layers = tuple(
        missing if layer is Layer.CGROUP else LayerReport(layer, LayerStatus.ACTIVE, "read back")
        for layer in Layer
        if layer is not Layer.WATCHDOG
    )
    return with_watchdog(
        Receipt(
            "weather_model",
            4_712,
            layers,
            standing(set(Layer) - {Layer.CGROUP}),
            (Enforced("memory_bytes", "512 MiB", "watchdog"),),
            (Enforced("read", "/srv/weather", "own-root, landlock"),),
        ),
        Limits(),
        0.02,
    )


def plugin(name: str, pid: int, **more: Any) -> dict[str, Any]:
    usage = {
        "cpu_seconds": 12.5,
        "memory_peak_bytes": 48 * MIB,
        "descriptors_peak": 9,
        "threads_peak": 1,
        "calls": 15_302,
        "failures": 3,
        "p50_seconds": 0.000_21,
        "p99_seconds": 0.012,
        "bytes_in": 1,
        "bytes_out": 1,
        "connections": 0,
    }
    return {
        "plugin": name,
        "version": "1.4.0",
        "state": "ready",
        "cause": None,
        "health": {
            "status": "healthy",
            "message": "nothing is wrong with it",
            "since": "2026-01-31T12:00:00+00:00",
        },
        "quarantine": None,
        "lacking": [],
        "pid": pid,
        "digest": "ab" * 32,
        "layers": 15,
        "operations": ["predict", "train"],
        "permissions": {"publish": ["model_updated"], "read": ["/srv/weather"], "threads": True},
        "memory_limit_bytes": 512 * MIB,
        "dossier": None,
        "usage": usage,
        **more,
    }


NOTHING = "and there is no plugin or capability of that name."


def document() -> dict[str, Any]:
    failed = plugin(
        "tide_source",
        4_800,
        state="failed",
        cause="memory",
        quarantine="it ended 5 times within 60 s.",
        dossier="/var/lib/sandbox-host/dossiers/x",
    )
    return {
        "service": {
            "pid": 4_700,
            "version": "0.1.0",
            "phase": "running",
            "started": "2026-01-02T03:04:05Z",
            "uptime_seconds": 273_900.0,
            "watchdog": True,
            "plugin_directory": "/srv/plugins",
            "watching": "notices",
            "restarts": True,
            "clients": 1,
        },
        "plugins": [
            plugin("weather_model", 4_712, receipt=receipt_document(receipt())),
            failed,
            plugin(
                "a_plugin_with_a_name_that_is_long_beyond_reason",
                4_801,
                state="draining",
                lacking=[f"a_plugin needs tides >= 2, {NOTHING}"],
            ),
        ],
        "waiting": [
            {
                "plugin": "report",
                "path": "/srv/plugins/report",
                "reason": "report cannot start: report -> harbour -> tides: harbour needs tides, "
                f"{NOTHING} Load what it needs together with it, or before it.",
            }
        ],
        "problems": [
            {"path": "/srv/plugins/unsigned", "reason": "the bundle carries no signature."}
        ],
    }


def later() -> dict[str, Any]:
    """Return the same, two seconds on."""
    after = copy.deepcopy(document())
    after["service"]["uptime_seconds"] += 2
    after["plugins"][0]["usage"] |= {"cpu_seconds": 12.6, "calls": 15_352}
    after["plugins"][2]["usage"] |= {"cpu_seconds": 14.1, "calls": 15_303, "failures": 4}
    after["plugins"][1]["pid"] = 5_000  # another process: nothing to compare with
    return after


def crowd(number: int, *, seconds: float = 0.0) -> dict[str, Any]:
    """Return a service with so many plugins, each as busy as its number says."""
    told = document()
    told["problems"], told["waiting"] = [], []
    told["service"]["uptime_seconds"] += seconds
    told["plugins"] = [plugin(f"plugin_{n:04}", 5_000 + n) for n in range(number)]
    for n, one in enumerate(told["plugins"]):
        one["usage"] |= {"cpu_seconds": 1.0 + n * seconds / 2_000, "calls": 100 + n}
    return told


def top_of(number: int) -> None:
    print_top(crowd(number, seconds=2), crowd(number), 20)


DRAW = {
    "status": lambda: print_status(document()),
    "status-of-0": lambda: print_status(crowd(0)),
    "status-of-1": lambda: print_status(crowd(1)),
    "status-of-20": lambda: print_status(crowd(20)),
    "top": lambda: print_top(later(), document(), 20),
    "top-of-0": lambda: top_of(0),
    "top-of-1": lambda: top_of(1),
    "top-of-20": lambda: top_of(20),
    "top-of-1000": lambda: top_of(1_000),
    "plugin": lambda: print_one(document()["plugins"][0]),
    "receipt": lambda: print_receipt(receipt_of(receipt_document(receipt()))),
}


@pytest.mark.parametrize("columns", [80, 160])
@pytest.mark.parametrize("name", DRAW)
def test_a_screen(
    name: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    DRAW[name]()
    out, err = capsys.readouterr()
    drawn = "\n".join(line.rstrip() for line in (out + err).splitlines()) + "\n"
    picture = SCREENS / f"{name}-{columns}.txt"
    if os.environ.get("SCREENS") == "write":
        picture.write_text(drawn, encoding="utf-8")
    assert drawn == picture.read_text(encoding="utf-8")
    assert "\x1b" not in drawn
    assert max(map(len, out.splitlines())) <= columns


def test_a_receipt_survives_the_way_over_the_socket() -> None:
    assert receipt_of(receipt_document(receipt())) == receipt()


def test_the_first_look_has_no_rates(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    print_top(document(), None, 20)
    row = next(line for line in capsys.readouterr().out.splitlines() if "weather_model" in line)
    assert row.split().count("-") == 3


def test_the_busiest_of_many_are_shown_and_the_others_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    top_of(1_000)
    out = capsys.readouterr().out
    shown = [line.split()[0] for line in out.splitlines() if line.startswith("plugin_")]
    assert shown == [f"plugin_{n:04}" for n in range(999, 979, -1)]
    assert "left out: 980 plugins, less busy" in out
    print_top(crowd(20, seconds=2), None, 20)
    assert "left out" not in capsys.readouterr().out
    # At the first look nothing is known of now: who used most in all its life.
    print_top(crowd(3, seconds=2), None, 1)
    assert "plugin_0002" in capsys.readouterr().out


def test_a_status_of_many_fits_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    told = crowd(1_000)
    for one in told["plugins"]:
        one["receipt"] = receipt_document(receipt())
    assert codec.unpack(codec.pack(told, ANSWER), ANSWER) == told
    print_status(told)
    out = capsys.readouterr().out
    assert "1000 plugins: 1000 ready" in out
    assert len([line for line in out.splitlines() if line.startswith("plugin_")]) == 1_000


TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
HOSTILE = {
    "clears": "x\x1b[2J\x1b[H",
    "moves up": "x\x1b[99A\rroot",
    "one byte": "x\x9b2J",
    "sets the title": "\x1b]0;owned\x07",
    "line breaks": "x\r\nplugin ready\x85\u2028y\x0b\x0c",
    "backspaces": "x\b\b\b\x7f",
    "turns round": "x\u202egnp.exe\u2066",
    "markup": "[bold red]x[/] [link=file:///]y[/link]",
    "tabs": "x\ty",
    "half a character": "x\udc9b",
}


def hostile(text: str) -> dict[str, Any]:
    """Return a service all of whose texts are that."""
    told = document()
    told["service"] |= {"plugin_directory": text, "version": text, "phase": text}
    told["problems"] = [{"path": text, "reason": text}]
    told["waiting"] = [{"plugin": text, "path": text, "reason": text}]
    bad = dict.fromkeys(("plugin", "version", "state", "cause", "digest", "dossier"), text)
    told["plugins"][0] |= bad | {
        "lacking": [text],
        "operations": [text],
        "permissions": {"read": [text]},
    }
    told["plugins"][1] |= {"plugin": text, "quarantine": text, "dossier": text, "state": "failed"}
    said = told["plugins"][0]["receipt"]
    said["plugin"] = text
    for entry in said["layers"]:
        entry |= {"detail": text, "remedy": text}
    for entry in said["guarantees"]:
        entry["detail"] = text
    for entry in (*said["limits"], *said["permissions"]):
        entry |= {"name": text, "value": text, "mechanism": text}
    return told


@pytest.mark.parametrize("columns", [80, 160])
@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_plugin_says_does_nothing_to_the_terminal(
    name: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    told = hostile(HOSTILE[name])
    print_status(told)
    print_one(told["plugins"][0])
    print_top(told, None, 20)
    out, err = capsys.readouterr()
    kinds = {unicodedata.category(c) for c in (out + err).replace("\n", "")}
    assert not kinds & {"Cc", "Cs", "Zl", "Zp"}  # controls, surrogates, separators of lines
    assert not {unicodedata.bidirectional(c) for c in out + err} & TURNS
    assert not any(line.startswith("plugin ready") for line in out.splitlines())
    if name == "markup":
        assert "[bold" in out


class Terminal(io.StringIO):
    """Standard output that is a terminal."""

    def isatty(self) -> bool:
        return True


_COLOUR = re.compile(r"\x1b\[[0-9;]*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[0-9;]*m")


@pytest.mark.parametrize("term", ["dumb", "xterm-256color"])
@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_needs_no_colour(
    term: str, no_color: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words are the same as without a terminal; nothing is told by colour alone."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys, "stdout", Terminal())
    print_status(document())
    print_top(later(), document(), 20)
    print_one(document()["plugins"][0])
    drawn = sys.stdout.getvalue()  # type: ignore[attr-defined]
    assert not _COLOUR.search(drawn)
    assert ("\x1b" in drawn) == (term != "dumb")  # bold headings
    plain = re.sub(r"\x1b\[[0-9;]*m", "", drawn)
    assert "\x1b" not in plain
    pictures = [(SCREENS / f"{name}-80.txt").read_text() for name in ("status", "top", "plugin")]
    words = [line for text in pictures for line in text.splitlines() if "note: " not in line]
    assert [line.rstrip() for line in plain.splitlines()] == words


def test_all_is_well_or_not() -> None:
    told = document()
    assert not is_well(told)
    told["problems"] = []
    assert not is_well(told)
    told["waiting"] = []
    assert not is_well(told)
    told["plugins"][1] |= {"state": "ready", "quarantine": None}
    assert is_well(told)
    told["service"]["watchdog"] = False
    assert not is_well(told)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3_700, "1 h 1 min"), (273_900, "3 d 4 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.000_21, "0.21 ms"), (0.012, "12 ms"), (1.5, "1500 ms")]
)
def test_milliseconds(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text


def test_who_is_not_well_is_told_with_the_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    told = document()
    told["problems"], told["waiting"], told["plugins"] = [], [], told["plugins"][:1]
    told["plugins"][0]["health"] |= {"status": "degraded", "message": "90% of its \x1b[2Jmemory"}
    print_status(told)
    out, err = capsys.readouterr()
    assert "ready, degraded" in out
    assert "weather_model is degraded since" in out + err
    assert "90% of its" in out + err
    assert "\x1b" not in out + err
    assert is_well(told)
    told["plugins"][0]["health"]["status"] = "unhealthy"
    assert not is_well(told)
    told["plugins"][0]["health"] = None
    print_one(told["plugins"][0])
    assert "not known yet" in capsys.readouterr().out
