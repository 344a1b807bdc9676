"""The trust store: who may write it, what it says, who vouches for it, and whom it lets through."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from sandbox_host.bundle.curve import FIELD_PRIME
from sandbox_host.bundle.envelope import pre_authentication_encoding
from sandbox_host.bundle.public_keys import format_public_key
from sandbox_host.bundle.signature import PrivateKey
from sandbox_host.bundle.statement import list_files, root_digest_of
from sandbox_host.bundle.trust import MAX_STORE_BYTES
from sandbox_host.bundle.trust_root import (
    RootSignature,
    pin_path,
    render_signatures,
    signature_path,
    store_message,
)
from sandbox_host.errors import TrustStoreError, UntrustedError
from tests.support.bundles import make_key
from tests.support.forgeries import KEY, OTHER_KEY, REVOKED_KEY, signed_by
from tests.support.tampering import (
    GOOD,
    TRUST,
    Bench,
    Case,
    Tamper,
    as_contents,
    both,
    named,
    sampled,
    with_trust,
)

pytestmark = pytest.mark.timeout(60)

ROOT, STRANGER = make_key(50), make_key(51)
DIGEST: Final = root_digest_of(list_files(GOOD.files))
PUBLIC: Final = base64.b64encode(KEY.public).decode()
OTHER: Final = (
    TRUST.replace(KEY.key_id, OTHER_KEY.key_id)
    .replace(PUBLIC, base64.b64encode(OTHER_KEY.public).decode())
    .replace("test key", "other key")
)
NO = TrustStoreError


def key_with(lines: str) -> Tamper:
    """Add lines to the key's table."""
    return with_trust(TRUST.rstrip() + f"\n{lines}\n")


def store_with(more: str) -> Tamper:
    """Add tables to the store."""
    return with_trust(TRUST + more)


def store(old: str, new: str) -> Tamper:
    assert old in TRUST
    return with_trust(TRUST.replace(old, new))


def weak(public: bytes) -> Tamper:
    """Trust another key, of any bytes, under the right id."""
    text = TRUST.replace(KEY.key_id, hashlib.sha256(public).hexdigest())
    return with_trust(text.replace(PUBLIC, base64.b64encode(public).decode()))


def mode(of_file: int = 0o600, of_directory: int = 0o700) -> Tamper:
    def do(bench: Bench) -> None:
        bench.trust.chmod(of_file)
        bench.trust.parent.chmod(of_directory)

    return do


def owned(change: Callable[[Path], None]) -> Tamper:
    def do(bench: Bench) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        change(bench.trust)

    return do


def replaced(make: Callable[[Path], object]) -> Tamper:
    """Put something else in the file's place."""

    def do(bench: Bench) -> None:
        bench.trust.unlink()
        make(bench.trust)

    return do


def _link(bench: Bench) -> None:
    real = bench.trust.rename(bench.trust.with_name("real.toml"))
    bench.trust.symlink_to(real)


def _no_directory(bench: Bench) -> None:
    shutil.rmtree(bench.trust.parent)


def _linked_directory(bench: Bench) -> None:
    """Whose directory it is counts, not what leads there."""
    real = bench.trust.parent.rename(bench.scene / "elsewhere")
    bench.trust.parent.symlink_to(real)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


# -- the root that vouches for it --------------------------------------------------------------


def pinned(root: PrivateKey = ROOT) -> Tamper:
    def do(bench: Bench) -> None:
        bench.write_trust(f"{format_public_key(root.public)}\n", pin_path(bench.trust))

    return do


def root_signed(
    *keys: PrivateKey,
    change: Callable[[bytes], bytes] = bytes,
    message: Callable[[bytes], bytes] = store_message,
    claim: PrivateKey | None = None,
) -> Tamper:
    """Have keys sign the store, or what is made of it, and maybe claim to be another."""

    def do(bench: Bench) -> None:
        data = message(change(bench.trust.read_bytes()))
        lines = [RootSignature((claim or key).key_id, key.sign(data)) for key in keys]
        bench.write_trust(render_signatures(lines), signature_path(bench.trust))

    return do


def signature_file(data: bytes) -> Tamper:
    def do(bench: Bench) -> None:
        bench.write_trust(data, signature_path(bench.trust))

    return do


def pin(data: bytes, mode: int = 0o600) -> Tamper:
    def do(bench: Bench) -> None:
        bench.write_trust(data, pin_path(bench.trust))
        pin_path(bench.trust).chmod(mode)

    return do


def _open_signatures(bench: Bench) -> None:
    signature_path(bench.trust).chmod(0o666)


