"""Reads a bundle in a process of its own, which the kernel allows little CPU time.

``python -m tests.support.frugal PATH`` does with it what precedes a signature's check, and what
follows it, and prints as JSON why it was refused, and how much memory that took. With the path of a
trust store behind it, the command `verify` does all of it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
CPU_SECONDS = 3
"""Ten times what any refusal takes, interpreter and all; the kernel ends what takes more."""


@dataclass(frozen=True)
class Refusal:
    """How a bundle was refused: the error's class and text, "" for none, and the cost.

    Attributes:
        peak_bytes: the most that the whole process had in memory, interpreter and all.
        grown_bytes: by how much more that is than before it began.
    """

    error: str
    text: str
    peak_bytes: int
    grown_bytes: int


def refusal_of(path: Path, *trust_store: Path) -> Refusal:
    """Have a bundle read in a process of its own, by the command `verify` with a trust store."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.frugal", *map(str, (path, *trust_store))],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    return Refusal(**json.loads(done.stdout))


def peak_bytes() -> int:
    """Return this process's largest resident set; `getrusage` has its parent's, before `exec`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel tells no VmHWM")


def main(path: Path) -> None:
    """Read it, check its files, parse its envelope."""
    from sandbox_host.bundle.envelope import parse_envelope
    from sandbox_host.bundle.rules import check_contents
    from sandbox_host.bundle.source import read_bundle
    from sandbox_host.errors import RefusedError

    before = peak_bytes()
    error, text = "", ""
    try:
        contents = read_bundle(path)
        if contents.envelope is not None:
            parse_envelope(contents.envelope)
        check_contents(contents.files)
    except RefusedError as refused:
        error, text = type(refused).__name__, str(refused)
    after = peak_bytes()
    told = {"error": error, "text": text, "peak_bytes": after, "grown_bytes": after - before}
    print(json.dumps(told))


def command(path: str, trust_store: str) -> None:
    """Have `verify` tell what it is."""
    from sandbox_host.cli import main as run

    before = peak_bytes()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = run(["verify", path, "--trust-store", trust_store])
    after = peak_bytes()
    told = {"error": str(code), "text": said.getvalue(), "peak_bytes": after}
    print(json.dumps({**told, "grown_bytes": after - before}))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    if len(sys.argv) > 2:
        command(*sys.argv[1:])
    else:
        main(Path(sys.argv[1]))
