"""Add to a trust store and revoke in it, keeping the operator's own lines and comments.

An edit is a block of TOML appended to the text, and one more in its counter, `version`. The result
is parsed strictly before it replaces the file, so an edit can never leave a store that the next
load refuses, and an edit that would mean something else than intended is not written.

Where a root is pinned, nothing is edited: only its key can make the next store.
"""

from __future__ import annotations

import base64
import datetime as dt
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sandbox_host.bundle.names import shown
from sandbox_host.bundle.protected import (
    TRUST_STORE,
    locked_directory,
    read_public,
    replace_public,
)
from sandbox_host.bundle.signature import key_id
from sandbox_host.bundle.trust import (
    MAX_STORE_BYTES,
    Revocation,
    Role,
    Threshold,
    TrustedKey,
    TrustStore,
)
from sandbox_host.bundle.trust_root import pin_path
from sandbox_host.errors import TrustStoreError

_WHAT: Final = TRUST_STORE
_HEADER: Final = """\
# Whose signatures this host believes. `sandbox-host trust` adds and revokes; editing by hand is
# fine too. Unknown keys, weak keys and a file that others may write are refused.
version = 0
"""
# At the beginning of the text, where TOML has no table yet.
_VERSION: Final = re.compile(r"\A((?:[ \t]*(?:#[^\n]*)?\n)*)version[ \t]*=[ \t]*([0-9_]+)")


def add_key(
    path: Path,
    public: bytes,
    label: str,
    *,
    roles: Iterable[Role] = ("publisher",),
    plugins: Iterable[str],
    not_before: dt.datetime | None = None,
    not_after: dt.datetime | None = None,
) -> TrustedKey:
    """Trust a raw public key, and return its entry. The file is made if there is none.

    Args:
        path: the store.
        public: 32 raw bytes.
        label: a name for people, on one line.
        roles: why the key is trusted.
        plugins: patterns of plugin identities that the key may sign.
        not_before: from when on the key counts; None is "always did".
        not_after: until when; None is "until it is revoked".

    Raises:
        TrustStoreError: the key is weak, known already or revoked; a value is not acceptable; the
            store cannot be read or written.
    """
    key = TrustedKey(
        key_id(public), public, label, tuple(roles), tuple(plugins), not_before, not_after
    )
    with locked_directory(path.parent, _WHAT):
        text = _current(path)
        store = TrustStore.parse(text.encode(), str(path))
        if key.id in store.revoked:
            raise TrustStoreError(
                f"the key {key.id} was revoked on {store.revoked[key.id].date}: "
                f"{shown(store.revoked[key.id].reason)}.",
                remedy="Make a new key (`sandbox-host keygen`); a revoked one never counts again.",
            )
        if key.id in store.keys:
            raise TrustStoreError(
                f"the key {key.id} is in {shown(str(path))} already, as "
                f"{shown(store.keys[key.id].label)} for {store.keys[key.id].scope}.",
                remedy="Edit that entry to change its scope or validity.",
            )
        added = _write(path, store, text + _key_block(key))
    return added.keys[key.id]


def revoke(path: Path, revocation: Revocation) -> TrustStore:
    """Revoke a key or a bundle for good, and return the store as it was before.

    A key's entry, if there is one, stays as a record. What was revoked already stays so, with the
    first reason.

    Raises:
        TrustStoreError: the subject is not a digest, or the store cannot be read or written.
    """
    with locked_directory(path.parent, _WHAT):
        text = _current(path)
        store = TrustStore.parse(text.encode(), str(path))
        if revocation.subject not in store.revoked:
            _write(path, store, text + _revoked_block(revocation))
        return store


def add_threshold(path: Path, threshold: Threshold) -> TrustStore:
    """Ask for more distinct keys on some plugins, and return the store as it is then.

    An entry never lowers what another asks for: the greatest number that applies counts.

    Raises:
        TrustStoreError: a value is not acceptable; the store cannot be read or written.
    """
    with locked_directory(path.parent, _WHAT):
        text = _current(path)
        store = TrustStore.parse(text.encode(), str(path))
        return _write(path, store, text + _threshold_block(threshold))


def _current(path: Path) -> str:
    """Return the store's text, ready to be appended to."""
    if os.path.lexists(pin_path(path)):
        raise TrustStoreError(
            f"{_WHAT} {shown(str(path))} belongs to a root key, and is not edited here.",
            remedy="Edit it where the root's key is, sign it there (`sandbox-host trust sign`), "
            "and take it over with `sandbox-host trust install`.",
        )
    if not os.path.lexists(path):
        return _HEADER
    data = read_public(path, MAX_STORE_BYTES, _WHAT)
    TrustStore.parse(data, str(path))
    text = data.decode()
    return text if text.endswith("\n") or not text else text + "\n"


def _write(path: Path, before: TrustStore, text: str) -> TrustStore:
    text = _counted(text, before.version + 1)
    try:
        store = TrustStore.parse(text.encode(), str(path))
    except TrustStoreError as error:
        raise TrustStoreError(
            f"the change was not made, because the result would not be valid: {error.message}",
            remedy="Correct the values; or edit the file by hand where it does not use [[key]] "
            "and [[revoked]] tables.",
        ) from error
    if store.version != before.version + 1:
        raise TrustStoreError(
            f"the change was not made, because the counter of {shown(str(path))} was not found.",
            remedy="Put `version = N` into the first line that is no comment.",
        )
    replace_public(path, text.encode(), _WHAT)
    return store


def _counted(text: str, version: int) -> str:
    """Return a store's text with another counter; it is put first where there was none."""
    counted, found = _VERSION.subn(rf"\g<1>version = {version}", text)
    return counted if found else f"version = {version}\n{text}"


def _key_block(key: TrustedKey) -> str:
    lines = [
        "",
        "[[key]]",
        f"id = {_quoted(key.id)}",
        f"public = {_quoted(base64.b64encode(key.public).decode())}",
        f"label = {_quoted(key.label)}",
        f"roles = {_array(key.roles)}",
        f"plugins = {_array(key.plugins)}",
    ]
    for name, moment in (("not_before", key.not_before), ("not_after", key.not_after)):
        if moment is not None:
            lines.append(f"{name} = {moment.isoformat()}")
    return "\n".join(lines) + "\n"


def _revoked_block(revocation: Revocation) -> str:
    lines = [
        "",
        "[[revoked]]",
        f"{revocation.kind} = {_quoted(revocation.subject)}",
        f"reason = {_quoted(revocation.reason)}",
        f"date = {revocation.date.isoformat()}",
    ]
    return "\n".join(lines) + "\n"


def _threshold_block(threshold: Threshold) -> str:
    plugins = f"plugins = {_array(threshold.plugins)}"
    return f"\n[[threshold]]\n{plugins}\ncount = {threshold.count}\n"


def _array(values: Iterable[str]) -> str:
    return "[" + ", ".join(_quoted(value) for value in values) + "]"


def _quoted(text: str) -> str:
    """Return a TOML basic string.

    Raises:
        TrustStoreError: the text holds what a line of the store should not: control characters
            and the like have no business in a label.
    """
    if not text.isprintable():
        raise TrustStoreError(
            f"{shown(text)} is not printable text on one line.", remedy="Use plain words."
        )
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
