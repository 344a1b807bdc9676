"""Byte code is kept by bundle and interpreter, bounded, and given to nobody else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sandbox_host.runtime import bytecode_store as room
from sandbox_host.runtime.bytecode_store import BytecodeStore

ROOT = "a" * 64
PYTHON = "0123456789abcdef"
FILES = {f"{'1' * 64}.cpython-311": b"one", f"{'2' * 64}.cpython-311.opt-1": b"two"}


@pytest.fixture
def store(tmp_path: Path) -> BytecodeStore:
    return BytecodeStore(tmp_path / "bytecode")


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "bytecode").iterdir())


def test_what_was_put_is_got(store: BytecodeStore, tmp_path: Path) -> None:
    assert store.get(ROOT, PYTHON) is None
    assert not (tmp_path / "bytecode").exists()
    store.put(ROOT, PYTHON, FILES)
    assert dict(store.get(ROOT, PYTHON) or {}) == FILES
    (name,) = names(tmp_path)
    assert stat.S_IMODE((tmp_path / "bytecode").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "bytecode" / name).stat().st_mode) == 0o600


def test_another_bundle_or_interpreter_has_its_own(store: BytecodeStore) -> None:
    store.put(ROOT, PYTHON, FILES)
    assert store.get("b" * 64, PYTHON) is None
    assert store.get(ROOT, "f" * 16) is None


def test_that_nothing_could_be_compiled_is_kept_too(store: BytecodeStore) -> None:
    store.put(ROOT, PYTHON, {})
    assert store.get(ROOT, PYTHON) == {}


@pytest.mark.parametrize(
    "name",
    [
        "1" * 63 + ".cpython-311",
        "1" * 64,
        "1" * 64 + ".",
        "../x",
        "G" * 64 + ".c-1",
        "1" * 64 + "./",
    ],
)
def test_names_that_are_none_are_left_out(store: BytecodeStore, name: str) -> None:
    store.put(ROOT, PYTHON, {**FILES, name: b"x"})
    assert dict(store.get(ROOT, PYTHON) or {}) == FILES


def test_an_entry_is_bounded(store: BytecodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_ENTRY_BYTES", 5)
    store.put(ROOT, PYTHON, {**FILES, f"{'3' * 64}.cpython-311": b"x" * 6})
    assert dict(store.get(ROOT, PYTHON) or {}) == dict(list(FILES.items())[:1])


def _fill(store: BytecodeStore, directory: Path) -> None:
    for number, letter in enumerate("abc"):
        store.put(letter * 64, PYTHON, FILES)
        (path,) = directory.glob(f"{letter * 64}-*")
        os.utime(path, (number, number))


def test_the_least_recently_used_goes_first(
    store: BytecodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(store, tmp_path / "bytecode")
    store.get("a" * 64, PYTHON)  # used just now
    monkeypatch.setattr(room, "MAX_ENTRIES", 3)
    store.put("d" * 64, PYTHON, FILES)
    assert [name[0] for name in names(tmp_path)] == ["a", "c", "d"]


def test_the_store_is_bounded_in_bytes(
    store: BytecodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(store, tmp_path / "bytecode")
    size = next((tmp_path / "bytecode").iterdir()).stat().st_size
    monkeypatch.setattr(room, "MAX_STORE_BYTES", 2 * size)
    (tmp_path / "bytecode" / ".left-half-written.tmp").write_bytes(b"x")
    os.utime(tmp_path / "bytecode" / ".left-half-written.tmp", (0, 0))
    store.put("d" * 64, PYTHON, FILES)
    assert [name[0] for name in names(tmp_path)] == ["c", "d"]


@pytest.mark.parametrize("damage", [b"", b"x" * 100], ids=["empty", "text"])
def test_a_damaged_entry_is_none(store: BytecodeStore, tmp_path: Path, damage: bytes) -> None:
    store.put(ROOT, PYTHON, FILES)
    (path,) = (tmp_path / "bytecode").iterdir()
    path.write_bytes(damage)
    assert store.get(ROOT, PYTHON) is None
    assert names(tmp_path) == []


def test_one_flipped_bit_is_damage(store: BytecodeStore, tmp_path: Path) -> None:
    store.put(ROOT, PYTHON, FILES)
    (path,) = (tmp_path / "bytecode").iterdir()
    path.write_bytes(path.read_bytes().replace(b"one", b"onf"))
    assert store.get(ROOT, PYTHON) is None


def test_a_link_is_not_followed(store: BytecodeStore, tmp_path: Path) -> None:
    store.put(ROOT, PYTHON, FILES)
    (path,) = (tmp_path / "bytecode").iterdir()
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert store.get(ROOT, PYTHON) is None
    assert (tmp_path / "elsewhere").exists()


def test_a_directory_that_others_can_write_is_not_used(
    store: BytecodeStore, tmp_path: Path
) -> None:
    store.put(ROOT, PYTHON, FILES)
    (tmp_path / "bytecode").chmod(0o777)
    with pytest.raises(OSError, match="can be written by others"):
        store.get(ROOT, PYTHON)
    with pytest.raises(OSError, match="can be written by others"):
        store.put(ROOT, PYTHON, FILES)
