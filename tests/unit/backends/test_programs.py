"""What is executed when the interpreter is started, read from its header, and nothing else."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.backends.linux import programs as module
from sandbox_host.backends.linux.landlock import EXECUTE, READ_FILE, WRITE_FILE
from sandbox_host.backends.linux.mounts import NOEXEC, RDONLY, Mount
from sandbox_host.backends.linux.programs import loader_of, programs, with_programs
from sandbox_host.errors import ConfinementError
from sandbox_host.runtime.launch import base_python

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SEGMENT = struct.Struct("<IIQQQQQQ")
MAGIC = b"\x7fELF\x02\x01\x01" + bytes(9)


def elf(*segments: tuple[int, bytes], magic: bytes = MAGIC, entry: int = 56) -> bytes:
    """Return a file with these segments, by type and content, and no sections."""
    table = HEADER.pack(magic, 3, 62, 1, 0, 64, 0, 0, 64, entry, len(segments), 0, 0, 0)
    at = 64 + 56 * len(segments)
    body = b""
    for kind, content in segments:
        table += SEGMENT.pack(kind, 4, at + len(body), 0, 0, len(content), len(content), 1)
        body += content
    return table + body


def read_loader(data: bytes) -> str:
    return loader_of(data[:64], lambda at, size: data[at : at + size])


def test_loader_that_is_named() -> None:
    assert read_loader(elf((1, b"code"), (3, b"/lib/ld.so\0"))) == "/lib/ld.so"


def test_static_program_has_none() -> None:
    assert read_loader(elf((1, b"code"))) == ""
    assert read_loader(elf()) == ""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"#!/bin/sh\nexec python\n" + bytes(64),
        elf(magic=b"\x7fELF\x01\x01\x01" + bytes(9)),  # of 32 bits
        elf((3, b"/x\0"), entry=32),
        elf((3, b"/x\0"))[:100],
    ],
    ids=["empty", "script", "32 bits", "other entries", "cut short"],
)
def test_what_is_no_program(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"ELF|elf|short"):
        read_loader(data)


@given(st.binary(max_size=300), st.integers(0, 2**64 - 1), st.integers(0, 2**16 - 1))
def test_any_bytes_are_read_or_refused(rest: bytes, table: int, count: int) -> None:
    header = HEADER.pack(MAGIC, 3, 62, 1, 0, table, 0, 0, 64, 56, count, 0, 0, 0)
    sizes: list[int] = []

    def read(at: int, size: int) -> bytes:
        sizes.append(size)
        return (header + rest)[at : at + size] if at < 10_000 else b""

    with contextlib.suppress(ValueError):
        assert isinstance(loader_of(header, read), str)
    assert all(size <= 4_096 for size in sizes)
    assert len(sizes) <= 257


def test_what_this_interpreter_takes() -> None:
    found = programs(base_python())
    assert os.path.samefile(found.interpreter, os.path.realpath(sys.executable))
    assert os.path.realpath(found.interpreter) == found.interpreter
    if found.loader:
        assert os.path.realpath(found.loader) == found.loader
        # The loader says so itself, when it is asked to look at the interpreter.
        command = [found.loader, "--verify", found.interpreter]
        assert subprocess.run(command, check=False, timeout=20).returncode == 0


def test_rules_are_for_these_files_and_for_nothing_but_executing() -> None:
    for place in programs(base_python()).places():
        assert not place.is_directory
        assert place.rights == EXECUTE | READ_FILE
        assert not place.rights & WRITE_FILE
        assert os.path.isfile(place.path)


def test_interpreter_is_mounted_read_only_and_may_be_executed() -> None:
    before = (Mount("bind", "/usr", RDONLY), Mount("bind", "/a/b/c/d/e/f/g/h/i", RDONLY))
    mounts = with_programs(before, base_python())
    (mount,) = set(mounts) - set(before)
    assert mount.path == programs(base_python()).interpreter
    assert mount.flags & RDONLY
    assert not mount.flags & NOEXEC
    depths = [one.path.count("/") for one in mounts]
    assert depths == sorted(depths)


def test_interpreter_that_is_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python3"
    script.write_text("#!/bin/sh\nexec python3.11\n" + " " * 64)
    with pytest.raises(ConfinementError, match="no ELF file") as caught:
        programs(script)
    assert "HostConfig(python=" in caught.value.remedy
    nowhere: Any = lambda *_: "/nowhere/ld.so"  # noqa: E731 - shorter here
    monkeypatch.setattr(module, "loader_of", nowhere)
    with pytest.raises(ConfinementError, match=r"/nowhere/ld\.so is not among"):
        programs.__wrapped__(base_python())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("hard", "pattern"), [(0, "core"), (1, "|/a/program"), (-1, "|/a/program")], ids=str
)
def test_core_dumps_that_start_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hard: int, pattern: str
) -> None:
    (tmp_path / "core_pattern").write_text(pattern)
    monkeypatch.setattr(module, "_CORE_PATTERN", tmp_path / "core_pattern")
    module.check_core_dumps(hard)


@pytest.mark.parametrize("pattern", ["|/a/program", None], ids=["piped", "unknown"])
def test_core_dumps_that_start_a_program_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str | None
) -> None:
    if pattern is not None:
        (tmp_path / "core_pattern").write_text(pattern)
    monkeypatch.setattr(module, "_CORE_PATTERN", tmp_path / "core_pattern")
    with pytest.raises(ConfinementError, match="hands core dumps to a program"):
        module.check_core_dumps(0)
