from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from sandbox_host.bundle import Contents
from sandbox_host.bundle.envelope import (
    parse_envelope,
    parse_statement,
    pre_authentication_encoding,
)
from sandbox_host.bundle.sign import sign
from sandbox_host.errors import BundleError, ManifestError, UsageError
from tests.support.bundles import NOW, make_key, plugin_files

KEY = make_key()


def contents(**options: object) -> Contents:
    return Contents(plugin_files(**options), None, "memory")  # type: ignore[arg-type]


def test_what_is_signed_says_what_it_is() -> None:
    envelope = sign(contents(name="WeatherModel", version="2.1.0"), KEY, NOW)
    statement = parse_statement(parse_envelope(envelope).payload)
    assert (statement.name, statement.identity, statement.version) == (
        "WeatherModel",
        "weather_model",
        "2.1.0",
    )
    assert statement.created == NOW
    assert statement.expires is None
    assert [f.path for f in statement.files] == ["__init__.py", "plugin.json"]


def test_signing_is_deterministic() -> None:
    assert sign(contents(), KEY, NOW) == sign(contents(), KEY, NOW)


def test_an_old_envelope_is_ignored() -> None:
    plain = contents()
    assert sign(Contents(plain.files, b"old", "x"), KEY, NOW) == sign(plain, KEY, NOW)


def test_times() -> None:
    zone = dt.timezone(dt.timedelta(hours=-5))
    now = dt.datetime(2026, 1, 31, 7, 0, 0, 123_456, zone)
    later = now + dt.timedelta(days=1, microseconds=5)
    statement = parse_statement(parse_envelope(sign(contents(), KEY, now, later)).payload)
    assert statement.created == NOW
    assert statement.expires == NOW + dt.timedelta(days=1)


@pytest.mark.parametrize("expires", [NOW, NOW - dt.timedelta(days=1)])
def test_what_expires_before_it_begins(expires: dt.datetime) -> None:
    with pytest.raises(UsageError, match="expire before"):
        sign(contents(), KEY, NOW, expires)


def test_times_need_their_zone() -> None:
    with pytest.raises(UsageError, match="time zone"):
        sign(contents(), KEY, NOW.replace(tzinfo=None))
    with pytest.raises(UsageError, match="time zone"):
        sign(contents(), KEY, NOW, NOW.replace(year=2030, tzinfo=None))


def test_nobody_can_sign_what_every_host_refuses() -> None:
    with pytest.raises(ManifestError, match="version"):
        sign(contents(version=None), KEY, NOW)
    with pytest.raises(ManifestError, match="name"):
        sign(contents(name="json"), KEY, NOW)
    with pytest.raises(BundleError, match="native_code"):
        sign(contents(files={"x.so": b""}), KEY, NOW)
    with pytest.raises(BundleError, match="__pycache__"):
        sign(contents(files={"__pycache__/x.pyc": b""}), KEY, NOW)
    with pytest.raises(BundleError, match=r"no plugin\.json"):
        sign(Contents({"__init__.py": b""}, None, "x"), KEY, NOW)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_agrees(tmp_path: Path) -> None:
    """Somebody else's code verifies what we sign, and refuses what was changed."""
    envelope = parse_envelope(sign(contents(), KEY, NOW))
    (tmp_path / "key.pem").write_bytes(
        KEY.library_key()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    (tmp_path / "sig").write_bytes(envelope.signature)
    command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "key.pem"]
    command += ["-sigfile", "sig", "-in", "pae"]
    message = pre_authentication_encoding(envelope.payload)
    for data, code in ((message, 0), (message + b" ", 1)):
        (tmp_path / "pae").write_bytes(data)
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == code, done.stderr
