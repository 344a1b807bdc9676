"""Run one target under a coverage-guided fuzzer, which is no dependency of the project.

    python -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install atheris -r requirements.lock
    /tmp/fuzz/bin/python -m tests.fuzz.run connection /tmp/fuzz-corpus -max_total_time=600

The first argument is the target, the second a directory for what is found; the rest goes to the
fuzzer. An input that fails is written to `crash-…`: it belongs into a test, and into `corpus/`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris  # type: ignore[import-not-found]  # of the fuzzer's own environment

with atheris.instrument_imports(include=["plugin_sdk", "sandbox_host", "tests.fuzz"]):
    from tests.fuzz import host_readings, targets


def main() -> None:
    """Seed the directory with what is kept, and fuzz."""
    target, found = sys.argv[1], Path(sys.argv[2])
    found.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(targets.kept(target)):
        (found / f"kept-{number}").write_bytes(data)
    sys.argv[1:] = [str(found), *sys.argv[3:]]
    atheris.Setup(sys.argv, targets.TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    assert host_readings.READERS  # imported here, to be instrumented
    main()
