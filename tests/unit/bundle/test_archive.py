"""One reading of an archive, or none: every way in which two readers could differ is refused."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from pathlib import Path

import pytest

from sandbox_host.bundle import ENVELOPE_NAME, ReadLimits
from sandbox_host.bundle import archive as room
from sandbox_host.bundle.archive import read_archive, read_manifest
from sandbox_host.errors import BundleError
from tests.support.archives import Entry, bomb, crafted, many, packed, write, zip64

FILES = {"__init__.py": b"", "plugin.json": b"{}", "sub/deep/data.bin": bytes(range(256)) * 40}


def refused(directory: Path, data: bytes, limits: ReadLimits | None = None) -> str:
    path = write(directory, data)
    with pytest.raises(BundleError) as caught:
        read_archive(path, limits)
    text = str(caught.value)
    assert text.isascii()
    assert text.isprintable()
    return text


@pytest.mark.parametrize("compress", [False, True], ids=["stored", "deflated"])
@pytest.mark.parametrize("envelope", [None, b"signed"], ids=["unsigned", "signed"])
def test_what_was_packed_comes_out(tmp_path: Path, envelope: bytes | None, compress: bool) -> None:
    path = write(tmp_path, packed(FILES, envelope, compress=compress))
    contents = read_archive(path)
    assert dict(contents.files) == FILES
    assert list(contents.files) == sorted(FILES)
    assert contents.envelope == envelope
    assert contents.origin == str(path)
    with pytest.raises(TypeError):
        contents.files["new"] = b""  # type: ignore[index]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_of_another_program_is_read_where_it_is_plain(
    tmp_path: Path, method: int
) -> None:
    path = tmp_path / "other.plugin"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in {**FILES, "données.csv": b"1;2"}.items():
            archive.writestr(name, content)
    assert dict(read_archive(path).files) == {**FILES, "données.csv": b"1;2"}


A = Entry(b"a.py", b"print(1)\n" * 20)
B = Entry(b"b.py", b"pass\n")
DEFLATED = Entry(b"c.py", b"x = 1\n" * 100, deflate=True)

CASES = {
    # -- the end record
    "nothing": (b"", "is not a plugin's archive"),
    "text": (b"[tool]\nname = 1\n" * 10, "is not a plugin's archive"),
    "a comment": (crafted(A, comment=b"hello"), "is not a plugin's archive"),
    "a comment's length only": (crafted(A, comment_length=2), "is not a plugin's archive"),
    "bytes after the end": (crafted(A, after=b"\0" * 22), "is not a plugin's archive"),
    "an end record in a comment": (
        crafted(A, comment=crafted(B)),
        "before its first file",
    ),
    "bytes before the first file": (crafted(A, before=b"#!/bin/sh\n"), "leaves a gap"),
    "a stub before, offsets of the rest": (b"MZ" + crafted(A), "before its first file"),
    "bytes before the central directory": (crafted(A, between=b"\0"), "between its last file"),
    "bytes behind the central directory": (crafted(A, behind_central=b"\0"), "around its central"),
    "a second disk": (crafted(A, disk=1), "several disks"),
    "the directory on a second disk": (crafted(A, central_disk=1), "several disks"),
    "fewer entries here": (crafted(A, B, here=1), "several disks"),
    "zip64 by the count": (zip64(3), "uses zip64"),
    "zip64 by the offset": (crafted(A, offset=0xFFFFFFFF), "uses zip64"),
    "more entries than there are": (crafted(A, here=2, entries=2), "cannot hold 2 files"),
    "one entry more": (
        crafted(Entry(b"a" * 60), here=2, entries=2),
        "claims 2 files, and its central directory has fewer",
    ),
    "fewer entries than there are": (crafted(A, B, here=1, entries=1), "has more"),
    "no entries but a directory": (crafted(A, here=0, entries=0), "cannot hold 0 files"),
    # -- what both headers say
    "encrypted": (crafted(Entry(b"a.py", both={"flags": 1})), "is encrypted"),
    "strongly encrypted": (crafted(Entry(b"a.py", both={"flags": 0x41})), "is encrypted"),
    "masked headers": (crafted(Entry(b"a.py", both={"flags": 0x2000})), "is encrypted"),
    "a data descriptor": (crafted(Entry(b"a.py", both={"flags": 8})), "data descriptor"),
    "patched data": (crafted(Entry(b"a.py", both={"flags": 0x20})), "flags that are not taken"),
    "an unknown method": (crafted(Entry(b"a.py", both={"method": 12})), "by method 12"),
    "a later version": (crafted(Entry(b"a.py", both={"needed": 45})), "later version"),
    "extra fields": (crafted(Entry(b"a.py", extra=b"up\0\0")), "has extra fields"),
    "zip64 sizes": (crafted(Entry(b"a.py", both={"size": 0xFFFFFFFF})), "uses zip64"),
    "two sizes of a stored file": (crafted(Entry(b"a.py", b"xx", both={"size": 1})), "two differ"),
    # -- what the central header says alone
    "a file's comment": (crafted(Entry(b"a.py", comment=b"hi")), "has a comment"),
    "another disk": (crafted(Entry(b"a.py", tail={"disk": 1})), "another disk"),
    "zip64's disk": (crafted(Entry(b"a.py", tail={"disk": 0xFFFF})), "uses zip64"),
    "a symbolic link": (
        crafted(Entry(b"a.py", b"/etc/passwd", tail={"external": (stat.S_IFLNK | 0o777) << 16})),
        "is a symbolic link",
    ),
    "a FIFO": (
        crafted(Entry(b"a.py", tail={"external": (stat.S_IFIFO | 0o644) << 16})),
        "is not a regular file",
    ),
    "setuid": (
        crafted(Entry(b"a.py", tail={"external": (stat.S_IFREG | 0o4755) << 16})),
        "somebody else's rights",
    ),
    "a directory by attribute": (crafted(Entry(b"a.py", tail={"external": 0x10})), "attributes"),
    "a reparse point": (crafted(Entry(b"a.py", tail={"external": 0x400})), "attributes"),
    "made on VMS": (crafted(Entry(b"a.py", made_by=2 << 8)), "a system of kind 2"),
    # Info-ZIP's unzip makes "a+\u00ae.py" of it.
    "a name of MS-DOS, in UTF-8": (
        crafted(Entry("a\u00e9.py".encode(), both={"flags": 0x0800}, made_by=20)),
        "packed as on MS-DOS",
    ),
    # -- the two headers against each other
    "another name": (crafted(Entry(b"a.py", local_name=b"b.py")), "another name in its local"),
    **{
        f"another {name}": (
            crafted(Entry(b"a.py", b"x", local={name: value})),
            f"one {name} in its local header and another",
        )
        for name, value in {
            "needed": 10,
            "flags": 0x800,
            "method": 8,
            "time": 1,
            "date": 1,
            "crc": 1,
            "packed": 2,
            "size": 2,
            "name_length": 3,
            "extra_length": 4,
        }.items()
    },
    # -- where the files lie
    "overlapping files": (crafted(A, Entry(b"b.py", tail={"offset": -40})), "overlaps"),
    "a gap": (crafted(Entry(b"a.py", behind=b"hidden"), B), "leaves a gap"),
    "a hidden file": (crafted(A, B, DEFLATED, central_order=(0, 2), here=2, entries=2), "a gap"),
    "another order": (crafted(A, B, central_order=(1, 0)), "out of order"),
    "one file under two names": (
        crafted(A, B, central_order=(0, 0)),
        "is there twice",
    ),
    "no local header": (
        crafted(Entry(b"a.py")).replace(b"PK\x03\x04", b"PK\x03\x05"),
        "no local header",
    ),
    "no central header": (
        crafted(Entry(b"a.py")).replace(b"PK\x01\x02", b"PK\x01\x03"),
        "no central header where that of file 1",
    ),
    "a name beyond the directory": (
        crafted(Entry(b"a.py", both={"name_length": 9})),
        "has a name that ends behind the central directory",
    ),
    "data into the directory": (
        crafted(Entry(b"a.py", b"x", both={"packed": 9, "size": 9})),
        "reaches into the central directory",
    ),
    # -- names
    "twice": (crafted(A, A), "is there twice"),
    "twins": (crafted(A, Entry(b"A.py")), "one name on a file system"),
    "a file and a directory": (crafted(A, Entry(b"a.py/x")), "both a file and a directory"),
    "traversal": (crafted(Entry(b"../up.py")), "'.' or '..'"),
    "traversal in the middle": (crafted(Entry(b"a/../../up.py")), "'.' or '..'"),
    "absolute": (crafted(Entry(b"/etc/cron.d/x")), "empty"),
    "a drive": (crafted(Entry(b"c:/x.py")), "not every platform"),
    "backslashes": (crafted(Entry(b"..\\up.py")), "not every platform"),
    "a NUL": (crafted(Entry(b"a.py\0.txt")), "control"),
    "no name": (crafted(Entry(b"")), "cannot hold 1 files"),
    "a directory": (crafted(Entry(b"sub/")), "is a directory"),
    "not UTF-8": (crafted(Entry(b"\xff.py", both={"flags": 0x800})), "not valid UTF-8"),
    "code page 437": (crafted(Entry("é.py".encode(), both={"flags": 0})), "not marked as UTF-8"),
    "byte code": (crafted(Entry(b"main.pyc")), "byte-code cache"),
    "a second envelope": (crafted(Entry(b"sub/plugin.dsse.json")), "name of the signed envelope"),
    # -- data
    "a wrong checksum": (crafted(Entry(b"a.py", b"x", both={"crc": 1})), "the checksum"),
    "a wrong checksum inside": (
        crafted(Entry(b"a.py", b"x", deflate=True, both={"crc": 1})),
        "the checksum",
    ),
    "more than it claims": (
        crafted(Entry(b"a.py", b"x" * 100, deflate=True, both={"size": 99})),
        "inflates to more than the 99 bytes",
    ),
    "less than it claims": (
        crafted(Entry(b"a.py", b"x" * 100, deflate=True, both={"size": 101})),
        "inflates to fewer than the 101 bytes",
    ),
    "an unfinished stream": (
        crafted(
            Entry(b"a.py", b"x" * 9, deflate=True, data=zlib.compress(b"x" * 9, wbits=-15)[:-1])
        ),
        "fewer than the 9 bytes",
    ),
    "data behind the stream": (
        crafted(Entry(b"a.py", b"x", deflate=True, data=zlib.compress(b"x", wbits=-15) + b"evil")),
        "behind the end of its compressed stream",
    ),
    "much data behind the stream": (
        crafted(
            Entry(b"a.py", b"x", deflate=True, data=zlib.compress(b"x", wbits=-15) + bytes(200_000))
        ),
        "behind the end of its compressed stream",
    ),
    "no stream": (crafted(Entry(b"a.py", b"x", deflate=True, data=b"\xff\xff")), "cannot be read"),
    # -- bombs
    "a bomb that says so": (bomb(size=1 << 24), "that is a bomb"),
    "a bomb that lies": (
        bomb(claimed=1_000_000, size=1 << 24),
        "inflates to more than the 1000000",
    ),
    "many files": (many(5_000), "claims 5000 files, more than the 2000"),
}


@pytest.mark.parametrize(("data", "words"), CASES.values(), ids=CASES.keys())
def test_what_another_reader_might_take_otherwise_is_refused(
    tmp_path: Path, data: bytes, words: str
) -> None:
    assert words in refused(tmp_path, data)


def test_the_parts_of_the_cases_are_good_themselves(tmp_path: Path) -> None:
    contents = read_archive(write(tmp_path, crafted(A, B, DEFLATED)))
    assert list(contents.files) == ["a.py", "b.py", "c.py"]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (ReadLimits(files=2), "one file more than the 2"),
        (ReadLimits(files=1), "claims 3 files, more than the 1"),
        (ReadLimits(directories=1), "one directory more than 1"),
        (ReadLimits(depth=2), "deeper than 2 levels"),
        (ReadLimits(file_bytes=10_239), "has 10 KiB, more than the 10.0 KiB"),
        (ReadLimits(total_bytes=10_241), "over the 10.0 KiB"),
        (ReadLimits(total_bytes=0, envelope_bytes=0, files=0), "more than the 2.1 KiB allowed"),
    ],
    ids=["files", "entries", "directories", "depth", "file", "total", "archive"],
)
def test_limits_hold(tmp_path: Path, limits: ReadLimits, words: str) -> None:
    assert words in refused(tmp_path, packed(FILES), limits)


def test_limits_that_are_just_enough(tmp_path: Path) -> None:
    path = write(tmp_path, packed(FILES, b"x" * 11))
    exact = ReadLimits(3, 2, 3, 10_240, 10_242, 11)
    assert dict(read_archive(path, exact).files) == FILES
    assert read_archive(path, exact).envelope == b"x" * 11
    less = ReadLimits(3, 2, 3, 10_240, 10_242, 10)
    with pytest.raises(BundleError, match=f"'{ENVELOPE_NAME}' in .* has 11 B, more than the 10 B"):
        read_archive(path, less)


def test_a_lying_bomb_is_not_inflated_further_than_it_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    real = zlib.decompressobj

    class Counting:
        def __init__(self, bits: int) -> None:
            self._inner = real(bits)

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

        def decompress(self, data: bytes, most: int) -> bytes:
            out = self._inner.decompress(data, most)
            made.append(len(out))
            return out

    monkeypatch.setattr(room.zlib, "decompressobj", Counting)
    refused(tmp_path, bomb(claimed=1_000_000, size=1 << 24))
    assert sum(made) == 1_000_001
    assert max(made) <= 64 * 1024 + 1


def test_all_headers_are_checked_before_any_data_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = room._Archive.content

    def content(self: room._Archive, member: room.Member) -> bytes:
        read.append(member.path)
        return real(self, member)

    monkeypatch.setattr(room._Archive, "content", content)
    refused(tmp_path, crafted(A, B, Entry(b"z.py", both={"flags": 1})))
    refused(tmp_path, crafted(A, B, Entry(b"z.py", local={"crc": 1})))
    assert read == []


# -- the file itself -----------------------------------------------------------------------------


def test_a_link_to_an_archive_is_refused(tmp_path: Path) -> None:
    real = write(tmp_path, packed(FILES))
    (tmp_path / "link").symlink_to(real)
    with pytest.raises(BundleError, match="is a symbolic link"):
        read_archive(tmp_path / "link")


def test_a_fifo_does_not_hold_us_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BundleError, match="neither a directory nor a regular file"):
        read_archive(tmp_path / "fifo")


def test_a_file_swapped_for_a_fifo_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, packed(FILES))
    real = os.lstat

    def look(name: object) -> os.stat_result:
        status = real(name)  # type: ignore[arg-type]
        if path.is_file():
            path.unlink()
            os.mkfifo(path)
        return status

    monkeypatch.setattr(room.os, "lstat", look)
    with pytest.raises(BundleError, match="is not a regular file"):
        read_archive(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be opened: No such file"):
        read_archive(tmp_path / "missing")


@pytest.mark.parametrize("change", ["longer", "shorter", "rewritten"])
def test_an_archive_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    data = packed(FILES)
    path = write(tmp_path, data)
    os.utime(path, (1, 1))  # the clock of the file system may be too coarse for one test
    real = room._Archive.content

    def content(self: room._Archive, member: room.Member) -> bytes:
        path.write_bytes({"longer": data + b"x", "shorter": data[:50], "rewritten": data}[change])
        return real(self, member)

    monkeypatch.setattr(room._Archive, "content", content)
    with pytest.raises(BundleError, match="changed while it was read"):
        read_archive(path)


def test_reading_opens_no_descriptor_for_good(tmp_path: Path) -> None:
    path = write(tmp_path, packed(FILES))
    before = set(os.listdir("/proc/self/fd"))
    read_archive(path)
    refused(tmp_path, crafted(A, A))
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_disk_that_fails_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, packed(FILES))

    def broken(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(room.os, "pread", broken)
    with pytest.raises(BundleError, match="cannot be read: Input/output error"):
        read_archive(path)


# -- plugin.json alone ---------------------------------------------------------------------------


def manifest_in(path: Path, most: int = 100) -> bytes | None:
    with path.open("rb") as file:
        return read_manifest(file.fileno(), path.name, most)


def test_the_manifest_is_read_alone(tmp_path: Path) -> None:
    broken = Entry(b"z.py", b"x", both={"crc": 1})
    path = write(tmp_path, crafted(Entry(b"plugin.json", b"{}", deflate=True), broken))
    assert manifest_in(path) == b"{}"
    assert manifest_in(write(tmp_path, crafted(A))) is None


def test_a_manifest_has_a_limit_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, crafted(Entry(b"plugin.json", b"{}" * 51)))
    with pytest.raises(
        BundleError, match=r"'plugin\.json' in 'sample\.plugin' has more than 100 B"
    ):
        manifest_in(path)
