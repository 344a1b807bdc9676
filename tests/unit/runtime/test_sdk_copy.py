"""The copy that plugins' processes import: byte code is taken only where it must be ours."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import sys
from pathlib import Path

import pytest

from sandbox_host.runtime import sdk_copy
from sandbox_host.runtime.sdk_copy import copy_sdk, installed_bytecode

SOURCE = b"value = 'of the source'\n"
EVIL = b"value = 'of somebody else'\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "installed").mkdir(mode=0o755)
    path = tmp_path / "installed" / "module.py"
    path.write_bytes(SOURCE)
    py_compile.compile(str(path), invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)
    return path


def cached(source: Path) -> Path:
    return Path(importlib.util.cache_from_source(str(source), optimization=""))


def test_what_was_compiled_of_this_source_is_taken(source: Path) -> None:
    assert installed_bytecode(source, SOURCE) == cached(source).read_bytes()[16:]


def _of_another_size(source: Path) -> None:
    source.write_bytes(SOURCE + b"\n")


def _of_another_time(source: Path) -> None:
    os.utime(source, (1, 1))


def _of_another_interpreter(source: Path) -> None:
    data = cached(source).read_bytes()
    cached(source).write_bytes(b"\0\0\r\n" + data[4:])


def _by_hash(source: Path) -> None:
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(source), invalidation_mode=mode)


def _cut(source: Path) -> None:
    cached(source).write_bytes(cached(source).read_bytes()[:10])


def _link(source: Path) -> None:
    other = source.with_name("other.pyc")
    cached(source).rename(other)
    cached(source).symlink_to(other)


def _gone(source: Path) -> None:
    cached(source).unlink()


def _writable_for_all(source: Path) -> None:
    cached(source).chmod(0o666)


def _in_a_directory_that_is(source: Path) -> None:
    cached(source).parent.chmod(0o777)


@pytest.mark.parametrize(
    "change",
    [
        *(_of_another_size, _of_another_time, _of_another_interpreter, _by_hash, _cut, _link),
        *(_gone, _writable_for_all, _in_a_directory_that_is),
    ],
    ids=lambda change: change.__name__.strip("_"),
)
def test_anything_else_is_not(source: Path, change: object) -> None:
    assert callable(change)
    change(source)
    assert installed_bytecode(source, source.read_bytes()) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("which", ["file", "directory"])
def test_what_another_user_owns_is_not(source: Path, which: str) -> None:
    os.chown(cached(source) if which == "file" else cached(source).parent, 65_534, -1)
    assert installed_bytecode(source, SOURCE) is None


def loaded(copy: Path) -> object:
    spec = importlib.util.spec_from_file_location("copied", copy)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.value


def test_a_poisoned_entry_reaches_no_copy(source: Path, tmp_path: Path) -> None:
    """Of the same size and time, as the import system would take it; but others could write it."""
    evil = source.with_name("evil.py")
    evil.write_bytes(EVIL)
    py_compile.compile(str(evil), cfile=str(cached(source)))
    good = cached(source).read_bytes()
    times = int(source.stat().st_mtime).to_bytes(4, "little") + len(SOURCE).to_bytes(4, "little")
    cached(source).write_bytes(good[:8] + times + good[16:])
    copy = tmp_path / "copy" / "module.py"
    copy.parent.mkdir()
    copy.write_bytes(SOURCE)
    sdk_copy._add_bytecode(source, copy)
    assert loaded(copy) == "of somebody else"  # who may write there may write the sources as well
    cached(source).chmod(0o666)
    cached(copy).unlink()
    sdk_copy._add_bytecode(source, copy)
    assert loaded(copy) == "of the source"


@pytest.mark.parametrize("writes", [True, False])
def test_a_copy_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: bool) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", not writes)
    # Not beside the real sources, whatever is there.
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "cache"))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        copy_sdk(tmp_path / name)
        found = sorted((tmp_path / name / "plugin_sdk").rglob("*.py"))
        assert len(found) > 40
        assert not [path for path in found if path.stat().st_mode & 0o022]
