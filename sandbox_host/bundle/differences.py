"""How the bytes at hand differ from those that were signed, in words that tell the cases apart."""

from __future__ import annotations

from collections.abc import Mapping

from sandbox_host.bundle.contents import digest_of
from sandbox_host.bundle.envelope import FileEntry
from sandbox_host.bundle.names import shown


def differences(signed: tuple[FileEntry, ...], files: Mapping[str, bytes]) -> list[str]:
    """Compare the signed list with the files, and return one sentence a difference.

    Sorted by path, so that the first is the same on every machine. Empty means that the set of
    files, each size and each SHA-256 are exactly what was signed.
    """
    found = _by_path(signed, files)
    return [found[path] for path in sorted(found)]


def first_difference(
    signed: tuple[FileEntry, ...], files: Mapping[str, bytes]
) -> tuple[str, str, str] | None:
    """Return the file of the first sentence of `differences`, as `VerificationError.differing`."""
    path = min(_by_path(signed, files), default=None)
    if path is None:
        return None
    expected = next((entry.sha256 for entry in signed if entry.path == path), "")
    return path, expected, digest_of(files[path]) if path in files else ""


def _by_path(signed: tuple[FileEntry, ...], files: Mapping[str, bytes]) -> dict[str, str]:
    expected = {entry.path: entry.sha256 for entry in signed}
    actual = {path: digest_of(data) for path, data in files.items()}
    found = _only_on_one_side(expected, actual) | _changed(expected, actual)
    for entry in signed:
        if actual.get(entry.path) == entry.sha256 and len(files[entry.path]) != entry.size:
            found[entry.path] = f"{shown(entry.path)} does not have the {entry.size} bytes signed"
    return found


def _only_on_one_side(expected: Mapping[str, str], actual: Mapping[str, str]) -> dict[str, str]:
    """Explain the names that only one side has: renamed, removed or added."""
    extra: dict[str, list[str]] = {}
    for path in sorted(actual.keys() - expected.keys(), reverse=True):
        extra.setdefault(actual[path], []).append(path)
    found: dict[str, str] = {}
    for path in sorted(expected.keys() - actual.keys()):
        digest = expected[path]
        twins = extra.get(digest)
        if twins:
            found[path] = (
                f"{shown(path)} was renamed to {shown(twins.pop())}; its content is the signed "
                f"one (SHA-256 {digest})"
            )
        else:
            found[path] = f"{shown(path)} was removed; it was signed with SHA-256 {digest}"
    for digest, paths in extra.items():
        for path in paths:
            found[path] = f"{shown(path)} was added; it has SHA-256 {digest} and is not signed"
    return found


def _changed(expected: Mapping[str, str], actual: Mapping[str, str]) -> dict[str, str]:
    """Explain the files whose content is not the signed one: two names swapped, or changed."""
    changed = [
        path for path in sorted(expected.keys() & actual.keys()) if expected[path] != actual[path]
    ]
    by_hashes = {(expected[path], actual[path]): path for path in reversed(changed)}
    found: dict[str, str] = {}
    swapped: set[str] = set()
    for path in changed:
        hashes = f"signed with SHA-256 {expected[path]}, found {actual[path]}"
        twin = by_hashes.get((actual[path], expected[path]))
        if path in swapped:
            continue
        if twin is None:
            found[path] = f"{shown(path)} was changed: {hashes}"
        else:
            swapped.add(twin)
            found[path] = f"{shown(path)} and {shown(twin)} swapped their names ({hashes})"
    return found
