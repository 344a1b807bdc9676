"""A large plugin starts without compiling anew; a poisoned entry reaches that plugin alone."""

from __future__ import annotations

import importlib.util
import marshal
from pathlib import Path

import pytest

from sandbox_host import BlockingPlugin, SandboxHost
from sandbox_host.bundle.archive import read_archive
from sandbox_host.bundle.archive_write import write_archive
from sandbox_host.bundle.contents import Contents
from sandbox_host.runtime import bytecode
from tests.support.host import Workshop

pytestmark = pytest.mark.needs

SOURCE = """
from . import helper

@operation
def answer():
    return helper.answer()

@operation
def compiled_here():
    import importlib._bootstrap_external as machinery
    calls = []
    real = machinery.SourceLoader.source_to_code
    machinery.SourceLoader.source_to_code = lambda *a, **k: calls.append(1) or real(*a, **k)
    from . import later
    return len(calls)

@operation
def where():
    return helper.answer.__code__.co_filename, helper.__file__

@operation
def poison():
    try:
        with open(helper.__cached__, "wb") as file:
            file.write(b"x")
    except OSError as error:
        return type(error).__name__
    return "written"
"""
FILES = {"helper.py": "def answer():\n    return 'of the source'\n", "later.py": "x = 1\n"}
EVIL = "def answer():\n    return 'of the poison'\n"


@pytest.fixture(autouse=True)
def small_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bytecode, "WORTH_BYTES", 1)


def entries(workshop: Workshop) -> list[Path]:
    return sorted((workshop.state_dir / "bytecode").iterdir())


def poisoned(entry: Path, *, everything: bool = False) -> None:
    """Have an entry say `EVIL` where the helper's byte code is, or under every source."""
    found = dict(read_archive(entry).files)
    evil = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)
    evil += marshal.dumps(compile(EVIL, "helper.py", "exec"))
    hit = [name for name, data in found.items() if everything or b"of the source" in data]
    assert hit
    write_archive(Contents({**found, **dict.fromkeys(hit, evil)}, None, "memory"), entry)


def test_the_second_start_compiles_nothing(workshop: Workshop) -> None:
    path = workshop.write(SOURCE, files=FILES)

    def loaded() -> BlockingPlugin:
        return host.load(path)

    for _ in range(2):
        with SandboxHost.blocking(workshop.config()) as host:
            plugin = loaded()
            assert plugin.call("answer") == "of the source"
            assert plugin.call("compiled_here") == 0
            compiled_for, loaded_from = plugin.call("where")
            assert compiled_for == loaded_from
            assert plugin.call("poison") in ("OSError", "PermissionError")
    assert len(entries(workshop)) == 1


def test_without_it_a_start_compiles(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: `compiled_here` can tell."""
    monkeypatch.setattr(bytecode, "WORTH_BYTES", 1 << 40)
    with SandboxHost.blocking(workshop.config()) as host:
        assert host.load(workshop.write(SOURCE, files=FILES)).call("compiled_here") == 1
    assert not (workshop.state_dir / "bytecode").exists()


def test_a_poisoned_entry_reaches_that_plugin_alone(workshop: Workshop) -> None:
    first = workshop.write(SOURCE, files=FILES, name="first")
    second = workshop.write(SOURCE, files=FILES, name="second")
    with SandboxHost.blocking(workshop.config()) as host:
        host.load(first)
    (entry,) = entries(workshop)
    poisoned(entry)
    with SandboxHost.blocking(workshop.config()) as host:
        # That it works there shows that an entry is believed; the second has the same sources.
        assert host.load(first).call("answer") == "of the poison"
        assert host.load(second).call("answer") == "of the source"


def test_a_new_release_has_an_entry_of_its_own(workshop: Workshop) -> None:
    first = workshop.write(SOURCE, files=FILES, version="1.0.0")
    with SandboxHost.blocking(workshop.config()) as host:
        host.load(first)
    poisoned(entries(workshop)[0])
    with SandboxHost.blocking(workshop.config()) as host:
        second = host.load(workshop.write(SOURCE, files=FILES, version="1.0.1"))
        assert second.call("answer") == "of the source"
    assert len(entries(workshop)) == 2


@pytest.mark.parametrize(
    "source",
    ["def", "x = " + "(" * 100_000, "x = " + "-" * 200_000 + "1", "# coding: no-such"],
    ids=["syntax", "brackets", "depth", "cookie"],
)
def test_a_source_that_the_compiler_fails_on_harms_nobody(workshop: Workshop, source: str) -> None:
    """It is compiled by a confined process, and not imported: the plugin need not use it."""
    path = workshop.write(SOURCE, files={**FILES, "zzz.py": source})
    with SandboxHost.blocking(workshop.config()) as host:
        assert host.load(path).call("answer") == "of the source"


def test_a_damaged_entry_is_made_anew(workshop: Workshop) -> None:
    path = workshop.write(SOURCE, files=FILES)
    with SandboxHost.blocking(workshop.config()) as host:
        host.load(path)
    (entry,) = entries(workshop)
    whole = read_archive(entry).files
    entry.write_bytes(entry.read_bytes()[:-30])
    with SandboxHost.blocking(workshop.config()) as host:
        assert host.load(path).call("compiled_here") == 0
    assert set(read_archive(entry).files) == set(whole)
