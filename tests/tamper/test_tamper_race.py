"""Files and directories that are swapped between the check and the import.

What runs is what was verified, byte for byte, or nothing. Each swap is made at one moment, by a
hook in what the host does then; one at all moments at once, by a thread.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from sandbox_host.bundle import archive as archives
from sandbox_host.bundle import protected, reader, source, stage
from sandbox_host.bundle.contents import ENVELOPE_NAME
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.verify import verify
from sandbox_host.errors import (
    BundleError,
    RefusedError,
    TrustStoreError,
    UnsignedError,
    UntrustedError,
)
from sandbox_host.runtime import launch
from tests.support.archives import packed
from tests.support.bundles import NOW, make_key, signed_contents, store_text
from tests.support.racing import PACKED, Armed, Race, Swap, after, before, judged
from tests.support.tampering import EVIL, FILES, GOOD, HELPER, LONG_AGO, Bench, Case

pytestmark = pytest.mark.timeout(60)

STRANGER = make_key(9)
FORGED: Final = signed_contents(STRANGER, {**FILES, "helper.py": EVIL})
PACKED_EVIL: Final = packed(FORGED.files, FORGED.envelope)


# -- moments --------------------------------------------------------------------------------------


def _starts(patch: pytest.MonkeyPatch, bench: Bench, swap: Callable[[], None]) -> None:
    before(bench.host._core._launcher._backend, "start")(patch, bench, swap)


OPENED: Final = before(source, "read_directory")
LISTED: Final = before(os, "scandir", lambda place=None, *_: isinstance(place, int))
LOOKED: Final = after(reader, "check_set")
READING: Final = before(reader, "_read_exactly")
READ: Final = after(launch, "read_bundle")
VERIFIED: Final = after(launch, "verify")
ADMITTED: Final = after(launch, "admit")
COPIED: Final = after(stage, "stage")
STARTED: Final = _starts

ARCHIVE_OPENED: Final = before(source, "read_archive")
ARCHIVE_SEEN: Final = before(
    os,
    "open",
    lambda path, flags, *_: flags == archives._OPEN and str(path).endswith(".plugin"),
)
ARCHIVE_LISTED: Final = after(archives._Archive, "members")


# -- swaps ----------------------------------------------------------------------------------------


def write(path: str, data: bytes | str) -> Swap:
    def do(bench: Bench) -> None:
        (bench.plugin / path).write_bytes(data if isinstance(data, bytes) else data.encode())

    return do


def exchange(path: str, data: str = EVIL) -> Swap:
    """Have another file of that name, of the same size and times."""

    def do(bench: Bench) -> None:
        other = bench.scene / "other"
        other.write_text(data)
        os.utime(other, LONG_AGO)
        other.rename(bench.plugin / path)

    return do


def link(path: str, target: str) -> Swap:
    def do(bench: Bench) -> None:
        evil(bench)
        (bench.plugin / path).rename(bench.scene / "moved")
        (bench.plugin / path).symlink_to(bench.scene / "evil" / target)

    return do


def remove(path: str) -> Swap:
    return lambda bench: (bench.plugin / path).unlink()


def fifo(path: str) -> Swap:
    def do(bench: Bench) -> None:
        (bench.plugin / path).unlink()
        os.mkfifo(bench.plugin / path)

    return do


def directory(path: str) -> Swap:
    def do(bench: Bench) -> None:
        (bench.plugin / path).unlink()
        (bench.plugin / path).mkdir()

    return do


def hard_link(path: str) -> Swap:
    return lambda bench: os.link(bench.plugin / path, bench.scene / "mine")


def evil(bench: Bench) -> Path:
    """Write what a stranger signed, beside the plugin."""
    return bench.put(FORGED, bench.scene / "evil")


def _exchange_data(bench: Bench) -> None:
    """The same files under the same names, in another directory."""
    shutil.copytree(bench.plugin / "data", bench.scene / "data")
    (bench.plugin / "data").rename(bench.scene / "moved")
    (bench.scene / "data").rename(bench.plugin / "data")


def _remove_data(bench: Bench) -> None:
    shutil.rmtree(bench.plugin / "data")


def _exchange_all(bench: Bench) -> None:
    evil(bench)
    bench.plugin.rename(bench.scene / "moved")
    (bench.scene / "evil").rename(bench.plugin)


def _link_all(bench: Bench) -> None:
    evil(bench)
    bench.plugin.rename(bench.scene / "moved")
    bench.plugin.symlink_to(bench.scene / "evil")


def _link_to_itself(bench: Bench) -> None:
    bench.plugin.rename(bench.scene / "moved")
    bench.plugin.symlink_to(bench.scene / "moved")


def _remove_all(bench: Bench) -> None:
    shutil.rmtree(bench.plugin)


def _an_archive_instead(bench: Bench) -> None:
    shutil.rmtree(bench.plugin)
    bench.plugin.write_bytes(PACKED_EVIL)


def _a_fifo_instead(bench: Bench) -> None:
    shutil.rmtree(bench.plugin)
    os.mkfifo(bench.plugin)


def _write_all(bench: Bench) -> None:
    for path in bench.plugin.iterdir():
        if path.is_file():
            path.write_text("raise SystemExit")


def archive_is(data: bytes) -> Swap:
    return lambda bench: bench.archive.write_bytes(data) and None


def _archive_exchanged(bench: Bench) -> None:
    (bench.scene / "other").write_bytes(PACKED_EVIL)
    (bench.scene / "other").rename(bench.archive)


def _archive_linked(bench: Bench) -> None:
    bench.archive.rename(bench.scene / "moved")
    bench.archive.symlink_to(bench.scene / "moved")


def _archive_fifo(bench: Bench) -> None:
    bench.archive.unlink()
    os.mkfifo(bench.archive)


def _archive_directory(bench: Bench) -> None:
    bench.archive.unlink()
    bench.put(FORGED, bench.archive)


# -- the table ------------------------------------------------------------------------------------

CHANGED, GONE = "changed while it was read", "cannot be read: No such file"

BEFORE: Final = [
    Race("opened: a link", OPENED, _link_all, BundleError, "is a symbolic link"),
    Race("opened: a link to itself", OPENED, _link_to_itself, BundleError, "is a symbolic link"),
    Race("opened: an archive", OPENED, _an_archive_instead, BundleError, "is not a directory"),
    Race("opened: a FIFO", OPENED, _a_fifo_instead, BundleError, "is not a directory"),
    Race("opened: gone", OPENED, _remove_all, BundleError, "cannot be opened"),
    Race("opened: another's", OPENED, _exchange_all, UntrustedError, STRANGER.key_id),
    Race("listed: another's", LISTED, _exchange_all),
    Race("listed: a link", LISTED, _link_all),
    Race("listed: gone", LISTED, _remove_all, UnsignedError, "holds no plugin.dsse.json"),
]

WHILE_READ: Final = [
    Race("looked at: longer", LOOKED, write("helper.py", EVIL * 2), BundleError, CHANGED),
    Race("looked at: emptied", LOOKED, write("helper.py", b""), BundleError, CHANGED),
    Race("looked at: rewritten", LOOKED, write("helper.py", EVIL), BundleError, CHANGED),
    Race("looked at: the same anew", LOOKED, write("helper.py", HELPER), BundleError, CHANGED),
    Race("looked at: another file", LOOKED, exchange("helper.py"), BundleError, CHANGED),
    Race("looked at: its copy", LOOKED, exchange("helper.py", HELPER), BundleError, CHANGED),
    Race("looked at: removed", LOOKED, remove("helper.py"), BundleError, GONE),
    Race(
        "looked at: a link", LOOKED, link("helper.py", "helper.py"), BundleError, "cannot be read"
    ),
    Race("looked at: a FIFO", LOOKED, fifo("helper.py"), BundleError, "is a FIFO"),
    Race("looked at: a directory", LOOKED, directory("helper.py"), BundleError, "not a regular"),
    Race("looked at: a hard link", LOOKED, hard_link("helper.py"), BundleError, "hard link"),
    Race("looked at: the envelope", LOOKED, exchange(ENVELOPE_NAME), BundleError, CHANGED),
    Race("looked at: no envelope", LOOKED, remove(ENVELOPE_NAME), BundleError, GONE),
    Race("looked at: plugin.json", LOOKED, write("plugin.json", b"{}"), BundleError, CHANGED),
    Race("looked at: a directory's copy", LOOKED, _exchange_data, BundleError, CHANGED),
    Race("looked at: a directory's link", LOOKED, link("data", "data"), BundleError, "cannot be"),
    Race("looked at: no directory", LOOKED, _remove_data, BundleError, GONE),
    Race("looked at: one more", LOOKED, write("evil.py", EVIL)),
    Race("looked at: all another's", LOOKED, _exchange_all),
    Race("looked at: all a link", LOOKED, _link_all),
    Race("read: longer", READING, write("__init__.py", b"x" * 9_999), BundleError, CHANGED),
    Race("read: emptied", READING, write("__init__.py", b""), BundleError, CHANGED),
    Race("read: the next one", READING, write("helper.py", EVIL), BundleError, CHANGED),
    Race("read: one more", READING, write("evil.py", EVIL)),
    Race("read: all another's", READING, _exchange_all),
]

LATE: Final = [
    Race(f"{when}: {what}", moment, swap, early=False)
    for when, moment in {
        "once read": READ,
        "once verified": VERIFIED,
        "once admitted": ADMITTED,
        "once copied": COPIED,
        "at the start": STARTED,
    }.items()
    for what, swap in {
        "rewritten": _write_all,
        "all another's": _exchange_all,
        "all a link": _link_all,
        "gone": _remove_all,
    }.items()
]

OF_ARCHIVES: Final = [
    Race("seen: a link", ARCHIVE_SEEN, _archive_linked, BundleError, "opened", packed=True),
    Race("seen: a FIFO", ARCHIVE_SEEN, _archive_fifo, BundleError, "not a regular", packed=True),
    Race(
        "opened: a plugin",
        ARCHIVE_OPENED,
        _archive_directory,
        BundleError,
        "neither a directory",
        packed=True,
    ),
    Race(
        "opened: another's archive",
        ARCHIVE_OPENED,
        archive_is(PACKED_EVIL),
        UntrustedError,
        STRANGER.key_id,
        packed=True,
    ),
    *(
        Race(f"listed: {what}", ARCHIVE_LISTED, swap, BundleError, words, packed=True)
        for what, swap, words in [
            ("another's archive", archive_is(PACKED_EVIL), "the checksum that its header claims"),
            ("the same anew", archive_is(PACKED), CHANGED),
            ("cut", archive_is(PACKED[:40]), "ends early, or changed"),
            ("longer", archive_is(PACKED + b"\0"), CHANGED),
        ]
    ),
    *(
        Race(f"{when}: an archive's {what}", moment, swap, early=False, packed=True)
        for when, moment in {"once read": READ, "once verified": VERIFIED}.items()
        for what, swap in {
            "other bytes": archive_is(PACKED_EVIL),
            "other file": _archive_exchanged,
            "directory": _archive_directory,
        }.items()
    ),
]

RACES: Final = [*BEFORE, *WHILE_READ, *LATE, *OF_ARCHIVES]


@pytest.mark.parametrize("race", [race for race in RACES if race.early], ids=str)
def test_verify(bench: Bench, monkeypatch: pytest.MonkeyPatch, race: Race) -> None:
    judged(race, monkeypatch, bench.check_by_verify)


@pytest.mark.needs("landlock", "seccomp")
@pytest.mark.parametrize("race", RACES, ids=str)
def test_load(bench: Bench, monkeypatch: pytest.MonkeyPatch, race: Race) -> None:
    judged(race, monkeypatch, bench.check_by_host)


def test_swaps_at_any_moment_give_what_was_signed_or_nothing(bench: Bench) -> None:
    """Two directories change places without a pause, and so do two files, while they are read."""
    bench.reset()
    trust = TrustStore.load(bench.trust)
    other, done = evil(bench), threading.Event()
    outcomes: set[str] = set()

    def swap() -> None:
        while not done.is_set():
            for one, two in (
                (bench.plugin, other),
                (bench.plugin / "helper.py", bench.scene / "h"),
            ):
                aside = bench.scene / "aside"
                (bench.scene / "h").write_text(EVIL)
                for old, new in ((one, aside), (two, one), (aside, two)):
                    old.rename(new)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for count in range(20_000):
            if count > 300 and len(outcomes) > 1:
                break
            try:
                found = verify(source.read_bundle(bench.plugin), trust, NOW)
                assert dict(found.files) == dict(GOOD.files)
                outcomes.add("verified")
            except RefusedError as error:
                outcomes.add(error.code)
    finally:
        done.set()
        thread.join()
    assert 1 < len(outcomes & {"verified", "bundle", "untrusted", "tampered"}) == len(outcomes)


# -- the trust store, while it is read ------------------------------------------------------------


def _trusting_strangers(bench: Bench) -> None:
    theirs = bench.scene / "theirs"
    theirs.mkdir(mode=0o700)
    bench.write_trust(store_text(STRANGER), theirs / bench.trust.name)
    bench.trust.parent.rename(bench.scene / "moved")
    theirs.rename(bench.trust.parent)


def _store_link(bench: Bench) -> None:
    bench.write_trust(store_text(STRANGER), bench.scene / "theirs.toml")
    bench.trust.unlink()
    bench.trust.symlink_to(bench.scene / "theirs.toml")


def _store_fifo(bench: Bench) -> None:
    bench.trust.unlink()
    os.mkfifo(bench.trust, 0o600)


STORE_CHECKED: Final = after(protected, "_check")
"""Its directory was, which is done first."""

STORES: Final = [
    Race("another directory", STORE_CHECKED, _trusting_strangers, UntrustedError, STRANGER.key_id),
    Race("a link", STORE_CHECKED, _store_link, TrustStoreError, "is a symbolic link"),
    Race("a FIFO", STORE_CHECKED, _store_fifo, TrustStoreError, "is not a regular file"),
    Race("gone", STORE_CHECKED, lambda b: b.trust.unlink(), TrustStoreError, "does not exist"),
    Race(
        "opened",
        STORE_CHECKED,
        lambda b: b.trust.chmod(0o666),
        TrustStoreError,
        "writable for its group or for others",
    ),
]


@pytest.mark.parametrize("race", STORES, ids=str)
def test_a_trust_store_that_is_swapped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, race: Race
) -> None:
    def arm(bench: Bench) -> Path:
        path = armed(bench)
        return bench.put(FORGED, path)

    armed = Armed(race, monkeypatch)
    bench.check_by_verify(Case(race.name, arm, race.error, race.words))
    assert armed.swapped
