"""Measures everything, and writes one page, plots and the summaries: ``make bench``.

Run it with ``.venv/bin/python benchmarks/every.py [--quick] [--only NAME ...]``. Each file runs in
a process of its own, one after the other. What is written goes to ``benchmarks/results``; with
``--quick``, which takes less than three minutes and measures nothing well, to ``results/quick``.
With ``--only``, what was measured of the others before is kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import children  # beside this file, like the others
from frame import machine, progress
from report import page, plots_of

HERE = Path(__file__).resolve().parent
FILES = (
    *("roundtrip", "batch", "fanout", "payload", "start", "density"),
    *("growth", "noise", "reload", "verify", "lockdown", "sweep", "cpu_budget"),
)
MACHINE = "machine"
MOST_SECONDS = 900
"""For one file: it has hung."""


def measure(file: str, *, quick: bool) -> dict[str, Any]:
    """Run one file, and return what it has measured, or why it has not."""
    with tempfile.TemporaryDirectory() as directory:
        written = Path(directory) / "results.json"
        line = [sys.executable, str(HERE / f"{file}.py"), "--json", str(written)]
        began = time.monotonic()
        try:
            whole = [*line, "--quick"] if quick else line
            ended = subprocess.run(whole, check=False, timeout=MOST_SECONDS)
            failure = f"it ended with {ended.returncode}" if ended.returncode else ""
        except subprocess.TimeoutExpired:
            failure = f"it was not done after {MOST_SECONDS} s"
        progress(f"{file}: {time.monotonic() - began:.0f} s {failure}")
        if failure or not written.exists():
            return {"question": file, "failed": failure or "it has written nothing"}
        results: dict[str, Any] = json.loads(written.read_text())
        return results


def main() -> None:
    """Measure, and write everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few turns of each only")
    parser.add_argument("--only", nargs="+", choices=FILES, default=FILES, help="these alone")
    options = parser.parse_args()
    into = HERE / "results" / "quick" if options.quick else HERE / "results"
    into.mkdir(parents=True, exist_ok=True)
    for file in options.only:
        progress(f"-- {file}")
        write_json(into / f"{file}.json", measure(file, quick=options.quick))
    children.use_peers()  # for their versions
    write_json(into / f"{MACHINE}.json", machine())
    failed = write_page(into, quick=options.quick)
    raise SystemExit(f"failed: {', '.join(failed)}" if failed else 0)


def write_json(path: Path, value: object) -> None:
    """Write a value as text that a diff can show."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_page(into: Path, *, quick: bool) -> list[str]:
    """Write page and plots of what is there; return what failed."""
    whole: dict[str, dict[str, Any]] = {}
    for file in FILES:
        path = into / f"{file}.json"
        whole[file] = json.loads(path.read_text()) if path.exists() else {"failed": "never run"}
        for name, text in plots_of(file, whole[file]).items():
            (into / f"{name}.svg").write_text(text)
    facts = json.loads((into / f"{MACHINE}.json").read_text())
    (into / "README.md").write_text(page(whole, facts, quick=quick))
    return [file for file, results in whole.items() if "failed" in results]


if __name__ == "__main__":
    main()
