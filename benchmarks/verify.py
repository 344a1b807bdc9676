"""What does verification cost? Ours beside a bare SHA-256 walk, and the command beside Python.

Run it with ``.venv/bin/python benchmarks/verify.py [--rounds N] [--quick]``. The ways take turns,
so that the machine's mood hits all alike; read the ratios, not the milliseconds. Bundles have 5,
200 and 2,000 files (a few kB, 2.6 MB and 65 MB). The walk reads every file and hashes it, and
believes the names; ours reads them by descriptor within limits, hashes, checks names, signature and
statement, and `stage` writes the private copy that a plugin runs from. Loads are the real thing:
confined, attested, imported; of the plugin with 200 files, which imports them all.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from frame import Results, Table, Turn, clock_ms, options_of, take_turns  # beside this file
from signed import write_signed  # it finds the rest

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


def compare(table: Table, ways: dict[str, Way], rounds: int) -> None:
    """Put into a table how many milliseconds each way takes."""
    timed: dict[str, Turn] = {
        name: lambda way=way: [clock_ms(way)]  # type: ignore[misc]
        for name, way in ways.items()
    }
    take_turns(table, timed, rounds)


def measure_bundle(
    results: Results, plugin: Path, trust: TrustStore, parent: Path, rounds: int
) -> None:
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
    contents = read_bundle(plugin)
    size, count = sum(map(len, contents.files.values())), len(contents.files)
    title = f"{count} files, {size / 1e6:.2f} MB"
    table = results.table(f"files-{count}", title, "ms", "bare SHA-256 walk", places=2)
    try:
        compare(table, ways, rounds)
    finally:
        for package in made:
            stage.remove(package)


# -- the command ----------------------------------------------------------------------------------


def measure_command(results: Results, publisher: Publisher, directory: Path, rounds: int) -> None:
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
    table = results.table("command", "the whole command", "ms", "python -c pass", places=2)
    compare(table, ways, rounds)


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


def measure_loads(
    results: Results, plugin: Path, trust_store: Path, directory: Path, rounds: int
) -> None:
    """Compare loads of a large plugin with byte code that is kept and without."""
    config = HostConfig(trust_store=trust_store, state_dir=directory / "host")
    name = plugin.name
    with SandboxHost.blocking(config) as host:

        def load() -> None:
            host.load(plugin)

        def plain() -> None:
            with without_bytecode():
                load()

        compiling = "load, compiling all that it imports"
        table = results.table("loads", "a plugin of 200 files", "ms", compiling, places=2)
        first = clock_ms(load)
        host.unload(name)

        def timed(way: Way) -> list[float]:
            took = clock_ms(way)
            host.unload(name)
            return [took]

        ways: dict[str, Turn] = {
            compiling: lambda: timed(plain),
            "load, with byte code that was kept": lambda: timed(load),
        }
        take_turns(table, ways, rounds)
        table.add("load, the first one: compiled to be kept", [first])


def main() -> None:
    """Measure everything, and print a table for each."""
    options = options_of(__doc__, rounds=(10, 1, "turns that each way takes"))
    rounds, results = options.rounds, Results("What does verification cost?")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        publisher = Publisher(directory)
        bundles = {files: publisher.large(files) for files in SIZES}
        trust = TrustStore.load(publisher.trust_store)
        parent = directory / "copies"
        parent.mkdir(mode=0o700)
        for plugin in bundles.values():
            measure_bundle(results, plugin, trust, parent, rounds)
        measure_command(results, publisher, directory, rounds)
        loads = max(1, rounds // 2)
        measure_loads(results, bundles[200], publisher.trust_store, directory, loads)
    results.tell(options.json)


if __name__ == "__main__":
    main()
