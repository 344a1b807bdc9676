"""Plugins and signatures for tests: written to a directory, signed, verified and staged.

Everything takes the moment `NOW` unless told otherwise, so that no test depends on a clock.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sandbox_host.bundle.contents import ENVELOPE_NAME, Contents
from sandbox_host.bundle.reader import read_directory
from sandbox_host.bundle.sign import sign
from sandbox_host.bundle.signature import PrivateKey
from sandbox_host.bundle.stage import stage
from sandbox_host.bundle.trust import Role, TrustStore
from sandbox_host.bundle.trust_edit import add_key
from sandbox_host.bundle.verify import VerifiedBundle, verify

NOW = dt.datetime(2026, 1, 31, 12, 0, 0, tzinfo=dt.UTC)

MINIMAL_SOURCE = """\
def init_plugin():
    return True


def get_metadata():
    return METADATA
"""


def make_key(seed: int = 1) -> PrivateKey:
    """Return the same key for the same `seed` (0 to 255), and different keys for different ones."""
    return PrivateKey.from_seed(bytes([seed]) * 32)


def trust_store(
    directory: Path,
    key: PrivateKey,
    patterns: Iterable[str] = ("*",),
    *,
    label: str = "test key",
    roles: Iterable[Role] = ("publisher",),
    not_before: dt.datetime | None = None,
    not_after: dt.datetime | None = None,
) -> Path:
    """Add `key` to ``directory/trust/trust.toml`` and return that path (load it, or pass it on)."""
    path = directory / "trust" / "trust.toml"
    add_key(
        path,
        key.public,
        label,
        roles=roles,
        plugins=patterns,
        not_before=not_before,
        not_after=not_after,
    )
    return path


def manifest(name: str = "sample", **overrides: Any) -> dict[str, Any]:
    """Return a minimal plugin.json as an object; a value of None removes the key."""
    value: dict[str, Any] = {
        "name": name,
        "version": "1.0.0",
        "description": "A plugin for tests.",
        "author": "the tests",
        **overrides,
    }
    return {key: entry for key, entry in value.items() if entry is not None}


def plugin_files(
    files: Mapping[str, str | bytes] | None = None, name: str = "sample", **overrides: Any
) -> dict[str, bytes]:
    """Return the files of a plugin: plugin.json, a working ``__init__.py``, and `files` over them.

    Args:
        files: content by relative path; text is encoded as UTF-8.
        name: the plugin's name.
        overrides: keys of plugin.json to set; None removes one.
    """
    described = manifest(name, **overrides)
    metadata = {
        key: described.get(key, [])
        for key in ("name", "version", "description", "author", "dependencies", "capabilities")
    }
    result = {
        "plugin.json": json.dumps(described, indent=2).encode(),
        "__init__.py": f"METADATA = {metadata!r}\n\n\n{MINIMAL_SOURCE}".encode(),
    }
    for path, content in (files or {}).items():
        result[path] = content.encode() if isinstance(content, str) else content
    return result


def write_files(directory: Path, files: Mapping[str, bytes]) -> Path:
    """Write `files` below `directory`, making directories as needed, and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return directory


def write_plugin(
    directory: Path,
    files: Mapping[str, str | bytes] | None = None,
    *,
    name: str | None = None,
    **overrides: Any,
) -> Path:
    """Write an unsigned plugin and return its directory; the name is the directory's by default."""
    return write_files(directory, plugin_files(files, name or directory.name, **overrides))


def sign_directory(
    directory: Path,
    key: PrivateKey,
    *,
    now: dt.datetime = NOW,
    expires: dt.datetime | None = None,
) -> Path:
    """Sign a plugin's directory in place, which only tests do, and return it."""
    envelope = sign(read_directory(directory), key, now, expires)
    (directory / ENVELOPE_NAME).write_bytes(envelope)
    return directory


def signed_plugin(
    directory: Path, key: PrivateKey, files: Mapping[str, str | bytes] | None = None, **options: Any
) -> Path:
    """Write and sign a plugin; `options` as for `write_plugin`."""
    return sign_directory(write_plugin(directory, files, **options), key)


def signed_contents(
    key: PrivateKey,
    files: Mapping[str, str | bytes] | None = None,
    *,
    now: dt.datetime = NOW,
    expires: dt.datetime | None = None,
    **options: Any,
) -> Contents:
    """Return signed contents that never touched a file system; `options` as for `plugin_files`."""
    plain = Contents(plugin_files(files, **options), None, "memory")
    return Contents(plain.files, sign(plain, key, now, expires), "memory")


def store_of(*keys: PrivateKey, patterns: Iterable[str] = ("*",), more: str = "") -> TrustStore:
    """Return a trust store in memory with these keys, and `more` TOML after them."""
    return TrustStore.parse((store_text(*keys, patterns=patterns) + more).encode(), "trust.toml")


def store_text(*keys: PrivateKey, patterns: Iterable[str] = ("*",), lines: str = "") -> str:
    """Return a trust store as TOML; `lines` are added to each key's table."""
    import base64

    return "".join(
        f'[[key]]\nid = "{key.key_id}"\npublic = "{base64.b64encode(key.public).decode()}"\n'
        f'label = "test key"\nroles = ["publisher"]\nplugins = {json.dumps(list(patterns))}\n'
        f"{lines}\n"
        for key in keys
    )


def verified_bundle(
    directory: Path, key: PrivateKey | None = None, now: dt.datetime = NOW
) -> VerifiedBundle:
    """Verify a signed directory with a store that trusts `key` for everything."""
    return verify(read_directory(directory), store_of(key or make_key()), now)


def staged_package(bundle: VerifiedBundle, parent: Path) -> Path:
    """Stage a bundle below `parent`, which is made private, and return the package directory."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return stage(bundle, parent)
