"""What does verification cost? Ours beside a bare SHA-256 walk, and the command beside Python.

Run it with ``.venv/bin/python benchmarks/verify.py [--rounds N]``. The ways take turns, so that the
machine's mood hits all alike; read the ratios, not the milliseconds. Bundles have 5, 200 and 2,000
files (a few kB, 2.6 MB and 65 MB). The walk reads every file and hashes it, and believes the names;
ours reads them by descriptor within limits, hashes, checks names, signature and statement, and
`stage` writes the private copy that a plugin runs from. Loads are the real thing: confined,
attested, imported; of the plugin with 200 files, which imports them all.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from signed import write_signed  # beside this file: it finds the rest

from sandbox_host import HostConfig, SandboxHost
from sandbox_host.bundle import stage
from sandbox_host.bundle.contents import Contents
from sandbox_host.bundle.keys import generate_key
from sandbox_host.bundle.sign import sign
from sandbox_host.bundle.source import read_bundle
from sandbox_host.bundle.stage import stage_source
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.trust_edit import add_key
from sandbox_host.bundle.verify import VerifiedBundle, verify
from sandbox_host.runtime import bytecode

SIZES = {5: 600, 200: 13_000, 2_000: 32_400}
"""Bytes of each file, by the number of files."""

SMALL_PLUGINS = 100

Way = Callable[[], object]
Times = dict[str, list[float]]

_FUNCTION = (
    "def f{n}(x, y={n}):\n    z = [x * {n} + i for i in range(y)]\n    return sum(z), 'é{n}'\n\n\n"
)


def source(size: int, seed: int) -> str:
    """Return about so many bytes of Python that compiles as people's does."""
    start = random.Random(seed).randrange(10**6)
    lines, length, number = [], 0, start
    while length < size:
        lines.append(_FUNCTION.format(n=number))
        length, number = length + len(lines[-1].encode()), number + 1
    return "".join(lines)


class Publisher:
    """Signs every plugin here with the one key that the trust store has: a key costs 2 ms to load.

    Args:
        directory: where everything goes.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = generate_key()
        self.trust_store = directory / "trust.toml"
        add_key(self.trust_store, self._key.public, "benchmark", plugins=("*",))

    def release(self, name: str, source: str, files: dict[str, str], where: str) -> Path:
        """Write and sign a plugin, and return its directory.

        Args:
            name: of the plugin.
            source: more of its ``__init__.py``.
            files: others, by path.
            where: the directory that it is in.
        """
        plain = write_signed(self._directory / "drafts", self._directory / "no", name, source)
        whole = {
            **read_bundle(plain).files,
            **{path: text.encode() for path, text in files.items()},
        }
        contents = Contents(whole, None, "benchmark")
        envelope = sign(contents, self._key, datetime.now(UTC))
        stage_source(contents, envelope, self._directory / where / name)
        return self._directory / where / name

    def large(self, files: int) -> Path:
        """Return a plugin of so many files that imports all of them."""
        modules = {f"m{n // 50}/m{n}.py": source(SIZES[files], n) for n in range(files - 2)}
        imports = (f"from .{path[:-3].replace('/', '.')} import *\n" for path in modules)
        return self.release(f"with_{files}_files", "".join(imports), modules, "large")


# -- one bundle -----------------------------------------------------------------------------------


def walk(directory: Path) -> str:
    """Read and hash every file, as simply as Python can."""
    digest = hashlib.sha256()
    for root, _, names in os.walk(directory):
        for name in names:
            with open(os.path.join(root, name), "rb") as file:
                digest.update(hashlib.sha256(file.read()).digest())
    return digest.hexdigest()


def take_turns(ways: dict[str, Way], rounds: int) -> Times:
    """Return the milliseconds of each way's turns; the first warms up and is not counted."""
    times: Times = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter_ns()
            way()
            if turn:
                times[name].append((time.perf_counter_ns() - start) / 1e6)
    return times


