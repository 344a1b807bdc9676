from __future__ import annotations

import errno
import os
import re
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox_host.bundle import ENVELOPE_NAME, ReadLimits
from sandbox_host.bundle import reader as reader_module
from sandbox_host.bundle.reader import read_directory
from sandbox_host.errors import BundleError
from tests.support.bundles import write_files

FILES = {"__init__.py": b"", "plugin.json": b"{}", "sub/deep/data.bin": bytes(range(256))}


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    return write_files(tmp_path / "plugin", FILES)


def refused(path: Path, limits: ReadLimits | None = None) -> str:
    with pytest.raises(BundleError) as caught:
        read_directory(path, limits)
    return str(caught.value)


def test_every_byte_is_read_and_sorted(plugin: Path) -> None:
    contents = read_directory(plugin)
    assert dict(contents.files) == FILES
    assert list(contents.files) == sorted(FILES)
    assert contents.envelope is None
    assert contents.origin == str(plugin)


def test_contents_cannot_be_changed(plugin: Path) -> None:
    contents = read_directory(plugin)
    with pytest.raises(TypeError):
        contents.files["new"] = b""  # type: ignore[index]


def test_the_envelope_is_kept_apart(plugin: Path) -> None:
    (plugin / ENVELOPE_NAME).write_bytes(b"signed")
    contents = read_directory(plugin)
    assert contents.envelope == b"signed"
    assert ENVELOPE_NAME not in contents.files


def test_reading_opens_no_descriptor_for_good(plugin: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    read_directory(plugin)
    (plugin / "link").symlink_to("plugin.json")
    refused(plugin)
    assert set(os.listdir("/proc/self/fd")) == before


def _symlink(path: Path) -> None:
    (path / "x").symlink_to("plugin.json")


def _symlinked_directory(path: Path) -> None:
    (path / "x").symlink_to("sub")


def _dangling(path: Path) -> None:
    (path / "x").symlink_to("nowhere")


def _hard_link(path: Path) -> None:
    (path / "x").hardlink_to(path / "plugin.json")


def _fifo(path: Path) -> None:
    os.mkfifo(path / "x")


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path)  # the address of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("x")
    finally:
        os.chdir(here)


def _empty_directory(path: Path) -> None:
    (path / "x").mkdir()


def _not_utf8(path: Path) -> None:
    with open(os.fsencode(path) + b"/\xff\xfe", "wb"):
        pass


def _byte_code(path: Path) -> None:
    write_files(path, {"__pycache__/main.cpython-311.pyc": b"\0"})


def _git(path: Path) -> None:
    write_files(path, {".git/HEAD": b"ref"})


def _twins(path: Path) -> None:
    write_files(path, {"PLUGIN.json": b""})


def _envelope_directory(path: Path) -> None:
    write_files(path, {f"{ENVELOPE_NAME}/x": b""})


def _envelope_below(path: Path) -> None:
    write_files(path, {f"sub/{ENVELOPE_NAME}": b""})


@pytest.mark.parametrize(
    ("arrange", "words"),
    [
        (_symlink, "'x' in {} is a symbolic link"),
        (_symlinked_directory, "'x' in {} is a symbolic link"),
        (_dangling, "'x' in {} is a symbolic link"),
        (_hard_link, "more than one hard link"),
        (_fifo, "'x' in {} is a FIFO"),
        (_socket, "'x' in {} is a socket"),
        (_empty_directory, "'x' in {} is an empty directory"),
        (_not_utf8, "name that is not valid UTF-8"),
        (_byte_code, "byte-code cache"),
        (_git, "Git repository"),
        (_twins, "one name on a file system"),
        (_envelope_directory, "is a directory with the name of the envelope"),
        (_envelope_below, "name of the signed envelope"),
    ],
)
def test_surprises_are_refused_by_name(
    plugin: Path, arrange: Callable[[Path], None], words: str
) -> None:
    read_directory(plugin)
    arrange(plugin)
    assert words.format(ascii(str(plugin))) in refused(plugin)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device node")
def test_a_device_is_refused(plugin: Path) -> None:
    try:
        os.mknod(plugin / "x", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this container may not make device nodes")
    assert "is a character device" in refused(plugin)


def test_a_symlinked_root_is_refused(plugin: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(plugin)
    assert "is a symbolic link" in refused(tmp_path / "link")


def test_a_root_that_is_no_directory(plugin: Path) -> None:
    assert "is not a directory" in refused(plugin / "plugin.json")
    assert "cannot be opened" in refused(plugin / "missing")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (ReadLimits(files=2), "one file more than the 2"),
        (ReadLimits(directories=1), "one directory more than 1"),
        (ReadLimits(depth=2), "deeper than 2 levels"),
        (ReadLimits(file_bytes=255), "has 256 B, more than the 255 B"),
        (ReadLimits(total_bytes=257), "over the 257 B"),
        (ReadLimits(files=1, directories=0), "more than 2 entries"),
    ],
)
def test_limits_hold(plugin: Path, limits: ReadLimits, words: str) -> None:
    assert words in refused(plugin, limits)


def test_limits_that_are_just_enough(plugin: Path) -> None:
    exact = ReadLimits(files=3, directories=2, depth=3, file_bytes=256, total_bytes=258)
    assert dict(read_directory(plugin, exact).files) == FILES


