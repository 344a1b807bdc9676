"""Signing a store, pinning its root, taking over the next one, exchanging the root."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox_host.bundle import trust_install
from sandbox_host.bundle.protected import replace_public
from sandbox_host.bundle.signature import PrivateKey
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.trust_install import Installed, install_store, pin_root, sign_store
from sandbox_host.bundle.trust_root import pin_path, read_pin, read_signatures, signature_path
from sandbox_host.errors import TrustStoreError
from tests.support.bundles import make_key, store_text

ROOT, NEXT, KEY, OTHER = (make_key(seed) for seed in (1, 2, 3, 4))


def _names_root(key: PrivateKey) -> str:
    return f'[root]\npublic = "{base64.b64encode(key.public).decode()}"\n'


class Desk:
    """Where the root's key is, and the machine that runs plugins."""

    def __init__(self, root: Path) -> None:
        self.draft = root / "offline" / "fleet.toml"
        self.store = root / "host" / "trust.toml"
        for file in (self.draft, self.store):
            file.parent.mkdir(mode=0o700)

    def write(self, version: int, *signers: PrivateKey, more: str = "") -> Path:
        """Write a store of this version and have these keys sign it."""
        self.draft.write_text(f"version = {version}\n{store_text(KEY)}{more}")
        self.draft.chmod(0o600)
        signature_path(self.draft).unlink(missing_ok=True)
        for key in signers:
            sign_store(self.draft, key)
        return self.draft

    def install(self, version: int, *signers: PrivateKey, more: str = "") -> Installed:
        return install_store(self.store, self.write(version, *signers, more=more))

    def loaded(self) -> TrustStore:
        return TrustStore.load(self.store)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A machine that holds its store to `ROOT`, with version 1 in place."""
    made = Desk(tmp_path)
    pin_root(made.store, ROOT.public)
    made.install(1, ROOT)
    return made


def test_a_newer_store_is_taken_over(desk: Desk) -> None:
    assert desk.loaded().version == 1
    assert desk.install(2, ROOT) == Installed(2, ROOT.key_id, rotated=False, changed=True)
    assert desk.loaded().version == 2
    assert desk.loaded().mark.root == ROOT.key_id


def test_the_same_store_again_changes_nothing(desk: Desk) -> None:
    before = {file: file.read_bytes() for file in desk.store.parent.iterdir()}
    assert desk.install(1, ROOT) == Installed(1, ROOT.key_id, rotated=False, changed=False)
    assert {file: file.read_bytes() for file in desk.store.parent.iterdir()} == before


@pytest.mark.parametrize(
    ("version", "signers", "more", "words"),
    [
        pytest.param(1, (ROOT,), "# other\n", "version 1, and version 1 is in place", id="same"),
        pytest.param(0, (ROOT,), "", "version 0, and version 1 is in place", id="older"),
        pytest.param(2, (), "", "cannot be read", id="unsigned"),
        pytest.param(2, (OTHER,), "", "not signed by the root key", id="another root"),
        pytest.param(
            2, (NEXT,), _names_root(NEXT), "not signed by the root key", id="only the new root"
        ),
        pytest.param(
            2, (ROOT,), _names_root(NEXT), "not signed by the root key", id="only the old root"
        ),
    ],
)
def test_what_is_not_taken_over(
    desk: Desk, version: int, signers: tuple[PrivateKey, ...], more: str, words: str
) -> None:
    before = {file: file.read_bytes() for file in desk.store.parent.iterdir()}
    with pytest.raises(TrustStoreError) as caught:
        desk.install(version, *signers, more=more)
    assert words in caught.value.message
    assert caught.value.remedy
    assert {file: file.read_bytes() for file in desk.store.parent.iterdir()} == before


def test_the_caller_may_refuse_it_too(desk: Desk) -> None:
    def refuse(store: TrustStore) -> None:
        raise TrustStoreError(f"version {store.version} was seen before")

    with pytest.raises(TrustStoreError, match="version 2 was seen"):
        install_store(desk.store, desk.write(2, ROOT), refuse)
    assert desk.loaded().version == 1


def test_a_store_that_is_too_large_is_not_read(desk: Desk) -> None:
    draft = desk.write(2, ROOT)
    with draft.open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(TrustStoreError, match="larger than"):
        install_store(desk.store, draft)


# -- the root ----------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [lambda path: path, signature_path], ids=["store", "signature"])
def test_nothing_is_waited_for_where_there_should_be_a_file(
    desk: Desk, which: Callable[[Path], Path]
) -> None:
    draft = which(desk.write(2, ROOT))
    draft.unlink()
    os.mkfifo(draft)
    with pytest.raises(TrustStoreError, match="no regular file"):
        install_store(desk.store, desk.draft)


def test_the_root_is_exchanged_by_a_store_that_both_signed(desk: Desk) -> None:
    done = desk.install(2, ROOT, NEXT, more=_names_root(NEXT))
    assert done == Installed(2, NEXT.key_id, rotated=True, changed=True)
    assert read_pin(desk.store) == NEXT.public
    assert desk.loaded().mark.root == NEXT.key_id
    # From now on the new one alone decides, and the old one not at all.
    with pytest.raises(TrustStoreError, match="not signed by the root key"):
        desk.install(3, ROOT)
    assert desk.install(3, NEXT).version == 3
    assert desk.install(4, NEXT, more=_names_root(NEXT)).rotated is False


def test_a_store_that_names_its_own_root_exchanges_nothing(desk: Desk) -> None:
    assert desk.install(2, ROOT, more=_names_root(ROOT)).rotated is False


@pytest.mark.parametrize("stop_at", ["signatures", "store", "pin"])
def test_readers_find_a_good_store_whenever_installing_stops(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, stop_at: str
) -> None:
    """Power fails between two files: what is there loads, and installing again ends it."""
    target = {
        "signatures": signature_path(desk.store),
        "store": desk.store,
        "pin": pin_path(desk.store),
    }[stop_at]

    def failing(path: Path, data: bytes, what: str) -> None:
        if path == target:
            raise OSError("power failed")
        replace_public(path, data, what)

    draft = desk.write(2, ROOT, NEXT, more=_names_root(NEXT))
    monkeypatch.setattr(trust_install, "replace_public", failing)
    with pytest.raises(OSError, match="power failed"):
        install_store(desk.store, draft)
    assert desk.loaded().version == (2 if stop_at == "pin" else 1)
    assert desk.loaded().mark.root == ROOT.key_id
    monkeypatch.undo()
    assert install_store(desk.store, draft).rotated
    assert (desk.loaded().version, desk.loaded().mark.root) == (2, NEXT.key_id)


def test_a_reader_that_saw_the_old_store_finds_its_signature_in_the_new_file(desk: Desk) -> None:
    old = desk.store.read_bytes()
    desk.install(2, ROOT)
    desk.store.write_bytes(old)
    assert desk.loaded().version == 1
    desk.install(2, ROOT)
    desk.install(3, ROOT)
    assert len(read_signatures(desk.store)) == 2


def test_a_store_that_was_edited_in_place_is_repaired_by_the_next(desk: Desk) -> None:
    desk.store.write_text("version = 1\n")
    with pytest.raises(TrustStoreError):
        desk.loaded()
    assert desk.install(2, ROOT).changed
    assert desk.loaded().version == 2


# -- the pin -----------------------------------------------------------------------------------


def test_a_root_is_pinned_once(desk: Desk) -> None:
    for key in (ROOT, NEXT):
        with pytest.raises(TrustStoreError, match="held to a root already"):
            pin_root(desk.store, key.public)
    assert read_pin(desk.store) == ROOT.public


def test_nothing_is_taken_over_without_a_pin(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    with pytest.raises(TrustStoreError, match="no root is pinned"):
        desk.install(1, ROOT)
    assert not list(desk.store.parent.iterdir())


def test_a_store_that_is_there_must_be_signed_to_be_held_to_a_root(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    draft = desk.write(1)
    with pytest.raises(TrustStoreError, match="not signed by the root key"):
        pin_root(draft, ROOT.public)
    assert read_pin(draft) is None
    sign_store(draft, OTHER)
    with pytest.raises(TrustStoreError, match="not signed by the root key"):
        pin_root(draft, ROOT.public)
    sign_store(draft, ROOT)
    pin_root(draft, ROOT.public)
    assert TrustStore.load(draft).mark.root == ROOT.key_id


# -- signing -----------------------------------------------------------------------------------


def test_signing_again_replaces_the_keys_own_line_only(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    draft = desk.write(1, ROOT, NEXT)
    first = {one.key_id: one.value for one in read_signatures(draft)}
    assert set(first) == {ROOT.key_id, NEXT.key_id}
    draft.write_text("version = 2\n")
    assert sign_store(draft, ROOT).version == 2
    second = {one.key_id: one.value for one in read_signatures(draft)}
    assert second[ROOT.key_id] != first[ROOT.key_id]
    assert second[NEXT.key_id] == first[NEXT.key_id]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: signature_path(file).write_bytes(b"broken\n"),
        lambda file: signature_path(file).chmod(0o666),
    ],
    ids=["broken", "unprotected"],
)
def test_signatures_that_cannot_be_read_are_replaced(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    draft = Desk(tmp_path).write(1, ROOT, NEXT)
    spoil(draft)
    sign_store(draft, ROOT)
    assert [one.key_id for one in read_signatures(draft)] == [ROOT.key_id]


def test_a_broken_store_is_not_signed(tmp_path: Path) -> None:
    draft = Desk(tmp_path).write(1)
    draft.write_text("broken")
    with pytest.raises(TrustStoreError, match="not TOML"):
        sign_store(draft, ROOT)
    assert not signature_path(draft).exists()


def test_what_was_installed_can_be_copied_to_another_machine(desk: Desk, tmp_path: Path) -> None:
    """All three files together are what a host needs, wherever they lie."""
    other = tmp_path / "other host"
    shutil.copytree(desk.store.parent, other)
    assert TrustStore.load(other / "trust.toml").mark == desk.loaded().mark
