"""A receipt's tables: readable in 80 columns, and nothing in them that a terminal would obey."""

from __future__ import annotations

import pytest

from sandbox_host.cli.tables import enforced_rows, guarantee_rows, layer_rows, print_receipt
from sandbox_host.guarantees import standing
from sandbox_host.model import (
    Enforced,
    Guarantee,
    Layer,
    LayerReport,
    LayerStatus,
    Limits,
    Receipt,
)
from sandbox_host.runtime.receipt import with_watchdog


def receipt(detail: str = "read back") -> Receipt:
    off = {Layer.OWN_ROOT, Layer.LANDLOCK}
    layers = tuple(
        LayerReport(layer, LayerStatus.DISABLED, "by configuration")
        if layer in off
        else LayerReport(layer, LayerStatus.ACTIVE, detail)
        for layer in Layer
        if layer is not Layer.WATCHDOG
    )
    permissions = (
        Enforced("read", "/srv/weather", "own-root, landlock"),
        Enforced("read", "/srv/tides", "own-root, landlock"),
        Enforced("native_code", "no", "seccomp"),
    )
    limits = (Enforced("memory_bytes", "512 MiB", "memory.max"),)
    return with_watchdog(Receipt("sample", 7, layers, (), limits, permissions), Limits(), 0.02)


def test_rows_of_guarantees() -> None:
    rows = guarantee_rows(standing(set(Layer) - {Layer.SECCOMP}))
    assert [row[0] for row in rows] == list(Guarantee)
    assert ("programs", "unavailable", "would take seccomp") in rows
    assert ("files", "active", "own-root, landlock") in rows


def test_rows_of_layers_have_the_remedy() -> None:
    missing = LayerReport(Layer.CGROUP, LayerStatus.UNAVAILABLE, "none is writable", "Delegate one")
    assert layer_rows([missing]) == [("cgroup", "unavailable", "none is writable. Delegate one")]


@pytest.mark.parametrize("detail", ["none is writable", "none is writable."])
def test_one_full_stop_before_the_remedy(detail: str) -> None:
    for remedy, told in (("Delegate one.", "none is writable. Delegate one."), ("", detail)):
        report = LayerReport(Layer.CGROUP, LayerStatus.UNAVAILABLE, detail, remedy)
        assert layer_rows([report])[0][2] == told


def test_a_limit_has_the_name_of_plugin_json_and_stands_once() -> None:
    assert enforced_rows(receipt().limits)[:3] == [
        ("memory", "512 MiB", "memory.max"),
        ("", "512 MiB", "watchdog, every 20 ms"),
        ("cpu_time", "60 s an operation", "watchdog, every 20 ms"),
    ]
    assert [row[0] for row in enforced_rows(receipt().permissions)] == ["read", "", "native_code"]


@pytest.mark.parametrize("columns", ["80", "100"])
def test_a_receipt(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    print_receipt(receipt("x" * 200 + " \x1b[2J"))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    lines = out.splitlines()
    assert lines[0] == "sample: process 7, confined by"
    assert max(map(len, lines)) <= int(columns)
    headings = [line.split() for line in lines if line[:1].isupper()]
    assert headings == [
        ["GUARANTEE", "STATUS", "BY"],
        ["LAYER", "STATUS", "READ", "BACK"],
        ["LIMIT", "VALUE", "ENFORCED", "BY"],
        ["PERMISSION", "VALUE", "ENFORCED", "BY"],
    ]
    words = [line.split() for line in lines]
    assert ["files", "unavailable", "would", "take", "own-root,", "or", "landlock"] in words
    assert ["landlock", "disabled", "by", "configuration"] in words
    assert ["/srv/tides", "own-root,", "landlock"] in words


def test_what_a_receipt_does_not_have_has_no_heading(capsys: pytest.CaptureFixture[str]) -> None:
    print_receipt(Receipt("sample", 7, ()))
    assert capsys.readouterr().out == "sample: process 7, confined by\n"
