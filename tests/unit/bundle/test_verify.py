"""Every way to tamper with a signed plugin, beside the untouched one that must pass."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox_host.bundle import ENVELOPE_NAME
from sandbox_host.bundle.envelope import (
    list_files,
    root_digest_of,
)
from sandbox_host.bundle.reader import read_directory
from sandbox_host.bundle.signature import PrivateKey
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.verify import verify
from sandbox_host.errors import (
    BundleError,
    ManifestError,
    RefusedError,
    UnsignedError,
    UntrustedError,
    VerificationError,
)
from tests.support.bundles import (
    NOW,
    signed_contents,
    signed_plugin,
    store_of,
    store_text,
)
from tests.support.forgeries import (
    KEY,
    OTHER_KEY,
    REVOKED_KEY,
    TRUST,
    claim,
    refused,
    resigned,
    signed_as,
)

FILES = {"main.py": "x = 1\n", "helper.py": "y = 2\n", "data/table.csv": "a,b\n1,2\n"}
SECOND = dt.timedelta(seconds=1)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


BEFORE, AFTER = sha256("x = 1\n"), sha256("x = 2\n")

# -- control ----------------------------------------------------------------------------------


def test_the_untouched_plugin_is_verified(tmp_path: Path) -> None:
    directory = signed_plugin(tmp_path / "sample", KEY, FILES)
    contents = read_directory(directory)
    bundle = verify(contents, TRUST, NOW)
    assert bundle.manifest.identity == "sample"
    assert dict(bundle.files) == dict(contents.files)
    assert bundle.root_digest == root_digest_of(list_files(contents.files))
    assert bundle.key_id == KEY.key_id
    assert bundle.signer == "test key (publisher)"
    assert bundle.origin == str(directory)


# -- on disk ----------------------------------------------------------------------------------


def _change_a_byte(path: Path) -> None:
    (path / "main.py").write_text("x = 2\n")


def _append(path: Path) -> None:
    (path / "main.py").write_text("x = 1\n\n")


def _add(path: Path) -> None:
    (path / "extra.py").write_text("evil")


def _add_below(path: Path) -> None:
    (path / "data/extra.csv").write_text("")


def _remove(path: Path) -> None:
    (path / "helper.py").unlink()


def _rename(path: Path) -> None:
    (path / "helper.py").rename(path / "sitecustomize.py")


def _move(path: Path) -> None:
    (path / "helper.py").rename(path / "data/helper.py")


def _swap(path: Path) -> None:
    (path / "main.py").write_text(FILES["helper.py"])
    (path / "helper.py").write_text(FILES["main.py"])


def _copy_over(path: Path) -> None:
    (path / "helper.py").write_text(FILES["main.py"])


def _edit_manifest(path: Path) -> None:
    text = (path / "plugin.json").read_text()
    (path / "plugin.json").write_text(text.replace("1.0.0", "1.0.1"))


def _broken_manifest(path: Path) -> None:
    (path / "plugin.json").write_text("{")


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (
            _change_a_byte,
            f"'main.py' was changed: signed with SHA-256 {BEFORE}, found {AFTER}",
        ),
        (_append, "'main.py' was changed"),
        (_add, f"'extra.py' was added; it has SHA-256 {sha256('evil')} and is not signed"),
        (_add_below, "'data/extra.csv' was added"),
        (_remove, "'helper.py' was removed; it was signed with SHA-256"),
        (_rename, "'helper.py' was renamed to 'sitecustomize.py'"),
        (_move, "'helper.py' was renamed to 'data/helper.py'"),
        (_swap, "'helper.py' and 'main.py' swapped their names"),
        (_copy_over, "'helper.py' was changed"),
        (_edit_manifest, "'plugin.json' was changed"),
        (_broken_manifest, "'plugin.json' was changed"),
    ],
)
def test_tampering_is_told_apart(
    tmp_path: Path, tamper: Callable[[Path], None], words: str
) -> None:
    directory = signed_plugin(tmp_path / "sample", KEY, FILES)
    tamper(directory)
    text = refused(read_directory(directory), VerificationError)
    assert words in text
    assert "sandbox-host sign" in text


def test_the_first_differenceis_named_and_the_others_counted(tmp_path: Path) -> None:
    directory = signed_plugin(tmp_path / "sample", KEY, FILES)
    for tamper in (_change_a_byte, _remove, _add):
        tamper(directory)
    text = refused(read_directory(directory), VerificationError)
    assert "'extra.py' was added" in text
    assert "(2 more files differ)" in text


def test_an_unsigned_plugin(tmp_path: Path) -> None:
    directory = signed_plugin(tmp_path / "sample", KEY, FILES)
    (directory / ENVELOPE_NAME).unlink()
    assert "is not signed" in refused(read_directory(directory), UnsignedError)


def test_the_envelope_of_another_plugin(tmp_path: Path) -> None:
    directory = signed_plugin(tmp_path / "sample", KEY, FILES)
    other = signed_plugin(tmp_path / "other", KEY, FILES)
    (directory / ENVELOPE_NAME).write_bytes((other / ENVELOPE_NAME).read_bytes())
    assert "was changed" in refused(read_directory(directory), VerificationError)


# -- the key ----------------------------------------------------------------------------------


def test_an_unknown_key() -> None:
    text = refused(signed_contents(OTHER_KEY, FILES), UntrustedError)
    assert OTHER_KEY.key_id in text
    assert "trust add" in text


def test_a_key_that_claims_the_id_of_a_trusted_one() -> None:
    forged = claim(signed_contents(OTHER_KEY, FILES), KEY.key_id)
    assert "does not match the signed bytes" in refused(forged, VerificationError)
    # Even where both are trusted: the claim is part of what is decided.
    both = store_of(KEY, OTHER_KEY)
    assert "does not match" in refused(forged, VerificationError, both)


@pytest.mark.parametrize("keys", [(KEY,), ()], ids=["entry kept", "entry removed"])
def test_a_revoked_key(keys: tuple[PrivateKey, ...]) -> None:
    text = refused(signed_contents(KEY, FILES), UntrustedError, store_of(*keys, more=REVOKED_KEY))
    assert "was revoked on 2026-01-30: 'stolen'" in text
    assert KEY.key_id in text


def test_revoking_a_key_leaves_the_others() -> None:
    store = store_of(KEY, OTHER_KEY, more=REVOKED_KEY)
    assert verify(signed_contents(OTHER_KEY, FILES), store, NOW).key_id == OTHER_KEY.key_id


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("not_after = 2026-01-31T11:59:59Z", "expired at 2026-01-31T11:59:59Z"),
        ("not_before = 2026-01-31T12:00:01Z", "not valid before 2026-01-31T12:00:01Z"),
        ("not_after = 2026-01-31T12:00:00Z", ""),
        ("not_before = 2026-01-31T12:00:00Z", ""),
        ("not_after = 2026-01-31T13:00:00+00:30", ""),
    ],
)
def test_the_validity_of_a_key(lines: str, words: str) -> None:
    store = TrustStore.parse(store_text(KEY, lines=lines).encode())
    contents = signed_contents(KEY, FILES)
    if words:
        assert words in refused(contents, UntrustedError, store)
    else:
        assert verify(contents, store, NOW)


def test_a_key_outside_its_scope() -> None:
    store = store_of(KEY, patterns=["weather_*", "other"])
    text = refused(signed_contents(KEY, FILES), UntrustedError, store)
    assert "'sample'" in text
    assert "weather_*, other" in text
    assert verify(signed_contents(KEY, FILES, name="WeatherModel"), store, NOW)


# -- the statement's own validity -------------------------------------------------------------


def test_an_expired_signature() -> None:
    contents = signed_contents(KEY, FILES, now=NOW, expires=NOW + SECOND)
    assert verify(contents, TRUST, NOW + SECOND)
    assert "expired at" in refused(contents, UntrustedError, now=NOW + 2 * SECOND)


def test_a_revoked_bundle() -> None:
    contents = signed_contents(KEY, FILES)
    digest = verify(contents, TRUST, NOW).root_digest
    more = f'[[revoked]]\nbundle = "{digest}"\nreason = "CVE"\ndate = 2026-01-30\n'
    assert digest in refused(contents, UntrustedError, store_of(KEY, more=more))
    assert verify(signed_contents(KEY, {**FILES, "x": "1"}), store_of(KEY, more=more), NOW)


# -- statements that a trusted key signed, but that no tool of ours would write --------------


def test_signing_without_checks_works_as_a_control() -> None:
    assert verify(signed_as(dict(signed_contents(KEY, FILES).files)), TRUST, NOW)


def test_a_path_that_climbs_in_a_signed_statement() -> None:
    def climb(value: dict[str, Any]) -> None:
        value["predicate"]["files"][0]["path"] = "../../etc/cron.d/x"

    contents = resigned(signed_contents(KEY, FILES), climb)
    assert "statement: predicate.files[0].path" in refused(contents, VerificationError)


def test_an_unknown_key_in_a_signed_statement() -> None:
    def add(value: dict[str, Any]) -> None:
        value["predicate"]["exempt"] = ["main.py"]

    contents = resigned(signed_contents(KEY, FILES), add)
    assert "unknown key 'exempt'" in refused(contents, VerificationError)


@pytest.mark.parametrize(
    ("extra", "kind", "words"),
    [
        ({"main.pyc": b"\0"}, VerificationError, "byte-code cache"),
        ({"__pycache__/m.cpython-311.pyc": b"\0"}, VerificationError, "byte-code cache"),
        ({"Main.py": b"", "main.py": b""}, VerificationError, "one name"),
        ({"_native.so": b"\x7fELF"}, BundleError, "shared object"),
        ({"data.bin": b"\x7fELF\x02\x01\x01"}, BundleError, "an ELF object"),
    ],
)
def test_files_that_no_signature_makes_acceptable(
    extra: dict[str, bytes], kind: type[RefusedError], words: str
) -> None:
    contents = signed_as({**signed_contents(KEY).files, **extra})
    assert words in refused(contents, kind)


@pytest.mark.parametrize("missing", ["plugin.json", "__init__.py"])
def test_required_files(missing: str) -> None:
    files = dict(signed_contents(KEY).files)
    del files[missing]
    assert f"no {missing}" in refused(signed_as(files), BundleError)


def test_an_invalid_manifest_is_refused_although_it_is_signed() -> None:
    files = dict(signed_contents(KEY).files)
    files["plugin.json"] = b'{"name": "sample", "permissions": {}, "permissions": {}}'
    assert "permissions" in refused(signed_as(files), ManifestError)


@pytest.mark.parametrize(
    ("options", "field"), [({"version": "2.0.0"}, "version"), ({"name": "Sample"}, "name")]
)
def test_a_statement_that_disagrees_with_the_manifest(options: dict[str, str], field: str) -> None:
    contents = signed_as(dict(signed_contents(KEY).files), **options)
    assert f"plugin.json: {field}: " in refused(contents, ManifestError)


def test_a_statement_with_another_plugin_api() -> None:
    def change(value: dict[str, Any]) -> None:
        value["predicate"]["plugin_api"] = "9.0"

    contents = resigned(signed_contents(KEY, FILES), change)
    assert "plugin.json: plugin_api" in refused(contents, ManifestError)