SIGNED: Final = both(pinned(), root_signed(ROOT))

FILE: Final = [
    Case("missing", replaced(lambda _: None), NO, "does not exist"),
    Case("its directory missing", _no_directory, NO, "does not exist"),
    Case("a link", _link, NO, "is a symbolic link"),
    Case("a FIFO", replaced(os.mkfifo), NO, "is not a regular file"),
    Case("a directory", replaced(Path.mkdir), NO, "is not a regular file"),
    Case("a terabyte", replaced(_sparse), NO, "is larger than"),
    Case("its group may write", mode(0o620), NO, "writable for its group or for others"),
    Case("others may write", mode(0o606), NO, "writable for its group or for others"),
    Case("its directory's group may", mode(of_directory=0o770), NO, "the directory of the trust"),
    Case("others may replace it", mode(of_directory=0o1777), NO, "the directory of the trust"),
    Case("a foreign owner", owned(lambda p: os.chown(p, 12_345, -1)), NO, "belongs to user 12345"),
    Case(
        "its directory's",
        owned(lambda path: os.chown(path.parent, 12_345, -1)),
        NO,
        "belongs to user 12345",
    ),
]

TEXT: Final = [
    Case("no TOML", with_trust("trust everyone"), NO, "is not TOML"),
    Case("no UTF-8", with_trust(b"\xff\xfe"), NO, "is not TOML in UTF-8"),
    Case("deep", with_trust("x = " + "[" * 50_000), NO, "nested too deeply"),
    Case("large", with_trust("#" * (MAX_STORE_BYTES + 1)), NO, "larger than"),
    Case("a misspelt table", store("[[key]]", "[[keys]]"), NO, "keys: Extra inputs"),
    Case("a misspelt date", key_with("not_afer = 2026-01-01T00:00:00Z"), NO, "not_afer: Extra"),
    Case("no time zone", key_with("not_after = 2026-01-01T00:00:00"), NO, "time zone"),
    Case(
        "never valid",
        key_with("not_before = 2026-01-02T00:00:00Z\nnot_after = 2026-01-01T00:00:00Z"),
        NO,
        "it is not after not_before",
    ),
    Case("another id", store(KEY.key_id, "0" * 64), NO, "key[0].id: expected"),
    Case("the same key twice", with_trust(TRUST + TRUST), NO, "appears twice"),
    Case("everyone's pattern misspelt", store('["*"]', '["**.*"]'), NO, "key[0].plugins[0]"),
    Case("no patterns", store('["*"]', "[]"), NO, "key[0].plugins"),
    Case("a role that is none", store('"developer"', '"root"'), NO, "key[0].roles[0]"),
    Case("a label that forges", store("test key", "a\\u001b[2J"), NO, "key[0].label"),
    Case("a threshold of none", store_with("[policy]\nthreshold = 0\n"), NO, "policy.threshold"),
    Case("a threshold of all", store_with("[policy]\nthreshold = 17\n"), NO, "policy.threshold"),
    Case("revoked without a date", store_with(REVOKED_KEY.rpartition("date")[0]), NO, "revoked[0]"),
    Case("a negative version", with_trust("version = -1\n" + TRUST), NO, "version"),
    Case("a key of small order", weak((1).to_bytes(32, "little")), NO, "is a point of small order"),
    Case("neutral, not canonical", weak((FIELD_PRIME + 1).to_bytes(32, "little")), NO, "small"),
    Case("a key beyond the field", weak((FIELD_PRIME + 3).to_bytes(32, "little")), NO, "canonical"),
    Case("no point", weak((2).to_bytes(32, "little")), NO, "is not a point of the curve"),
    Case("a short key", weak(KEY.public[:31]), NO, "has 31 bytes instead of 32"),
]

