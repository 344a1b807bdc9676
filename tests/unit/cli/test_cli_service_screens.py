"""The screens `status`, `top` and a receipt, as text at 80 and 160 columns, without colour.

The pictures are in ``screens/``; trailing spaces are left out there. To look at a changed one, run
the test with ``SCREENS=write`` in the environment, and read the difference.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest

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


DRAW = {
    "status": lambda: print_status(document()),
    "top": lambda: print_top(later(), document()),
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
    print_top(document(), None)
    row = next(line for line in capsys.readouterr().out.splitlines() if "weather_model" in line)
    assert row.split().count("-") == 3


def test_what_a_plugin_says_does_nothing_to_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = document()
    told["plugins"][0] |= {"plugin": "x\x1b[2J", "operations": ["\x1b]0;owned\x07"]}
    print_status(told)
    print_one(told["plugins"][0])
    out, err = capsys.readouterr()
    assert not {"\x1b", "\x07"} & set(out + err)


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
