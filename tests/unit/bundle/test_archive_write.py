"""The same files are the same bytes, and ordinary tools read them."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from sandbox_host.bundle import ENVELOPE_NAME
from sandbox_host.bundle.archive import read_archive
from sandbox_host.bundle.archive_write import archive_parts, write_archive
from sandbox_host.bundle.contents import Contents
from sandbox_host.bundle.reader import read_directory
from sandbox_host.errors import BundleError, ConfigError
from tests.support.archives import packed
from tests.support.bundles import write_files

FILES = {"plugin.json": b"{}", "__init__.py": b"", "données.csv": b"1;2", "sub/x.bin": bytes(4_000)}
CONTENTS = Contents(FILES, b"signed", "memory")

# Pinned: an archive that was published must come out again, from every version of this program.
DIGEST = "6cb325a12ece84753aee1772b725eb025e3404b4031d61666d9a1cd54037d12d"


def test_the_digest_of_an_archive_is_for_ever() -> None:
    assert hashlib.sha256(packed(FILES, b"signed")).hexdigest() == DIGEST


def test_neither_order_times_modes_nor_place_count(tmp_path: Path) -> None:
    here = write_files(tmp_path / "here", FILES)
    there = write_files(tmp_path / "far" / "there", dict(reversed(FILES.items())))
    for path in there.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    first = write_archive(read_directory(here), tmp_path / "1.plugin")
    second = write_archive(read_directory(there), tmp_path / "far" / "2.plugin")
    assert first == second
    data = (tmp_path / "1.plugin").read_bytes()
    assert data == (tmp_path / "far" / "2.plugin").read_bytes()
    assert (first.size, first.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_packing_what_was_unpacked_gives_the_same_bytes(tmp_path: Path) -> None:
    write_archive(CONTENTS, tmp_path / "1.plugin")
    write_archive(read_archive(tmp_path / "1.plugin"), tmp_path / "2.plugin")
    assert (tmp_path / "1.plugin").read_bytes() == (tmp_path / "2.plugin").read_bytes()


@pytest.mark.parametrize("compress", [False, True], ids=["stored", "deflated"])
def test_another_program_reads_it(tmp_path: Path, compress: bool) -> None:
    write_archive(CONTENTS, tmp_path / "1.plugin", compress=compress)
    with zipfile.ZipFile(tmp_path / "1.plugin") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted([*FILES, ENVELOPE_NAME])
        assert archive.read("données.csv") == b"1;2"
        assert archive.read(ENVELOPE_NAME) == b"signed"
        info = archive.getinfo("sub/x.bin")
        assert (info.date_time, info.external_attr) == ((1980, 1, 1, 0, 0, 0), 0o100644 << 16)


def test_only_what_shrinks_is_compressed_and_no_bomb_is_made(tmp_path: Path) -> None:
    files = {"text": b"hello " * 1_000, "short": b"x", "noise": os.urandom(4_000), "zero": b""}
    files["zeros"] = bytes(1 << 20)  # which deflate makes a thousandth of
    path = tmp_path / "1.plugin"
    write_archive(Contents(files, None, "memory"), path, compress=True)
    with zipfile.ZipFile(path) as archive:
        deflated = {one.filename for one in archive.infolist() if one.compress_type}
    assert deflated == {"text"}
    assert dict(read_archive(path).files) == files


@pytest.mark.parametrize("files", [{"../x": b""}, {"a": b"", "A": b""}], ids=["name", "twins"])
def test_nothing_is_packed_that_nobody_would_read(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(BundleError):
        list(archive_parts(Contents(files, None, "memory")))
    with pytest.raises(BundleError):
        write_archive(Contents(files, None, "memory"), tmp_path / "1.plugin")
    assert list(tmp_path.iterdir()) == []


def test_an_older_archive_is_replaced_in_one_step(tmp_path: Path) -> None:
    target = tmp_path / "1.plugin"
    target.write_bytes(b"old")
    with target.open("rb") as old:
        write_archive(CONTENTS, target)
        assert old.read() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["1.plugin"]
    assert read_archive(target).envelope == b"signed"


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        write_archive(CONTENTS, tmp_path / "missing" / "1.plugin")
    (tmp_path / "directory").mkdir()
    with pytest.raises(ConfigError, match="cannot be written: Is a directory"):
        write_archive(CONTENTS, tmp_path / "directory")
    assert [path.name for path in tmp_path.iterdir()] == ["directory"]