def test_what_is_refused_by_its_look_costs_no_reading(
    plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five files of the largest size are 80 MiB, and are refused for 64 before one is opened."""
    for number in range(5):
        with (plugin / f"large{number}").open("wb") as file:
            file.truncate(16 << 20)
    monkeypatch.setattr(reader_module, "_read_exactly", None)
    assert "over the 64 MiB allowed" in refused(plugin)
    for number in range(2):
        (plugin / f"large{number}").unlink()
    (plugin / "zzz").symlink_to("plugin.json")
    assert "'zzz' in" in refused(plugin)
    (plugin / "zzz").unlink()
    write_files(plugin, {"LARGE2": b""})
    assert "one name on a file system" in refused(plugin)


def test_a_path_has_a_limit(plugin: Path) -> None:
    here = plugin
    for _ in range(5):
        here = here / ("d" * 200)
    write_files(here, {"x" * 50: b""})
    assert "longer than 1024 bytes" in refused(plugin)


@pytest.mark.parametrize("which", ["sub/deep/data.bin", "sub/deep", "sub"])
def test_what_is_exchanged_between_look_and_reading_is_refused(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """The same bytes under the same name, but another file or directory than was looked at."""
    other = write_files(tmp_path / "other", FILES)
    real = reader_module.check_set

    def exchange(paths: object) -> None:
        real(paths)  # type: ignore[arg-type]
        (plugin / which).rename(tmp_path / "moved")
        (other / which).rename(plugin / which)

    monkeypatch.setattr(reader_module, "check_set", exchange)
    assert f"'{which}' in" in (text := refused(plugin))
    assert "changed while it was read" in text


def test_the_envelope_has_a_limit_of_its_own(plugin: Path) -> None:
    (plugin / ENVELOPE_NAME).write_bytes(b"x" * 11)
    assert "has 11 B, more than the 10 B" in refused(plugin, ReadLimits(envelope_bytes=10))
    small = ReadLimits(files=3, file_bytes=256, total_bytes=258, envelope_bytes=11)
    assert read_directory(plugin, small).envelope == b"x" * 11


def test_the_size_is_checked_before_anything_is_read(
    plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (plugin / "huge").open("wb") as file:
        file.truncate(1 << 40)  # a sparse terabyte
    real = reader_module._read_exactly
    sizes: list[int] = []

    def read(descriptor: int, size: int) -> bytes | None:
        sizes.append(size)
        return real(descriptor, min(size, 1_000))

    monkeypatch.setattr(reader_module, "_read_exactly", read)
    assert "'huge' in" in (text := refused(plugin))
    assert "has 1 TiB, more than the 16 MiB allowed" in text
    assert sizes == []


@pytest.mark.parametrize("change", [b"x" * 300, b"", b"x" * 256])
def test_a_file_that_changes_while_it_is_read_is_refused(
    plugin: Path, monkeypatch: pytest.MonkeyPatch, change: bytes
) -> None:
    real = reader_module._read_exactly
    target = plugin / "sub/deep/data.bin"
    os.utime(target, (1, 1))  # the clock of the file system may be too coarse for one test

    def read(descriptor: int, size: int) -> bytes | None:
        if size == 256:
            target.write_bytes(change)
        return real(descriptor, size)

    monkeypatch.setattr(reader_module, "_read_exactly", read)
    assert "'sub/deep/data.bin'" in (text := refused(plugin))
    assert "changed while it was read" in text


def test_a_file_swapped_for_a_link_between_look_and_open_is_refused(
    plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat

    def look(path: object, *args: object, **options: object) -> os.stat_result:
        status = real(path, *args, **options)  # type: ignore[arg-type]
        if path == b"plugin.json":
            (plugin / "plugin.json").unlink()
            (plugin / "plugin.json").symlink_to("/etc/passwd")
        return status

    monkeypatch.setattr(reader_module.os, "stat", look)
    assert "cannot be read" in refused(plugin)


def test_a_file_swapped_for_a_fifo_does_not_hold_us_up(
    plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat

    def look(path: object, *args: object, **options: object) -> os.stat_result:
        status = real(path, *args, **options)  # type: ignore[arg-type]
        if path == b"plugin.json":
            (plugin / "plugin.json").unlink()
            os.mkfifo(plugin / "plugin.json")
        return status

    monkeypatch.setattr(reader_module.os, "stat", look)
    assert "is a FIFO" in refused(plugin)


def test_a_directory_exchanged_while_we_walk_leads_nowhere_else(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root's path is exchanged after it was opened: what was opened is read."""
    other = write_files(tmp_path / "other", {"evil.py": b"evil"})
    real = os.scandir

    def listing(descriptor: int) -> object:
        if other.exists():
            plugin.rename(tmp_path / "moved")
            other.rename(plugin)
        return real(descriptor)

    monkeypatch.setattr(reader_module.os, "scandir", listing)
    assert dict(read_directory(plugin).files) == FILES
    assert (plugin / "evil.py").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_an_unreadable_file_is_a_refusal(plugin: Path) -> None:
    (plugin / "plugin.json").chmod(0)
    assert "'plugin.json' in" in (text := refused(plugin))
    assert "cannot be read: Permission denied" in text


def test_the_file_that_cannot_be_read_is_named(
    plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(reader_module, "_read_exactly", broken)
    text = refused(plugin)
    assert re.match(r"'[\w./]+' in '.*' cannot be read: Input/output error\.", text)
