"""Signed archives of which two readers could see two things, or that are not what was signed."""

from __future__ import annotations

import dataclasses
import gzip
import io
import os
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

import pytest

from sandbox_host.bundle.contents import ENVELOPE_NAME, Contents
from sandbox_host.errors import (
    BundleError,
    SandboxHostError,
    UnsignedError,
    UntrustedError,
    VerificationError,
)
from tests.support.archives import Entry, crafted, many, packed, zeros, zip64
from tests.support.bundles import make_key, signed_contents
from tests.support.forgeries import KEY, signed_as
from tests.support.tampering import EVIL, FILES, GOOD, HELPER, Bench, Case, Tamper, named, sampled

pytestmark = pytest.mark.timeout(60)

assert GOOD.envelope is not None
MEMBERS: Final = {**GOOD.files, ENVELOPE_NAME: GOOD.envelope}
BAD, TAMPERED = BundleError, VerificationError


def archive(data: bytes) -> Tamper:
    """Judge an archive of these bytes."""

    def do(bench: Bench) -> Path:
        bench.archive.write_bytes(data)
        return bench.archive

    return do


def entries(**changes: Any) -> list[Entry]:
    """Return the signed plugin, with fields of the entry ``helper.py`` changed."""
    found = [Entry(name.encode(), data) for name, data in sorted(MEMBERS.items())]
    index = next(i for i, entry in enumerate(found) if entry.name == b"helper.py")
    found[index] = dataclasses.replace(found[index], **changes)
    return found


def case(name: str, error: type[SandboxHostError], words: str, /, **changes: Any) -> Case:
    """Return the case of one entry that is changed."""
    return Case(name, archive(crafted(*entries(**changes))), error, words)


def whole(name: str, words: str, **options: Any) -> Case:
    """Return the case of an archive with bytes or numbers where none belong."""
    return Case(name, archive(crafted(*entries(), **options)), BAD, words)


def beside(name: str, error: type[SandboxHostError], words: str, *more: Entry) -> Case:
    """Return the case of one with more entries."""
    return Case(name, archive(crafted(*entries(), *more)), error, words)


def bytes_of(name: str, error: type[SandboxHostError], words: str, data: bytes) -> Case:
    return Case(name, archive(data), error, words)


def of(name: str, error: type[SandboxHostError], words: str, contents: Contents) -> Case:
    """Return the case of a well-formed archive of other contents."""
    return bytes_of(name, error, words, packed(contents.files, contents.envelope))


def unix(mode: int) -> dict[str, int]:
    return {"external": mode << 16}


def ordered(*order: int) -> list[Entry]:
    found = entries()
    return [found[index] for index in order]


def hidden() -> bytes:
    """Return an archive with a file that only its local header tells of."""
    evil = Entry(b"helper.py", EVIL.encode())
    number = len(entries())
    order = tuple(range(number))
    return crafted(*entries(), evil, central_order=order, here=number, entries=number)


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as made:
        made.addfile(tarfile.TarInfo("plugin.json"), io.BytesIO())
    return buffer.getvalue()