def report(title: str, times: Times) -> None:
    """Print a row per way, with ratios to the first."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    reference = next(iter(medians.values()))
    print(f"\n{title:46} {'median ms':>10} {'best ms':>10} {'ratio':>7}")
    for name, median in medians.items():
        print(f"{name:46} {median:10.2f} {min(times[name]):10.2f} {median / reference:7.2f}")


def measure_bundle(plugin: Path, trust: TrustStore, parent: Path, rounds: int) -> None:
    """Compare verifying and staging one bundle with walking it."""
    made: list[Path] = []

    def verified() -> VerifiedBundle:
        return verify(read_bundle(plugin), trust, datetime.now(UTC))

    def staged() -> None:
        made.append(stage.stage(verified(), parent))

    ways: dict[str, Way] = {
        "bare SHA-256 walk": lambda: walk(plugin),
        "read": lambda: read_bundle(plugin),
        "read and verify": verified,
        "read, verify and stage": staged,
    }
    try:
        times = take_turns(ways, rounds)
    finally:
        for package in made:
            stage.remove(package)
    contents = read_bundle(plugin)
    size = sum(map(len, contents.files.values()))
    report(f"{len(contents.files)} files, {size / 1e6:.2f} MB", times)


# -- the command ----------------------------------------------------------------------------------


def measure_command(publisher: Publisher, directory: Path, rounds: int) -> None:
    """Compare `verify` of many small plugins with starting an interpreter that does nothing."""
    for number in range(SMALL_PLUGINS):
        last = publisher.release(f"small_{number}", "", {"main.py": f"N = {number}\n"}, "small")
    environment = {**os.environ, "XDG_STATE_HOME": str(directory / "state")}
    # As where it is installed: the first turn compiles, and leaves nothing in the source tree.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPYCACHEPREFIX"] = str(directory / "pycache")

    def run(*words: object) -> Way:
        line = [sys.executable, *map(str, words)]
        return lambda: subprocess.run(line, check=True, stdout=subprocess.DEVNULL, env=environment)

    command = ("-m", "sandbox_host", "verify", "--trust-store", publisher.trust_store)
    ways = {
        "python -c pass": run("-c", "pass"),
        "sandbox-host --version": run("-m", "sandbox_host", "--version"),
        "sandbox-host verify, 1 plugin": run(*command, last),
        f"sandbox-host verify, {SMALL_PLUGINS} plugins": run(*command, last.parent),
    }
    report("the whole command", take_turns(ways, rounds))


# -- loading --------------------------------------------------------------------------------------


@contextmanager
def without_bytecode() -> Iterator[None]:
    """Have no byte code kept, so that the plugin compiles what it imports."""
    worth = bytecode.WORTH_BYTES
    bytecode.WORTH_BYTES = 1 << 40  # type: ignore[misc]
    try:
        yield
    finally:
        bytecode.WORTH_BYTES = worth  # type: ignore[misc]


def measure_loads(plugin: Path, trust_store: Path, directory: Path, rounds: int) -> None:
    """Compare loads of a large plugin with byte code that is kept and without."""
    config = HostConfig(trust_store=trust_store, state_dir=directory / "host")
    name = plugin.name
    with SandboxHost.blocking(config) as host:

        def load() -> None:
            host.load(plugin)

        def plain() -> None:
            with without_bytecode():
                load()

        times: Times = {}
        ways: dict[str, Way] = {
            "load, compiling all that it imports": plain,
            "load, with byte code that was kept": load,
        }
        start = time.perf_counter_ns()
        load()
        first = [(time.perf_counter_ns() - start) / 1e6]
        host.unload(name)
        for _ in range(rounds):
            for what, way in ways.items():
                start = time.perf_counter_ns()
                way()
                times.setdefault(what, []).append((time.perf_counter_ns() - start) / 1e6)
                host.unload(name)
        times["load, the first one: compiled to be kept"] = first
    report("a plugin of 200 files", times)


def main() -> None:
    """Measure everything, and print a table for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10, help="turns that each way takes")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        publisher = Publisher(directory)
        bundles = {files: publisher.large(files) for files in SIZES}
        trust = TrustStore.load(publisher.trust_store)
        parent = directory / "copies"
        parent.mkdir(mode=0o700)
        for plugin in bundles.values():
            measure_bundle(plugin, trust, parent, rounds)
        measure_command(publisher, directory, rounds)
        measure_loads(bundles[200], publisher.trust_store, directory, max(1, rounds // 2))


if __name__ == "__main__":
    main()
