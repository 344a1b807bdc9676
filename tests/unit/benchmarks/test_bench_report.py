from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Bench = Callable[[str], ModuleType]
BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def _row(name: str, p50: float, ratio: float = 1.0, p99: float | None = None) -> dict[str, Any]:
    row = {"name": name, "ratio": ratio, "p50": p50, "least": p50, "most": p50}
    return row if p99 is None else {**row, "p99": p99}


def _results(**tables: list[dict[str, Any]]) -> dict[str, Any]:
    whole = {
        key.replace("_", "-"): {"title": key, "unit": "µs", "base": "a", "places": 1, "rows": rows}
        for key, rows in tables.items()
    }
    return {"question": "?", "tables": whole, "series": {}, "facts": {}, "remarks": []}


def _judged(bench: Bench, whole: dict[str, Any], what: str) -> tuple[str, str]:
    row = next(row for row in bench("targets").judged(whole) if row[0] == what)
    return row[2], row[3]


@pytest.mark.parametrize(("ours", "so"), [(4.0, "yes"), (4.1, "no")], ids=["reached", "missed"])
def test_the_round_trip_is_judged_by_the_quicker_c(bench: Bench, ours: float, so: str) -> None:
    peers, names = bench("peers"), bench("ours")
    rows = [_row(peers.C_BLOCKING, 2.0), _row(peers.C_YIELDING, 5.0), _row(names.OURS, ours)]
    reached = _judged(bench, {"roundtrip": _results(roundtrip=rows)}, "round trip, 32 B, p50")
    assert reached == (f"{ours / 2:.3g}", so)


def test_large_payloads_are_judged_by_the_worst(bench: Bench) -> None:
    ours, ratios = bench("ours").OURS, {1 << 20: 9.0, 4 << 20: 7.5, 16 << 20: 12.0}
    tables = {f"echo_{size}": [_row(ours, 1.0, ratio)] for size, ratio in ratios.items()}
    whole = {"payload": _results(**tables)}
    assert _judged(bench, whole, "echo of 1 to 16 MiB, the worst") == ("7.5", "no")


def test_a_thousand_that_were_not_alive_prove_nothing(bench: Bench) -> None:
    density = _results(calls_1=[_row(bench("density").ONE, 1.0)])
    density["facts"]["plugins alive"] = 30.0
    what = "a call with 1,000 alive, by one with 1"
    assert _judged(bench, {"density": density}, what) == ("not so many were alive", "not measured")
    assert _judged(bench, {"density": density}, "plugins alive in one host") == ("30", "no")


def test_what_is_missing_is_told_with_its_reason(bench: Bench) -> None:
    ours = bench("ours").OURS
    whole = {"roundtrip": _results(roundtrip=[_row("C over a pipe", 2.0)])}
    whole["roundtrip"]["tables"]["roundtrip"]["rows"].append({"name": ours, "missing": "no cgroup"})
    rows = {row[0]: row for row in bench("targets").judged(whole)}
    assert rows["round trip, 32 B, p50"][2:] == (f"{ours}: no cgroup", "not measured")
    assert all(row[3] == "not measured" for row in rows.values())


def test_no_target_is_judged_by_nothing(bench: Bench) -> None:
    assert {row[3] for row in bench("targets").judged({})} == {"not measured"}


def test_the_page_tells_tables_failures_and_plots(bench: Bench) -> None:
    good = _results(work=[_row("a|b <i>", 1.0), {"name": "c", "missing": "not installed"}])
    line = {"title": "Growth", "x": "n", "y": "ms", "lines": {"a": [[1, 1]]}}
    good["series"] = {"history": line, "nothing": {**line, "lines": {}}}
    whole = {"growth": good, "noise": {"question": "noise", "failed": "it ended with 1"}}
    page = bench("report").page(whole, {"cpu": "a CPU"}, quick=True)
    assert "| 1.00× | a\\|b &lt;i> | 1.0 | - | 1.0 to 1.0 |" in page
    assert "| - | c | not there: not installed |  |  |" in page
    assert "It failed: it ended with 1" in page
    assert "| cpu | a CPU |" in page
    assert "short run" in page
    assert "](growth-history.svg)" in page
    assert "growth-nothing.svg" not in page
    assert list(bench("report").plots_of("growth", good)) == ["growth-history"]


@pytest.mark.parametrize("quick", [True, False])
def test_files_run_one_after_the_other_and_what_fails_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quick: bool
) -> None:
    every, given = bench("every"), []

    def run(line: list[str], **_: Any) -> Any:
        given.append(line[1:])
        if "noise" not in line[1]:
            Path(line[3]).write_text(json.dumps(_results(work=[_row("a", 1.0)])))
        return every.subprocess.CompletedProcess(line, int("noise" in line[1]))

    monkeypatch.setattr(every.subprocess, "run", run)
    monkeypatch.setattr(every, "HERE", tmp_path)
    monkeypatch.setattr("sys.argv", ["every.py", *(["--quick"] if quick else [])])
    with pytest.raises(SystemExit, match="failed: noise"):
        every.main()
    assert [Path(line[0]).stem for line in given] == list(every.FILES)
    assert all(("--quick" in line) == quick for line in given)
    into = tmp_path / "results" / "quick" if quick else tmp_path / "results"
    assert "It failed: it ended with 1" in (into / "README.md").read_text()
    assert json.loads((into / "roundtrip.json").read_text())["question"] == "?"


def test_every_file_has_the_options_and_tells_its_results(bench: Bench) -> None:
    for file in bench("every").FILES:
        tree = ast.parse((BENCHMARKS / f"{file}.py").read_text())
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert {"options_of", "results.tell"} <= called, file
