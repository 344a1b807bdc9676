"""The plugins below a directory, as their plugin.json says; one bad one never hides the others.

A plugin is a directory or a ``.plugin`` archive. Every open is relative to a descriptor and follows
no link, so that a name swapped while it is read leads nowhere else. Nothing of a plugin but its
plugin.json is read.
"""

from __future__ import annotations

import enum
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sandbox_host.bundle import archive
from sandbox_host.bundle.archive_format import SUFFIX
from sandbox_host.bundle.contents import MANIFEST_NAME
from sandbox_host.bundle.plugin_json import MAX_MANIFEST_BYTES, parse_manifest
from sandbox_host.catalog.fingerprint import is_tools_own
from sandbox_host.errors import BundleError, ConfigError, ManifestError
from sandbox_host.model import Manifest
from sandbox_host.reading import escaped

MAX_ENTRIES: Final = 10_000
"""Names in the directory, plugins or not; more is a mistake, and each is a few system calls."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK a plugin.json that is a FIFO would hold the host for ever.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class DiscoveredState(enum.StrEnum):
    """What discovery knows of a plugin."""

    FOUND = "found"
    DISABLED = "disabled"
    UNREADABLE = "unreadable"
    UNVERIFIED = "unverified"
    """Readable, and not what a trusted key signed; only who verifies says so, `discover` does not.
    """
    WAITING = "waiting"
    """Verified, and lacks what it needs; only who has seen all the others says so."""


@dataclass(frozen=True, slots=True)
class Discovered:
    """One plugin.

    Attributes:
        path: its directory or archive.
        name: as plugin.json has it; None where it cannot be read.
        state: "found", "disabled" (``config.enabled`` is false) or "unreadable".
        reason: why it is disabled or unreadable, on one line; "" for a found one.
        manifest: plugin.json; None where it cannot be read. Unverified: for listings only.
    """

    path: Path
    name: str | None
    state: DiscoveredState
    reason: str = ""
    manifest: Manifest | None = None


def _read_manifest(directory_fd: int, name: str) -> bytes | None:
    """Return plugin.json of one name in the directory, at most one byte more than is allowed.

    Returns None where `name` is no plugin: without plugin.json, or a file but no archive.

    Raises:
        OSError: it cannot be opened or read.
        ManifestError: it is a link, or its plugin.json is no regular file.
        BundleError: it is called an archive, and is none of ours.
    """
    mode = os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        raise ManifestError("it is a symbolic link, and links are not followed")
    if stat.S_ISDIR(mode):
        return _in_directory(directory_fd, name)
    return _in_archive(directory_fd, name) if name.endswith(SUFFIX) else None


def _in_archive(directory_fd: int, name: str) -> bytes | None:
    descriptor = os.open(name, _FILE, dir_fd=directory_fd)
    try:
        return archive.read_manifest(descriptor, name, MAX_MANIFEST_BYTES)
    finally:
        os.close(descriptor)


def _in_directory(directory_fd: int, name: str) -> bytes | None:
    plugin_fd = os.open(name, _DIRECTORY, dir_fd=directory_fd)
    try:
        found = os.stat(MANIFEST_NAME, dir_fd=plugin_fd, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode):
            raise ManifestError(f"its {MANIFEST_NAME} is not a regular file")
        with os.fdopen(os.open(MANIFEST_NAME, _FILE, dir_fd=plugin_fd), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ManifestError(f"its {MANIFEST_NAME} is not a regular file")
            return file.read(MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError:
        return None
    finally:
        os.close(plugin_fd)


def _discover_one(directory_fd: int, directory: Path, name: str) -> Discovered | None:
    path = directory / name
    try:
        data = _read_manifest(directory_fd, name)
        if data is None:
            return None
        manifest = parse_manifest(data)
    except FileNotFoundError:
        return None
    except (BundleError, ManifestError) as error:
        return Discovered(path, None, DiscoveredState.UNREADABLE, escaped(str(error), 1_000))
    except OSError as error:
        reason = f"it cannot be read: {error.strerror}"
        return Discovered(path, None, DiscoveredState.UNREADABLE, reason)
    if not manifest.enabled:
        reason = "config.enabled is false"
        return Discovered(path, manifest.name, DiscoveredState.DISABLED, reason, manifest)
    return Discovered(path, manifest.name, DiscoveredState.FOUND, "", manifest)


def names_in(directory_fd: int, directory: Path) -> list[str]:
    """Return the names in an open plugin directory that may be plugins', sorted.

    Raises:
        ConfigError: it has more than 10,000 entries; `directory` is what the message calls it.
        OSError: it cannot be read.
    """
    names: list[str] = []
    with os.scandir(directory_fd) as entries:
        for entry in entries:
            if len(names) >= MAX_ENTRIES:
                raise ConfigError(
                    f"The plugin directory {directory} has more than {MAX_ENTRIES} entries.",
                    remedy="Name the directory that holds the plugins' own directories.",
                )
            if not is_tools_own(entry.name):
                names.append(entry.name)
    return sorted(names)


def _without_clashes(found: list[Discovered]) -> list[Discovered]:
    """Mark plugins of one identity as unreadable: which of them is meant nobody can tell."""
    homes: dict[str, list[str]] = {}
    for one in found:
        if one.manifest:
            homes.setdefault(one.manifest.identity, []).append(one.path.name)
    return [_told_apart(one, homes) for one in found]


def _told_apart(one: Discovered, homes: dict[str, list[str]]) -> Discovered:
    same = homes[one.manifest.identity] if one.manifest else []
    others = ", ".join(name for name in same if name != one.path.name)
    if not others:
        return one
    reason = f"its name is also that of the plugin in {escaped(others, 200)}"
    return replace(one, state=DiscoveredState.UNREADABLE, reason=reason)


def open_plugins(directory: Path) -> int:
    """Return a descriptor of a plugin directory, which may be a link; whoever asks closes it.

    Raises:
        ConfigError: it cannot be opened.
    """
    try:
        return os.open(directory, _DIRECTORY & ~os.O_NOFOLLOW)
    except OSError as error:
        raise ConfigError(
            f"The plugin directory {directory} cannot be read: {error.strerror}.",
            remedy="Name a directory that holds the plugins' own directories.",
        ) from None


def discover(directory: str | os.PathLike[str]) -> list[Discovered]:
    """Return the plugins directly below `directory`, sorted by path.

    A subdirectory without plugin.json is not a plugin and is not listed; nor is a file that is
    not called ``*.plugin``, or what is hidden.

    Raises:
        ConfigError: `directory` itself cannot be read, or has more than 10,000 entries.
    """
    path = Path(directory)
    directory_fd = open_plugins(path)
    try:
        names = names_in(directory_fd, path)
        found = [_discover_one(directory_fd, path, name) for name in names]
    finally:
        os.close(directory_fd)
    return _without_clashes([one for one in found if one])
