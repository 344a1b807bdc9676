"""Put verified bytes where a plugin's process can import them, and nobody can change them.

The copy is made of the bytes in memory, never of the directory they came from: what was swapped
there after verification is not looked at. Files are 0444 and directories 0555, for a plugin that
has a user of its own, below a parent that is ours alone; the process that imports them is confined
to reading them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

from sandbox_host.bundle.contents import ENVELOPE_NAME, Contents
from sandbox_host.bundle.names import check_path, check_set, shown
from sandbox_host.bundle.verify import VerifiedBundle
from sandbox_host.errors import ConfigError, UsageError

_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIGEST_DIGITS: Final = 12
_MAX_COPIES: Final = 1_000
"""Copies of one bundle that may lie beside each other: one per host that runs it."""


def stage(
    bundle: VerifiedBundle, parent: Path, bytecode: Mapping[str, bytes] | None = None
) -> Path:
    """Make the private copy of a verified bundle.

    Args:
        bundle: whose bytes are written.
        parent: an existing directory that is ours with mode 0700.
        bytecode: what was compiled of this very bundle, by path; it lies in ``__pycache__``, which
            no bundle may have, so that it never takes a verified file's place.

    Returns:
        The package directory ``parent/<identity>-<digest>/<identity>``. What is above it is fit
        for ``sys.path``: it holds that one package. A copy is never shared: where one lies there
        already, the new one's directory ends in ``-2``, ``-3`` and so on.

    Raises:
        ConfigError: `parent` is not private, or the copy cannot be written.
    """
    identity = bundle.manifest.identity
    name = f"{identity}-{bundle.root_digest[:_DIGEST_DIGITS]}"
    try:
        descriptor = os.open(parent, _OPEN_DIRECTORY)
    except OSError as error:
        _refuse(parent, error)
    try:
        _check_private(os.fstat(descriptor), parent)
        name = _make_unique(descriptor, name)
        try:
            _write_package(descriptor, name, identity, {**(bytecode or {}), **bundle.files})
        except BaseException:
            remove(parent / name)
            raise
    except OSError as error:
        _refuse(parent / name, error)
    finally:
        os.close(descriptor)
    return parent / name / identity


def stage_source(contents: Contents, envelope: bytes, destination: Path) -> None:
    """Write a signed copy of a source tree, with ordinary modes (0644 and 0755).

    Args:
        contents: the files; an old envelope among them is replaced.
        envelope: what `sign` returned for them.
        destination: does not exist, or is an empty directory.

    Raises:
        UsageError: `destination` is not empty, or is not a directory.
        BundleError: a name is refused.
        ConfigError: the copy cannot be written.
    """
    for path in contents.files:
        check_path(path)
    check_set(contents.files)
    try:
        destination.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(destination, _OPEN_DIRECTORY)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"{shown(str(destination))} is a file or a link.", remedy="Name a new directory."
        ) from error
    except OSError as error:
        _refuse(destination, error)
    try:
        if os.listdir(descriptor):
            raise UsageError(
                f"{shown(str(destination))} is not empty; a signed copy never overwrites anything.",
                remedy="Name a new directory, or remove this one first.",
            )
        files = {**contents.files, ENVELOPE_NAME: envelope}
        _write_tree(descriptor, files, file_mode=0o644, directory_mode=0o755)
    except OSError as error:
        _refuse(destination, error)
    finally:
        os.close(descriptor)


def remove(staged: Path) -> None:
    """Remove a private copy: the directory ``<identity>-<digest>``, or the package inside it.

    Does nothing where there is none, and never follows a link.

    Raises:
        ConfigError: it cannot be removed.
    """
    root = staged if "-" in staged.name else staged.parent
    if root.is_symlink() or not root.exists():
        return
    try:
        # Directories are 0555; to remove what is in them, their owner must make them writable.
        for _, _, _, descriptor in os.fwalk(root, follow_symlinks=False):
            os.fchmod(descriptor, stat.S_IRWXU)
        shutil.rmtree(root)
    except OSError as error:
        _refuse(root, error)


def _check_private(status: os.stat_result, parent: Path) -> None:
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError(
            f"{shown(str(parent))}, where verified copies go, is not ours alone (owner "
            f"{status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}).",
            remedy="Make it yours with mode 0700, or set another state_dir.",
        )


def _make_unique(parent: int, name: str) -> str:
    for number in range(1, _MAX_COPIES + 1):
        candidate = name if number == 1 else f"{name}-{number}"
        with contextlib.suppress(FileExistsError):
            os.mkdir(candidate, stat.S_IRWXU, dir_fd=parent)
            return candidate
    raise ConfigError(
        f"there are {_MAX_COPIES} copies of {shown(name)} already.",
        remedy="Remove those that no host uses any more.",
    )


def _write_package(parent: int, name: str, identity: str, files: Mapping[str, bytes]) -> None:
    outer = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
    try:
        os.mkdir(identity, stat.S_IRWXU, dir_fd=outer)
        inner = os.open(identity, _OPEN_DIRECTORY, dir_fd=outer)
        try:
            _write_tree(inner, files, file_mode=0o444, directory_mode=0o555)
        finally:
            os.close(inner)
        os.fchmod(outer, 0o555)
    finally:
        os.close(outer)


def _write_tree(
    root: int, files: Mapping[str, bytes], *, file_mode: int, directory_mode: int
) -> None:
    """Write `files` below an open directory, which is empty; close each directory last."""
    tree: dict[str, dict[str, bytes]] = {}
    here: dict[str, bytes] = {}
    for path, data in files.items():
        first, slash, rest = path.partition("/")
        if slash:
            tree.setdefault(first, {})[rest] = data
        else:
            here[first] = data
    for name, data in here.items():
        _write_file(root, name, data, file_mode)
    for name, below in tree.items():
        encoded = name.encode()
        os.mkdir(encoded, stat.S_IRWXU, dir_fd=root)
        descriptor = os.open(encoded, _OPEN_DIRECTORY, dir_fd=root)
        try:
            _write_tree(descriptor, below, file_mode=file_mode, directory_mode=directory_mode)
        finally:
            os.close(descriptor)
    # The umask must not decide, and a directory that is not writable can only be closed now.
    os.fchmod(root, directory_mode)


def _write_file(parent: int, name: str, data: bytes, mode: int) -> None:
    descriptor = os.open(name.encode(), _CREATE, mode, dir_fd=parent)
    try:
        os.fchmod(descriptor, mode)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


def _refuse(path: Path, error: OSError) -> NoReturn:
    raise ConfigError(
        f"the copy in {shown(str(path))} cannot be made or removed: {error.strerror or error}.",
        remedy="Check the directory's permissions and the space left.",
    ) from error
