"""Bundles that are not what was signed, or that no signature makes acceptable."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from sandbox_host.bundle.contents import ENVELOPE_NAME
from sandbox_host.errors import (
    BundleError,
    ManifestError,
    UnsignedError,
    UntrustedError,
    VerificationError,
)
from tests.support.bundles import make_key, manifest, signed_contents
from tests.support.forgeries import KEY, compact, signed_as
from tests.support.tampering import (
    EVIL,
    FILES,
    HELPER,
    MAIN,
    PLAIN,
    Bench,
    Case,
    Tamper,
    as_contents,
    both,
    named,
    removed,
    renamed,
    sampled,
    with_envelope,
    wrote,
)

pytestmark = pytest.mark.timeout(60)

OTHER = signed_contents(KEY, {**FILES, "helper.py": EVIL}, version="0.9.0")
ELF = b"\x7fELF\x02\x01\x01" + bytes(57)
PE = b"MZ" + bytes(58) + (64).to_bytes(4, "little") + b"PE\0\0"


def signed(files: Mapping[str, bytes]) -> Tamper:
    """Have the trusted key sign these files too, without a check."""
    return as_contents(lambda good: signed_as({**good.files, **files}))


def signed_without(path: str) -> Tamper:
    return signed_only({name: data for name, data in PLAIN.items() if name != path})


def signed_only(files: Mapping[str, bytes]) -> Tamper:
    return as_contents(lambda _: signed_as(dict(files)))


def signed_manifest(data: bytes) -> Tamper:
    return signed({"plugin.json": data})


def link(path: str, target: str, *, directory: bool = False) -> Tamper:
    def do(bench: Bench) -> None:
        (bench.plugin / path).unlink(missing_ok=True)
        (bench.plugin / path).symlink_to(target, target_is_directory=directory)

    return do


def _moved_out(bench: Bench) -> None:
    (bench.plugin / "helper.py").rename(bench.plugin.parent / "helper.py")
    (bench.plugin / "helper.py").symlink_to(bench.plugin.parent / "helper.py")


def _directory_moved_out(bench: Bench) -> None:
    (bench.plugin / "data").rename(bench.plugin.parent / "data")
    (bench.plugin / "data").symlink_to(bench.plugin.parent / "data")


def _hard_link(bench: Bench) -> None:
    os.link(bench.plugin / "helper.py", bench.plugin.parent / "mine")


def _fifo(bench: Bench) -> None:
    (bench.plugin / "helper.py").unlink()
    os.mkfifo(bench.plugin / "helper.py")


def _fifo_for_the_envelope(bench: Bench) -> None:
    (bench.plugin / ENVELOPE_NAME).unlink()
    os.mkfifo(bench.plugin / ENVELOPE_NAME)


def _socket(bench: Bench) -> None:
    here = Path.cwd()
    os.chdir(bench.plugin)  # the address of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("x")
    finally:
        os.chdir(here)


def _device(bench: Bench) -> None:
    try:
        os.mknod(bench.plugin / "x", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices, and not everywhere")


def _empty_directory(bench: Bench) -> None:
    (bench.plugin / "x").mkdir()


def _not_utf8(bench: Bench) -> None:
    with open(os.fsencode(bench.plugin) + b"/\xff.py", "wb"):
        pass


def _deep(bench: Bench) -> None:
    place = bench.plugin.joinpath(*"abcdefghijklmnop")
    place.mkdir(parents=True)
    (place / "x").touch()


def _many(bench: Bench) -> None:
    for number in range(2_001):
        (bench.plugin / f"f{number}").touch()


def sparse(path: str, size: int) -> Tamper:
    def do(bench: Bench) -> None:
        with (bench.plugin / path).open("ab") as file:
            file.truncate(size)

    return do


def _envelope_directory(bench: Bench) -> None:
    (bench.plugin / ENVELOPE_NAME).rename(bench.plugin / "x")
    (bench.plugin / ENVELOPE_NAME).mkdir()
    (bench.plugin / "x").rename(bench.plugin / ENVELOPE_NAME / "x")


def _root_link(bench: Bench) -> Path:
    place = bench.plugin.with_name("a link")
    place.symlink_to(bench.plugin)
    return place


def _modes(bench: Bench) -> None:
    (bench.plugin / "main.py").chmod(0o755)
    (bench.plugin / "data").chmod(0o700)


def _touched(bench: Bench) -> None:
    os.utime(bench.plugin / "main.py", (2, 2))


def _copied(bench: Bench) -> Path:
    return bench.put(bench.good, bench.plugin.with_name("Another name, and a longer one"))


def _by_another_way(bench: Bench) -> Path:
    return bench.plugin / "data" / ".." / "." / ""


CHANGED: Final = [
    Case("one letter", wrote("helper.py", EVIL), VerificationError, "'helper.py' was changed"),
    Case(
        "one bit", wrote("helper.py", HELPER.replace("s", "r", 1)), VerificationError, "was changed"
    ),
    Case("a byte more", wrote("main.py", MAIN + "\n"), VerificationError, "'main.py' was changed"),
    Case("a byte less", wrote("main.py", MAIN[:-1]), VerificationError, "'main.py' was changed"),
    Case("emptied", wrote("main.py", b""), VerificationError, "'main.py' was changed"),
    Case(
        "another line end",
        wrote("main.py", MAIN.replace("\n", "\r\n")),
        VerificationError,
        "'main.py' was changed",
    ),
    Case("a byte order mark", wrote("main.py", "\ufeff" + MAIN), VerificationError, "was changed"),
    Case(
        "data",
        wrote("data/table.csv", "a,b\n1,3\n"),
        VerificationError,
        "'data/table.csv' was changed",
    ),
    Case("added", wrote("evil.py", EVIL), VerificationError, "'evil.py' was added"),
    Case("added empty", wrote("evil.py", b""), VerificationError, "'evil.py' was added"),
    Case("added hidden", wrote(".evil", EVIL), VerificationError, "'.evil' was added"),
    Case(
        "added below",
        wrote("data/__init__.py", b""),
        VerificationError,
        "'data/__init__.py' was added",
    ),
    Case("added new directory", wrote("new/x.py", EVIL), VerificationError, "'new/x.py' was added"),
    Case("a copy", wrote("helper2.py", HELPER), VerificationError, "'helper2.py' was added"),
    Case("removed", removed("helper.py"), VerificationError, "'helper.py' was removed"),
    Case(
        "the package removed",
        removed("__init__.py"),
        VerificationError,
        "'__init__.py' was removed",
    ),
    Case(
        "plugin.json removed",
        removed("plugin.json"),
        VerificationError,
        "'plugin.json' was removed",
    ),
    Case(
        "renamed",
        renamed("helper.py", "sitecustomize.py"),
        VerificationError,
        "'helper.py' was renamed to 'sitecustomize.py'",
    ),
    Case("moved", renamed("helper.py", "data/helper.py"), VerificationError, "to 'data/helper.py'"),
    Case(
        "another case",
        renamed("helper.py", "Helper.py"),
        VerificationError,
        "was renamed to 'Helper.py'",
    ),
    Case(
        "swapped",
        both(wrote("main.py", HELPER), wrote("helper.py", MAIN)),
        VerificationError,
        "'helper.py' and 'main.py' swapped their names",
    ),
    Case("copied over", wrote("helper.py", MAIN), VerificationError, "'helper.py' was changed"),
    Case(
        "permissions widened",
        wrote("plugin.json", compact(manifest("sample", permissions={"publish": ["x"]}))),
        VerificationError,
        "'plugin.json' was changed",
    ),
    Case(
        "plugin.json broken",
        wrote("plugin.json", b"{"),
        VerificationError,
        "'plugin.json' was changed",
    ),
]

ENVELOPES: Final = [
    Case("unsigned", removed(ENVELOPE_NAME), UnsignedError, "holds no plugin.dsse.json"),
    Case(
        "the envelope renamed",
        renamed(ENVELOPE_NAME, "plugin.dsse.jso"),
        UnsignedError,
        "is not signed",
    ),
    Case(
        "another release's envelope",
        with_envelope(lambda _: OTHER.envelope or b""),
        VerificationError,
        "'__init__.py' was changed",
    ),
    Case(
        "another plugin's envelope",
        with_envelope(lambda _: signed_contents(KEY, FILES, name="Other").envelope or b""),
        VerificationError,
        "'__init__.py' was changed",
    ),
    Case(
        "a stranger's envelope",
        as_contents(lambda _: signed_contents(make_key(9), FILES)),
        UntrustedError,
        make_key(9).key_id,
    ),
    Case("a directory called so", _envelope_directory, BundleError, "name of the envelope"),
    Case("an envelope below", wrote(f"data/{ENVELOPE_NAME}", b"{}"), BundleError, "one file at"),
    Case("two envelopes", wrote("PLUGIN.dsse.JSON", b"{}"), BundleError, "'PLUGIN.dsse.JSON' has"),
    Case("a FIFO for an envelope", _fifo_for_the_envelope, BundleError, "is a FIFO"),
    Case(
        "a link for an envelope",
        both(renamed(ENVELOPE_NAME, "x"), link(ENVELOPE_NAME, "x")),
        BundleError,
        f"'{ENVELOPE_NAME}' in",
    ),
]

NO_FILES: Final = [
    Case("a link", link("x.py", "main.py"), BundleError, "'x.py' in"),
    Case("a link out", link("x.py", "/etc/hostname"), BundleError, "is a symbolic link"),
    Case("a link to nowhere", link("x.py", "nowhere"), BundleError, "is a symbolic link"),
    Case("a link up", link("x", "..", directory=True), BundleError, "is a symbolic link"),
    Case("a link to the same bytes", _moved_out, BundleError, "'helper.py' in"),
    Case("a directory's link", _directory_moved_out, BundleError, "'data' in"),
    Case("a hard link", _hard_link, BundleError, "more than one hard link"),
    Case("a FIFO", _fifo, BundleError, "is a FIFO"),
    Case("a socket", _socket, BundleError, "is a socket"),
    Case("a device", _device, BundleError, "is a character device"),
    Case("an empty directory", _empty_directory, BundleError, "is an empty directory"),
    Case("a link to all of it", _root_link, BundleError, "is a symbolic link"),
    Case("no directory", lambda bench: bench.plugin / "main.py", BundleError, "plugin's archive"),
    Case("a deep file", _deep, BundleError, "deeper than 16 levels"),
    Case("too many files", _many, BundleError, "one file more than the 2000"),
    Case("a large file", sparse("main.py", (16 << 20) + 1), BundleError, "the 16 MiB allowed"),
    Case("a large envelope", sparse(ENVELOPE_NAME, (4 << 20) + 1), BundleError, "4 MiB allowed"),
    Case(
        "large together",
        both(*(sparse(f"f{number}", 16 << 20) for number in range(5))),
        BundleError,
        "over the 64 MiB allowed",
    ),
]

NAMES: Final = [
    Case("not UTF-8", _not_utf8, BundleError, "not valid UTF-8"),
    *(
        Case(f"the name {path!r}", wrote(path, b"x"), BundleError, words)
        for path, words in {
            "__pycache__/main.cpython-311.pyc": "byte-code cache",
            "main.pyc": "byte-code cache",
            ".git/config": "a Git repository",
            ".env": "usually holds secrets",
            "Main.py": "are one name",
            "e\u0301.py": "normal form C",
            "\u202eyp.py": "direction-changing",
            "\n::error::x": "a control, invisible",
            "a\u200bb.py": "invisible",
            "a\x1b[2J.py": "a control",
            "nul.txt": "reserves it for a device",
            "PLUGIN~1.JSO": "short name of another",
            "a\\b.py": "not every platform allows",
            "C:evil.py": "not every platform allows",
            "main.py.": "ends with a dot or a space",
            " main.py": "begins with a space",
            "-rf": "begins with a dash",
            "a\u2215b.py": "looks like a slash",
        }.items()
    ),
]

NOT_EVEN_SIGNED: Final = [
    Case("byte code", signed({"main.pyc": b"\0"}), BundleError, "byte-code cache"),
    Case("a shared object", signed({"_x.so": b"x"}), BundleError, "a shared object, by its name"),
    Case("an ELF object", signed({"data.bin": ELF}), BundleError, "is an ELF object"),
    Case("a Windows library", signed({"data.bin": PE}), BundleError, "is a Windows executable"),
    Case("no plugin.json", signed_without("plugin.json"), BundleError, "has no plugin.json"),
    Case("no package", signed_without("__init__.py"), BundleError, "has no __init__.py"),
    Case("plugin.json is none", signed_manifest(b"[1]"), ManifestError, "plugin.json"),
    Case("a key twice", signed_manifest(b'{"name":"a","name":"b"}'), ManifestError, "given twice"),
    Case("NaN", signed_manifest(b'{"name":NaN}'), ManifestError, "finite number"),
    Case("deep", signed_manifest(b"[" * 60_000), ManifestError, "32 nested levels"),
    Case("a long manifest", signed_manifest(b" " * 70_000), ManifestError, "at most 65536 bytes"),
    Case(
        "another version",
        signed_manifest(compact(manifest("sample", version="1.0.1"))),
        ManifestError,
        "plugin.json: version: '1.0.1' differs",
    ),
    Case(
        "another name",
        signed_manifest(compact(manifest("other"))),
        ManifestError,
        "plugin.json: name: 'other' differs",
    ),
    Case(
        "an unknown permission",
        signed_manifest(compact(manifest("sample", permissions={"all": True}))),
        ManifestError,
        "permissions.all",
    ),
]

CONTROLS: Final = [
    Case("untouched", both()),
    Case("other modes", _modes),
    Case("other times", _touched),
    Case("another place", _copied),
    Case("by another way", _by_another_way),
    Case("more signed files", signed({"données.csv": b"1;2", ".hidden": b"", "a/b/c/d": b"x"})),
]

CASES = named([*CHANGED, *ENVELOPES, *NO_FILES, *NAMES, *NOT_EVEN_SIGNED, *CONTROLS])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_verify(bench: Bench, case: Case) -> None:
    bench.check_by_verify(case)


@pytest.mark.needs("landlock", "seccomp")
@pytest.mark.parametrize("case", sampled(CASES), ids=str)
def test_load(bench: Bench, case: Case) -> None:
    bench.check_by_host(case)
