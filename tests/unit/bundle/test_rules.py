from __future__ import annotations

import pytest

from sandbox_host.bundle.rules import check_contents, native_code_in
from sandbox_host.errors import BundleError
from tests.support.bundles import plugin_files

PE = b"MZ" + bytes(0x3A) + (0x40).to_bytes(4, "little") + b"PE\0\0"


def test_a_plugin_passes() -> None:
    files = plugin_files({"main.py": "", "data.csv": "MZ,258\n", "notes.so.txt": "text"})
    assert check_contents(files).identity == "sample"


@pytest.mark.parametrize(
    ("path", "data", "words"),
    [
        ("x.so", b"", "shared object"),
        ("lib/libx.so.1.2", b"", "shared object"),
        ("x.PYD", b"", "shared object"),
        ("x.dll", b"", "shared object"),
        ("x.dylib", b"", "shared object"),
        ("x.cpython-311-x86_64-linux-gnu.so", b"", "shared object"),
        ("x.dat", b"\x7fELF\x02", "ELF"),
        ("x.dat", b"\xcf\xfa\xed\xfe\x07", "Mach-O"),
        ("x.dat", b"\xca\xfe\xba\xbe", "Mach-O"),
        ("x.dat", PE, "Windows"),
        ("x.dat", b"\x7fEL", ""),
        ("MZ.csv", b"MZ,Mozambique," + bytes(100), ""),
        ("x.dat", b"MZ", ""),
        ("x.solution", b"", ""),
        ("so", b"", ""),
        ("so.py", b"", ""),
        ("empty", b"", ""),
    ],
)
def test_native_code_is_recognised(path: str, data: bytes, words: str) -> None:
    found = native_code_in(path, data)
    assert words in found
    assert bool(found) is bool(words)


def test_native_code_needs_its_permission() -> None:
    files = {"fast.so": b"\x7fELF"}
    with pytest.raises(BundleError, match=r"permissions\.native_code"):
        check_contents(plugin_files(files))
    manifest = check_contents(plugin_files(files, permissions={"native_code": True}))
    assert manifest.permissions.native_code


def test_names_are_checked_wherever_the_files_came_from() -> None:
    with pytest.raises(BundleError, match=r"'\.' or '\.\.'"):
        check_contents(plugin_files({"../x": ""}))
    with pytest.raises(BundleError, match="one name"):
        check_contents(plugin_files({"X.py": "", "x.py": ""}))
