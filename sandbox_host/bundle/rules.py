"""What a bundle must be, whoever signed it: the rules that signing and verifying share.

One function, so that nobody can sign what every host would refuse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from sandbox_host.bundle.contents import MANIFEST_NAME, PACKAGE_FILE
from sandbox_host.bundle.names import check_path, check_set, shown
from sandbox_host.bundle.plugin_json import parse_manifest
from sandbox_host.errors import BundleError
from sandbox_host.model import Manifest

_SHARED_OBJECT: Final = re.compile(r".*\.(?:so(?:\.[0-9.]+)?|pyd|dll|dylib|sl)", re.DOTALL)
_MAGIC: Final = (
    (b"\x7fELF", "an ELF object"),
    (b"\xfe\xed\xfa\xce", "a Mach-O object"),
    (b"\xfe\xed\xfa\xcf", "a Mach-O object"),
    (b"\xce\xfa\xed\xfe", "a Mach-O object"),
    (b"\xcf\xfa\xed\xfe", "a Mach-O object"),
    (b"\xca\xfe\xba\xbe", "a Mach-O universal object"),
)
_PE_OFFSET: Final = slice(0x3C, 0x40)


def check_contents(files: Mapping[str, bytes]) -> Manifest:
    """Check a bundle's files against everything that does not depend on who signed them.

    Returns:
        The manifest that the bytes of plugin.json hold.

    Raises:
        BundleError: a name is refused, a required file is missing, or native code comes without
            the permission for it.
        ManifestError: plugin.json is not acceptable.
    """
    for path in files:
        check_path(path)
    check_set(files)
    for required, why in (
        (MANIFEST_NAME, "says what the plugin is and asks for"),
        (PACKAGE_FILE, "makes it a Python package"),
    ):
        if required not in files:
            raise BundleError(
                f"the bundle has no {required}, the file that {why}.",
                remedy="Add it at the root (`sandbox-host new` shows a complete plugin).",
            )
    manifest = parse_manifest(files[MANIFEST_NAME])
    if not manifest.permissions.native_code:
        _refuse_native(files)
    return manifest


def native_code_in(path: str, data: bytes) -> str:
    """Return what kind of native code a file is, by name or by its first bytes, or ""."""
    if _SHARED_OBJECT.fullmatch(path.lower()):
        return "a shared object, by its name"
    for magic, what in _MAGIC:
        if data.startswith(magic):
            return what
    offset = int.from_bytes(data[_PE_OFFSET], "little")
    if data.startswith(b"MZ") and data[offset : offset + 4] == b"PE\0\0":
        return "a Windows executable or library"
    return ""


def _refuse_native(files: Mapping[str, bytes]) -> None:
    for path in sorted(files):
        what = native_code_in(path, files[path])
        if what:
            raise BundleError(
                f"{shown(path)} is {what}, and plugin.json does not ask for native code.",
                remedy="Remove it, or request permissions.native_code in plugin.json and have the "
                "operator grant it.",
            )
