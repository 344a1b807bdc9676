"""Bundles made to exhaust whoever reads them: refused within 64 MB, interpreter and all.

Nothing of this needs a signature, so anybody can do it to anybody who verifies.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox_host.bundle import ENVELOPE_NAME
from tests.support.archives import Entry, bomb, crafted, many, packed, write, zeros, zip64
from tests.support.bundles import make_key, plugin_files, trust_store, write_plugin
from tests.support.frugal import refusal_of
from tests.support.trees import make_deep, remove_deep

MOST_BYTES = 64_000_000


def _sparse(path: Path, size: int) -> None:
    with path.open("ab") as file:
        file.truncate(size)


def _manifest_of_100_mb(place: Path) -> Path:
    plugin = write_plugin(place / "sample")
    _sparse(plugin / "plugin.json", 100_000_000)
    return plugin


def _manifest_of_the_largest_file(place: Path) -> Path:
    plugin = write_plugin(place / "sample")
    (plugin / "plugin.json").write_bytes(b"[" * (16 << 20))
    return plugin


def _manifest_of_100_mb_packed(place: Path) -> Path:
    entry = Entry(b"plugin.json", deflate=True, data=zeros(100 << 20), both={"size": 100 << 20})
    return write(place, crafted(entry))


def _archive_of_100_mb(place: Path) -> Path:
    path = write(place, packed(plugin_files()))
    _sparse(path, 100_000_000)
    return path


def _entries(place: Path, number: int = 4_100) -> Path:
    plugin = write_plugin(place / "sample")
    directory = os.open(plugin, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for index in range(number):
            os.close(os.open(f"{index}", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=directory))
    finally:
        os.close(directory)
    return plugin


def _a_million_entries_claimed(place: Path) -> Path:
    return write(place, zip64(1_000_000))


def _entries_packed(place: Path) -> Path:
    return write(place, many(65_534))


def _directories(place: Path) -> Path:
    plugin = write_plugin(place / "sample")
    for index in range(150):
        (plugin / f"d{index}" / "/".join("abcdefghijklmn")).mkdir(parents=True)
        (plugin / f"d{index}" / "/".join("abcdefghijklmn") / "x").touch()
    return plugin


def _deep(place: Path) -> Path:
    plugin = write_plugin(place / "sample")
    make_deep(plugin, 1_000)
    return plugin


def _total(place: Path) -> Path:
    plugin = write_plugin(place / "sample")
    for index in range(5):
        _sparse(plugin / f"data{index}", 16 << 20)
    return plugin


def _total_packed(place: Path) -> Path:
    files = [
        Entry(
            b"%d" % index,
            deflate=True,
            data=zeros(16 << 20) + bytes(160_000),
            both={"size": 16 << 20},
        )
        for index in range(5)
    ]
    return write(place, crafted(*files))


def _manifest(data: bytes) -> Callable[[Path], Path]:
    def arrange(place: Path) -> Path:
        plugin = write_plugin(place / "sample")
        (plugin / "plugin.json").write_bytes(data)
        return plugin

    return arrange


def _envelope(data: bytes) -> Callable[[Path], Path]:
    def arrange(place: Path) -> Path:
        plugin = write_plugin(place / "sample")
        (plugin / ENVELOPE_NAME).write_bytes(data)
        return plugin

    return arrange


def _bomb(claimed: int | None) -> Callable[[Path], Path]:
    return lambda place: write(place, bomb(claimed=claimed))


def _overlapping_bomb(place: Path) -> Path:
    """Many files that share one compressed kernel, as published in 2019."""
    kernel = Entry(b"kernel", deflate=True, data=zeros(1 << 20), both={"size": 60_000})
    sharing = [Entry(b"%d" % index, at=0) for index in range(50)]
    return write(place, crafted(kernel, *sharing))


CASES = {
    "a manifest of 100 MB": (_manifest_of_100_mb, "more than the 16 MiB allowed"),
    "a manifest of 16 MiB": (_manifest_of_the_largest_file, "expected at most 65536 bytes"),
    "a packed manifest of 100 MB": (_manifest_of_100_mb_packed, "more than the 16 MiB allowed"),
    "an archive of 100 MB": (_archive_of_100_mb, "has 95.4 MiB, more than"),
    "many entries": (_entries, "has more than 4001 entries"),
    "a million entries, claimed": (_a_million_entries_claimed, "uses zip64"),
    "many entries, packed": (_entries_packed, "claims 65534 files, more than the 2000"),
    "many directories": (_directories, "one directory more than 2000"),
    "a deep directory": (_deep, "deeper than 16 levels"),
    "too much in total": (_total, "over the 64 MiB allowed"),
    "too much in total, packed": (_total_packed, "over the 64 MiB allowed"),
    "a nested manifest": (_manifest(b"[" * 60_000), "at most 32 nested levels"),
    "one nested 100,000 deep": (_manifest(b"[" * 100_000), "expected at most 65536 bytes"),
    "a wide manifest": (_manifest(b"[" + b"[]," * 21_000 + b"[]]"), "at most 20000 values"),
    "a nested envelope": (_envelope(b"[" * 100_000), "nested levels"),
    "a nested object": (_envelope(b'{"a":' * 100_000), "nested levels"),
    "a wide envelope": (_envelope(b"[" + b"[]," * 1_390_000 + b"[]]"), "at most 20000 values"),
    "an envelope of wide characters": (
        _envelope('"\U0001f600" '.encode() + b"[" * (4 << 20 - 10)),
        "nested levels",
    ),
    "a bomb": (_bomb(None), "more than the 16 MiB allowed"),
    "a bomb of little": (_bomb(1_000), "inflates to more than the 1000 bytes"),
    "a bomb of 16 MiB": (_bomb(16 << 20), "inflates to more than the 16777216 bytes"),
    "a bomb that is true": (lambda place: write(place, bomb(size=16 << 20)), "that is a bomb"),
    "an overlapping bomb": (_overlapping_bomb, "overlaps the file before it"),
}


@pytest.mark.parametrize(("arrange", "words"), CASES.values(), ids=CASES.keys())
def test_exhausting_bundles_are_refused_within_64_mb(
    tmp_path: Path, arrange: Callable[[Path], Path], words: str
) -> None:
    refusal = refusal_of(arrange(tmp_path))
    remove_deep(tmp_path / "sample")
    assert words in refusal.text
    assert refusal.error
    assert refusal.peak_bytes < MOST_BYTES, f"grew by {refusal.grown_bytes}"


@pytest.mark.parametrize(
    "name",
    [
        "a manifest of 100 MB",
        "a packed manifest of 100 MB",
        "many entries",
        "a nested envelope",
        "a wide envelope",
        "a bomb of 16 MiB",
    ],
)
def test_the_whole_command_stays_within_64_mb(tmp_path: Path, name: str) -> None:
    arrange, words = CASES[name]
    path = arrange(tmp_path)
    refusal = refusal_of(path, trust_store(tmp_path, make_key()))
    assert refusal.error == "1"
    assert words in " ".join(refusal.text.split())
    assert refusal.peak_bytes < MOST_BYTES, f"grew by {refusal.grown_bytes}"


def test_many_at_once_take_no_more_than_one(tmp_path: Path) -> None:
    """Nothing of a plugin is kept when its verdict is known."""
    plugins = tmp_path / "plugins"
    for number in range(4):
        _manifest_of_the_largest_file(plugins / str(number))
    refusal = refusal_of(plugins, trust_store(tmp_path, make_key()))
    assert refusal.error == "3"
    assert "4 unsigned" in refusal.text
    assert refusal.peak_bytes < MOST_BYTES, f"grew by {refusal.grown_bytes}"


def test_an_ordinary_bundle_is_not_refused(tmp_path: Path) -> None:
    """The control: what the cases above do to it is why they are refused."""
    assert refusal_of(write_plugin(tmp_path / "sample")).error == ""
    assert refusal_of(write(tmp_path, packed(plugin_files()))).error == ""


@pytest.mark.soak
def test_a_million_entries_are_refused_within_64_mb(tmp_path: Path) -> None:
    try:
        refusal = refusal_of(_entries(tmp_path, 1_000_000))
    finally:
        remove_deep(tmp_path / "sample")
    assert "has more than 4001 entries" in refusal.text
    assert refusal.peak_bytes < MOST_BYTES


@pytest.mark.soak
def test_a_million_packed_entries_are_refused_within_64_mb(tmp_path: Path) -> None:
    refusal = refusal_of(write(tmp_path, many(1_000_000)))
    assert refusal.error == "BundleError"
    assert refusal.peak_bytes < MOST_BYTES
