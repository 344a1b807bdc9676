"""The README that holds the live manifest, as a file: read, rewritten and replaced in one step.

The file is the operator's, but plugins come from directories that others write to: a link in its
place is refused, never followed, so that no other file can be made to be rewritten.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sandbox_host.catalog.manifest import read_manifest, rewrite_manifest
from sandbox_host.errors import ConfigError
from sandbox_host.model import MIB
from sandbox_host.replacing import replacing

MAX_README_BYTES: Final = MIB

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Without O_NONBLOCK a FIFO of that name would hold the host for ever.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_NEW_MODE: Final = 0o666
"""Of a new README, before the umask; a replaced one keeps its mode."""


def update_readme(
    path: Path,
    active: Mapping[str, Mapping[str, Any]],
    disabled: Mapping[str, Mapping[str, Any]],
    updated: datetime,
) -> None:
    """Bring the manifest in a README up to date; a missing README is made.

    Who reads it meanwhile sees the old text or the new. Of two hosts that keep the same file the
    last one counts.

    Args:
        path: the README, UTF-8, of at most 1 MiB; its last component must not be a symbolic link.
        active: by plugin name, what to say of each; JSON values.
        disabled: the same for those that are discovered and disabled.
        updated: when this was true, with its zone.

    Raises:
        ConfigError: it is a link, no regular file, too large, not UTF-8, or cannot be written.
    """
    _change(path, lambda text: rewrite_manifest(text, active, disabled, updated))


def revise_readme(
    path: Path,
    installed: Collection[str],
    disabled: Mapping[str, Mapping[str, Any]],
    updated: datetime,
) -> None:
    """Take out of a README's manifest what is not installed any more, or disabled.

    For whoever changes a plugin directory beside a host: what is active a host says, which sees
    the change as well if one is running. A README that is missing, or has no manifest, stays so.

    Args:
        path: as for `update_readme`.
        installed: identities of what is in the plugin directory.
        disabled: what to say of those that are disabled, by identity.
        updated: when this was true, with its zone.

    Raises:
        ConfigError: as `update_readme`.
    """

    def revised(text: str) -> str:
        before = read_manifest(text)
        if before is None:
            return text
        here = {n: one for n, one in before[0].items() if n in installed and n not in disabled}
        same = before == (here, dict(disabled))
        return text if same else rewrite_manifest(text, here, disabled, updated)

    if os.path.lexists(path):
        _change(path, revised)


def _change(path: Path, rewritten: Callable[[str], str]) -> None:
    try:
        parent = os.open(path.parent, _DIRECTORY)
        try:
            data, mode = _read(parent, path)
            text = rewritten(data.decode())
            if mode is not None and text.encode() == data:
                return
            with replacing(parent, path.name, _NEW_MODE, exactly=mode) as file:
                file.write(text.encode())
        finally:
            os.close(parent)
    except UnicodeDecodeError:
        raise _unusable(path, "is not UTF-8") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _unusable(path, "is a symbolic link, which is not followed") from None
        raise _unusable(path, f"cannot be read or replaced: {error.strerror}") from None


def _unusable(path: Path, problem: str) -> ConfigError:
    return ConfigError(
        f"The plugin manifest cannot be kept in {path}, because it {problem}.",
        remedy=f"Name a README in UTF-8 of at most {MAX_README_BYTES} bytes that you may write, in "
        "a directory that you may write.",
    )


def _read(parent: int, path: Path) -> tuple[bytes, int | None]:
    """Return the README's bytes and mode; none and None where there is no README yet."""
    try:
        descriptor = os.open(path.name, _READ, dir_fd=parent)
    except FileNotFoundError:
        return b"", None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _unusable(path, "is not a regular file")
        data = file.read(MAX_README_BYTES + 1)
    if len(data) > MAX_README_BYTES:
        raise _unusable(path, f"is larger than {MAX_README_BYTES} bytes")
    return data, stat.S_IMODE(status.st_mode)