WHOM: Final = [
    Case("nobody", with_trust(""), UntrustedError, KEY.key_id),
    Case("somebody else", with_trust(OTHER), UntrustedError, "is not in"),
    Case("revoked", store_with(REVOKED_KEY), UntrustedError, "was revoked on 2026-01-30: 'stolen'"),
    Case("revoked and removed", with_trust(OTHER + REVOKED_KEY), UntrustedError, "was revoked on"),
    Case(
        "the bundle revoked",
        store_with(f'[[revoked]]\nbundle = "{DIGEST}"\nreason = "CVE"\ndate = 2026-01-30\n'),
        UntrustedError,
        f"{DIGEST} was revoked on 2026-01-30: 'CVE'",
    ),
    Case("expired", key_with("not_after = 2026-02-01T00:00:00Z"), UntrustedError, "expired at"),
    Case("not yet", key_with("not_before = 2126-01-01T00:00:00Z"), UntrustedError, "not valid bef"),
    Case("for others", store('["*"]', '["weather_*"]'), UntrustedError, "lets sign 'weather_*'"),
    Case("for its like", store('["*"]', '["sample?"]'), UntrustedError, "lets sign 'sample?' only"),
    Case("two needed", store_with("[policy]\nthreshold = 2\n"), UntrustedError, "and needs 2"),
    Case(
        "two needed of such",
        store_with('[[threshold]]\nplugins = ["sam*"]\ncount = 2\n'),
        UntrustedError,
        "the plugin 'sample' has 1 signature that counts, and needs 2",
    ),
    Case(
        "two needed, one revoked",
        both(
            with_trust(TRUST + OTHER + REVOKED_KEY + "[policy]\nthreshold = 2\n"),
            as_contents(lambda good: signed_by(good, KEY, OTHER_KEY)),
        ),
        UntrustedError,
        "was revoked on",
    ),
    Case(
        "two needed, one unknown",
        both(
            store_with("[policy]\nthreshold = 2\n"),
            as_contents(lambda good: signed_by(good, KEY, STRANGER)),
        ),
        UntrustedError,
        STRANGER.key_id,
    ),
]

OF_ROOT: Final = [
    Case("no root's signature", pinned(), NO, "is not signed by the root key"),
    Case("of another", both(pinned(), root_signed(STRANGER)), NO, "is not signed by the root key"),
    Case("in its name", both(pinned(), root_signed(STRANGER, claim=ROOT)), NO, "is not signed by"),
    Case(
        "of another store",
        both(pinned(), root_signed(ROOT, change=lambda data: b"version = 1\n" + data)),
        NO,
        "is not signed by the root key",
    ),
    Case("as bytes", both(pinned(), root_signed(ROOT, message=bytes)), NO, "is not signed by"),
    Case(
        "as of a plugin",
        both(pinned(), root_signed(ROOT, message=pre_authentication_encoding)),
        NO,
        "is not signed by the root key",
    ),
    Case("by its own key", both(pinned(), root_signed(KEY)), NO, "is not signed by the root key"),
    Case("edited since", both(SIGNED, store_with("\n")), NO, "is not signed by the root key"),
    Case("a signature file of text", both(pinned(), signature_file(b"yes\n")), NO, "line 1 is not"),
    Case("cut", both(pinned(), signature_file(b"ed25519")), NO, "bytes of lines"),
    Case("its signatures writable", both(SIGNED, _open_signatures), NO, "writable for its group"),
    Case("a pin of nothing", pin(b""), NO, "the pinned root key"),
    Case("a weak pin", pin(base64.b64encode(bytes(32))), NO, "small order"),
    Case("a pin that is writable", pin(ROOT.public, 0o666), NO, "writable for its group"),
    Case(
        "a root that signs plugins",
        both(SIGNED, as_contents(lambda good: signed_by(good, ROOT))),
        UntrustedError,
        ROOT.key_id,
    ),
]

CONTROLS: Final = [
    Case("untouched", both()),
    Case("others may read", mode(0o644, 0o755)),
    Case("a link to its directory", _linked_directory),
    Case("more keys", with_trust(OTHER + TRUST)),
    Case("another revoked", with_trust(OTHER + TRUST + REVOKED_KEY.replace(KEY.key_id, "0" * 64))),
    Case("valid for long", key_with("not_after = 2126-01-01T00:00:00Z")),
    Case("by pattern", store('["*"]', '["weather_*", "s?mple"]')),
    Case(
        "two of two",
        both(
            with_trust(TRUST + OTHER + "[policy]\nthreshold = 2\n"),
            as_contents(lambda good: signed_by(good, OTHER_KEY, KEY)),
        ),
    ),
    Case("two needed of others", store_with('[[threshold]]\nplugins = ["other"]\ncount = 2\n')),
    Case("its root has signed it", SIGNED),
    Case("signed by others too", both(pinned(), root_signed(STRANGER, ROOT, KEY))),
]

CASES = named([*FILE, *TEXT, *WHOM, *OF_ROOT, *CONTROLS])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_verify(bench: Bench, case: Case) -> None:
    bench.check_by_verify(case)


@pytest.mark.needs("landlock", "seccomp")
@pytest.mark.parametrize("case", sampled(CASES), ids=str)
def test_load(bench: Bench, case: Case) -> None:
    bench.check_by_host(case)
