"""What is packed comes out; what was changed is refused, or changes nothing."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.bundle.archive import read_archive
from sandbox_host.bundle.contents import ENVELOPE_NAME, Contents
from sandbox_host.bundle.names import check_path, check_set
from sandbox_host.errors import BundleError
from tests.support.archives import Entry, crafted, packed, write

FILES = {"__init__.py": b"", "plugin.json": b"{}", "sub/données.csv": b"1;2\n" * 30}

components = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12) | st.from_regex(
    r"[a-z_]{1,8}\.(py|json|bin)", fullmatch=True
)


def _acceptable(files: dict[str, bytes]) -> bool:
    try:
        for path in files:
            check_path(path)
        check_set(files)
    except BundleError:
        return False
    return ENVELOPE_NAME not in files


bundles = st.dictionaries(
    st.lists(components, min_size=1, max_size=3).map("/".join), st.binary(max_size=300), max_size=6
).filter(_acceptable)


def read(data: bytes) -> Contents | None:
    """Return what an archive holds, or None where it is refused."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            return read_archive(write(Path(directory), data))
        except BundleError as error:
            text = str(error)
    assert text.isascii()
    assert text.isprintable()
    return None


@given(bundles, st.none() | st.binary(max_size=100), st.booleans())
def test_what_is_packed_comes_out(
    files: dict[str, bytes], envelope: bytes | None, compress: bool
) -> None:
    contents = read(packed(files, envelope, compress=compress))
    assert contents is not None
    assert (dict(contents.files), contents.envelope) == (files, envelope)
    shuffled = dict(sorted(files.items(), reverse=True))
    assert packed(shuffled, envelope) == packed(files, envelope)


@given(st.data(), st.booleans())
def test_a_changed_byte_is_refused_or_changes_nothing(data: st.DataObject, compress: bool) -> None:
    archive = bytearray(packed(FILES, b"signed", compress=compress))
    at = data.draw(st.integers(0, len(archive) - 1))
    archive[at] = data.draw(st.integers(0, 255))
    contents = read(bytes(archive))
    if contents is not None:
        assert (dict(contents.files), contents.envelope) == (FILES, b"signed")


@given(st.data())
def test_what_was_cut_or_added_to_is_refused(data: st.DataObject) -> None:
    archive = packed(FILES, b"signed")
    start = data.draw(st.integers(0, len(archive) - 1))
    length = data.draw(st.integers(1, len(archive) - start))
    assert read(archive[:start] + archive[start + length :]) is None
    added = data.draw(st.binary(min_size=1, max_size=40))
    assert read(archive[:start] + added + archive[start:]) is None


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    read(data)
    read(data + packed({}))
    read(packed(FILES)[:-22] + data + packed(FILES)[-22:])


fields = st.dictionaries(
    st.sampled_from(["flags", "method", "crc", "packed", "size", "name_length", "extra_length"]),
    st.sampled_from([0, 1, 8, 0x800, 40, 0xFFFF]),
    max_size=2,
)
entries = st.builds(
    Entry,
    name=st.sampled_from([b"a.py", b"b/c.py", "é".encode(), b"../x", b"a.py\0", b"plugin.json"]),
    content=st.sampled_from([b"", b"x", b"x" * 50]),
    deflate=st.booleans(),
    both=fields,
    local=fields,
    tail=st.dictionaries(st.sampled_from(["external", "offset", "disk"]), st.just(0), max_size=3),
    behind=st.sampled_from([b"", b"", b"", b"PK\x03\x04"]),
)


@given(st.lists(entries, max_size=4))
def test_what_is_taken_another_program_reads_alike(crafty: list[Entry]) -> None:
    """The way of the attack on two readers: one shows a reviewer what another does not run."""
    data = crafted(*crafty)
    contents = read(data)
    if contents is None:
        return
    with zipfile.ZipFile(io.BytesIO(data)) as other:
        assert {name: other.read(name) for name in other.namelist()} == dict(contents.files)
