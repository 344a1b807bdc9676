"""Sign a trust store with its root key, pin that root, and take over the next store it signed.

Nothing here is needed to verify a plugin: `TrustStore.load` reads what this leaves.

A store is replaced file by file while hosts read it, so the order matters. They read pin, store,
signatures; here signatures are written first (the new store's and the old one's together), then
the store, then the pin. Whatever mixture a reader gets, it is a good one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox_host.bundle.envelope import MAX_SIGNATURES
from sandbox_host.bundle.names import shown
from sandbox_host.bundle.protected import (
    TRUST_STORE,
    create_public,
    locked_directory,
    read_public,
    replace_public,
)
from sandbox_host.bundle.public_keys import format_public_key
from sandbox_host.bundle.sign import Signer, signature_of
from sandbox_host.bundle.signature import key_id
from sandbox_host.bundle.trust import MAX_STORE_BYTES, TrustStore
from sandbox_host.bundle.trust_root import (
    MAX_SIGNATURE_FILE_BYTES,
    PIN,
    STORE_SIGNATURE,
    RootSignature,
    check_signed,
    good_signature,
    parse_signatures,
    pin_path,
    read_pin,
    read_signatures,
    render_signatures,
    signature_path,
    store_message,
)
from sandbox_host.errors import TrustStoreError

_OPEN: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Installed:
    """What `install_store` did.

    Attributes:
        version: of the store that is in place now.
        root: id of the root key that is pinned now.
        rotated: another root was pinned before.
        changed: something was written; False where this store was in place already.
    """

    version: int
    root: str
    rotated: bool
    changed: bool


def sign_store(path: Path, signer: Signer) -> TrustStore:
    """Sign the store at `path`, and put the signature into the file beside it.

    It replaces that key's own; those of other keys stay, so that in a rotation the old and the new
    root can sign one after the other.

    Raises:
        TrustStoreError: the store or its signatures cannot be read or written.
        SignerError: the signer did not sign.
    """
    with locked_directory(path.parent, TRUST_STORE):
        data = read_public(path, MAX_STORE_BYTES, TRUST_STORE)
        store = TrustStore.parse(data, str(path))
        mine = RootSignature(key_id(signer.public), signature_of(signer, store_message(data)))
        others = [one for one in _old_signatures(path) if one.key_id != mine.key_id]
        lines = [mine, *others[: MAX_SIGNATURES - 1]]
        replace_public(signature_path(path), render_signatures(lines), STORE_SIGNATURE)
    return store


def pin_root(path: Path, root: bytes) -> None:
    """Hold the store at `path` to the raw key `root` from now on.

    Raises:
        TrustStoreError: a root is pinned already; the store is there and not signed by this one;
            the pin cannot be written.
    """
    with locked_directory(path.parent, TRUST_STORE):
        if read_pin(path) is not None:
            raise TrustStoreError(
                f"{shown(str(path))} is held to a root already.",
                remedy="A root is exchanged by a store that the old and the new one signed: "
                "`sandbox-host trust install`.",
            )
        if os.path.lexists(path):
            data = read_public(path, MAX_STORE_BYTES, TRUST_STORE)
            check_signed(root, data, read_signatures(path), f"{TRUST_STORE} {shown(str(path))}")
        create_public(pin_path(path), _pin(root), PIN)


def install_store(
    path: Path, candidate: Path, check: Callable[[TrustStore], None] = lambda _: None
) -> Installed:
    """Replace the store at `path` by `candidate`, which the pinned root signed.

    Args:
        path: the store that hosts read; a root is pinned beside it.
        candidate: the new store, with its signatures in a file beside it, from anywhere.
        check: may refuse the new store once its signatures are found good.

    Raises:
        TrustStoreError: no root is pinned; the candidate is malformed, not signed by it, not newer,
            or names a new root that has not signed it; a file cannot be read or written.
    """
    with locked_directory(path.parent, TRUST_STORE):
        root = read_pin(path)
        if root is None:
            raise TrustStoreError(
                f"no root is pinned for {shown(str(path))}, so nothing can be taken over.",
                remedy="Pin the root's public key, from a source that you trust, with "
                "`sandbox-host trust root`.",
            )
        data = _read_candidate(candidate, MAX_STORE_BYTES)
        signatures = parse_signatures(
            _read_candidate(signature_path(candidate), MAX_SIGNATURE_FILE_BYTES), str(candidate)
        )
        what = f"{TRUST_STORE} {shown(str(candidate))}"
        check_signed(root, data, signatures, what)
        store = TrustStore.parse(data, str(candidate), key_id(root))
        new_root = store.next_root or root
        check_signed(new_root, data, signatures, what)
        check(store)
        current = _current(path, root)
        known = current is not None and current.store.mark.digest == store.mark.digest
        if not known:
            _check_newer(store, current)
            good = [
                good_signature(key, data, signatures) for key in dict.fromkeys((root, new_root))
            ]
            old = [current.signature] if current else []
            lines = render_signatures(one for one in (*good, *old) if one is not None)
            replace_public(signature_path(path), lines, STORE_SIGNATURE)
            replace_public(path, data, TRUST_STORE)
        if new_root != root:
            replace_public(pin_path(path), _pin(new_root), PIN)
    rotated = new_root != root
    return Installed(store.version, key_id(new_root), rotated, changed=rotated or not known)


@dataclass(frozen=True, slots=True)
class _Current:
    """The store in place, and the root's signature of it, for whoever is reading it now."""

    store: TrustStore
    signature: RootSignature


def _current(path: Path, root: bytes) -> _Current | None:
    """Return the store in place; None where there is none, or none that the root signed.

    What no host can load may be replaced by any store of the root's: this is how it is repaired.
    """
    if not os.path.lexists(path):
        return None
    data = read_public(path, MAX_STORE_BYTES, TRUST_STORE)
    signature = good_signature(root, data, _old_signatures(path))
    if signature is None:
        return None
    return _Current(TrustStore.parse(data, str(path), key_id(root)), signature)


def _check_newer(store: TrustStore, current: _Current | None) -> None:
    if current is not None and store.version <= current.store.version:
        raise TrustStoreError(
            f"{shown(store.origin)} has version {store.version}, and version "
            f"{current.store.version} is in place: only a newer one is taken over.",
            remedy="Raise `version` in it with every change, and sign it again.",
        )


def _old_signatures(path: Path) -> tuple[RootSignature, ...]:
    try:
        return read_signatures(path)
    except TrustStoreError:
        # What is about to be replaced need not be readable.
        return ()


def _read_candidate(path: Path, most: int) -> bytes:
    """Read a file that its signature vouches for, not its owner or mode."""
    try:
        # Where it came from there may be a FIFO, which must not hold us up.
        with os.fdopen(os.open(path, _OPEN), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(None, "it is no regular file")
            data = file.read(most + 1)
    except OSError as error:
        raise TrustStoreError(
            f"{shown(str(path))} cannot be read: {error.strerror}.",
            remedy="Give the new store, with its signature file beside it (`.sig`).",
        ) from error
    if len(data) > most:
        raise TrustStoreError(
            f"{shown(str(path))} is larger than the {most} bytes allowed.",
            remedy="Check that this is the file you mean.",
        )
    return data


def _pin(root: bytes) -> bytes:
    return f"{format_public_key(root, 'root')}\n".encode()