def by_others(method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name, data in MEMBERS.items():
            made.writestr(name, data)
    return buffer.getvalue()


def _link(bench: Bench) -> Path:
    bench.archive.write_bytes(PACKED)
    link = bench.archive.with_name("link.plugin")
    link.symlink_to(bench.archive)
    return link


def _fifo(bench: Bench) -> Path:
    os.mkfifo(bench.archive)
    return bench.archive


def _anywhere(bench: Bench) -> Path:
    path = bench.archive.with_name("of any name")
    path.write_bytes(PACKED)
    return path


PACKED: Final = packed(GOOD.files, GOOD.envelope)
MORE: Final = signed_contents(KEY, {**FILES, "données/à.csv": "1;2"})
WITHOUT: Final = {name: data for name, data in GOOD.files.items() if name != "helper.py"}
DEFLATED: Final = zlib.compress(HELPER.encode(), wbits=-15)

CONTENTS: Final = [
    case("one letter", TAMPERED, "'helper.py' was changed", content=EVIL.encode()),
    case("one letter, deflated", TAMPERED, "'helper.py' was", content=EVIL.encode(), deflate=True),
    case("renamed", TAMPERED, "was renamed to 'x.py'", name=b"x.py"),
    beside("added", TAMPERED, "'x.py' was added", Entry(b"x.py", EVIL.encode())),
    of("removed", TAMPERED, "'helper.py' was removed", Contents(WITHOUT, GOOD.envelope, "")),
    of("unsigned", UnsignedError, "holds no plugin.dsse.json", Contents(GOOD.files, None, "")),
    of("of a stranger", UntrustedError, make_key(9).key_id, signed_contents(make_key(9), FILES)),
    beside("with byte code", BAD, "byte-code", Entry(b"x.pyc")),
    of("with native code", BAD, "a shared", signed_as({**GOOD.files, "x.so": b""})),
    beside("with an envelope below", BAD, "one file at", Entry(b"data/plugin.dsse.json")),
    beside("with another's case", BAD, "are one name", Entry(b"HELPER.py")),
    beside("with a file for a directory", BAD, "both a file and a directory", Entry(b"data")),
]

TWO_READINGS: Final = [
    beside("twice, the evil last", BAD, "is there twice", Entry(b"helper.py", EVIL.encode())),
    Case(
        "twice, the evil first",
        archive(crafted(Entry(b"helper.py", EVIL.encode()), *entries())),
        BAD,
        "is there twice",
    ),
    beside("the envelope twice", BAD, "is there twice", Entry(ENVELOPE_NAME.encode(), b"{}")),
    bytes_of("hidden from the directory", BAD, "between its last file", hidden()),
    case("hidden behind a file", BAD, "leaves a gap", behind=crafted(Entry(b"x.py"))),
    case("another name below", BAD, "another name in its local", local_name=b"evilr.py"),
    *(
        case(f"another {field} below", BAD, f"one {field} in its local header", local={field: n})
        for field, n in {"crc": 1, "packed": 1, "size": 1, "method": 8, "flags": 0x800}.items()
    ),
    case("another's data", BAD, "is out of order", at=0),
    case("overlapping", BAD, "is out of order", tail={"offset": -5}),
    whole("another order", "is out of order", central_order=(1, 0, 2, 3, 4, 5)),
    whole("one archive in another's comment", "before its first file", comment=PACKED),
    whole("a comment", "is not a plugin's archive", comment=b"hello"),
    whole("a program in front", "leaves a gap", before=b"#!/bin/sh\nexec evil\n"),
    bytes_of("a stub in front", BAD, "before its first file", b"MZ" + crafted(*entries())),
    whole("bytes behind", "is not a plugin's archive", after=b"\0"),
    bytes_of("another archive behind", BAD, "before its first file", PACKED + PACKED),
    whole("bytes before the directory", "between its last file", between=b"\0"),
    whole("bytes behind the directory", "around its central", behind_central=b"\0"),
    whole("fewer files than there are", "has more", here=5, entries=5),
    whole("more files than there are", "has fewer", here=7, entries=7),
    whole("several disks", "several disks", disk=1),
    bytes_of("zip64", BAD, "uses zip64", zip64(1_000_000)),
]

HEADERS: Final = [
    case("encrypted", BAD, "is encrypted", both={"flags": 1}),
    case("a data descriptor", BAD, "data descriptor", both={"flags": 8}),
    case("an unknown method", BAD, "by method 12", both={"method": 12}),
    case("extra fields", BAD, "has extra fields", extra=b"up\x05\0\x01\0\0\0\0"),
    case("a file's comment", BAD, "has a comment", comment=b"x"),
    case("a link", BAD, "is a symbolic link", tail=unix(stat.S_IFLNK | 0o777)),
    case("a device", BAD, "is not a regular file", tail=unix(stat.S_IFCHR | 0o666)),
    case("setuid", BAD, "somebody else's rights", tail=unix(stat.S_IFREG | 0o4755)),
    case("a directory", BAD, "by its attributes", tail={"external": 0x10}),
    case("from VMS", BAD, "a system of kind 2", made_by=2 << 8),
    beside("an entry that is a directory", BAD, "is a directory", Entry(b"new/")),
]

NAMES: Final = [
    beside(f"the name {name!r}", BAD, words, Entry(name))
    for name, words in {
        b"../evil.py": "is refused",
        b"/etc/evil": "is refused",
        b"a//b.py": "is refused",
        b"data/../../x": "is refused",
        b"..\\evil.py": "not every platform",
        b"C:\\evil.py": "not every platform",
        b"\xff.py": "not valid UTF-8",
        b"a\0.py": "a control",
        b"": "is refused",
    }.items()
]

DATA: Final = [
    case("another checksum", BAD, "the checksum", both={"crc": 1}),
    case("more than it says", BAD, "inflates to more", deflate=True, both={"size": 9}),
    case("less than it says", BAD, "inflates to fewer", deflate=True, both={"size": 99}),
    case("behind the stream", BAD, "behind the end", deflate=True, data=DEFLATED + EVIL.encode()),
    case("an unfinished stream", BAD, "fewer", deflate=True, data=DEFLATED[:-2]),
    case("no stream", BAD, "cannot be read", deflate=True, data=b"\xff\xff\xff"),
    case(
        "a bomb", BAD, "that is a bomb", deflate=True, data=zeros(1 << 24), both={"size": 1 << 24}
    ),
    case(
        "a lying bomb",
        BAD,
        "more than the 900 bytes",
        deflate=True,
        data=zeros(1 << 24),
        both={"size": 900},
    ),
    bytes_of("too many", BAD, "claims 5000 files", many(5_000)),
]

NO_ARCHIVES: Final = [
    bytes_of("nothing", BAD, "is not a plugin's archive", b""),
    bytes_of("text", BAD, "is not a plugin's archive", b"[plugin]\n" * 20),
    bytes_of("cut", BAD, "is not a plugin's archive", PACKED[:-5]),
    bytes_of("the second half", BAD, "before its first file", PACKED[len(PACKED) // 2 :]),
    bytes_of("compressed once more", BAD, "is not a plugin's archive", gzip.compress(PACKED)),
    bytes_of("another kind", BAD, "is not a plugin's archive", tar()),
    Case("a link to one", _link, BAD, "is a symbolic link"),
    Case("a FIFO", _fifo, BAD, "neither a directory nor a regular file"),
]

CONTROLS: Final = [
    Case("untouched", archive(PACKED)),
    Case("compressed", archive(packed(GOOD.files, GOOD.envelope, compress=True))),
    Case("crafted", archive(crafted(*entries()))),
    Case("in another order", archive(crafted(*ordered(3, 1, 5, 0, 2, 4)))),
    Case("one file deflated", archive(crafted(*entries(deflate=True)))),
    Case("another time", archive(crafted(*entries(both={"time": 7, "date": 0x5A21})))),
    Case("from MS-DOS", archive(crafted(*entries(made_by=20, tail={"external": 0x20})))),
    Case("executable", archive(crafted(*entries(tail=unix(stat.S_IFREG | 0o755))))),
    Case("by another program", archive(by_others(zipfile.ZIP_DEFLATED))),
    Case("by any name", _anywhere),
    Case("not ASCII", archive(packed(MORE.files, MORE.envelope))),
]


CASES = named([*CONTENTS, *TWO_READINGS, *HEADERS, *NAMES, *DATA, *NO_ARCHIVES, *CONTROLS])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_verify(bench: Bench, case: Case) -> None:
    bench.check_by_verify(case)


@pytest.mark.needs("landlock", "seccomp")
@pytest.mark.parametrize("case", sampled(CASES), ids=str)
def test_load(bench: Bench, case: Case) -> None:
    bench.check_by_host(case)
