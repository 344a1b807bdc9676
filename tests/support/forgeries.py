"""Envelopes that no tool of ours would write, and the check that they are refused."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest

from sandbox_host.bundle import Contents
from sandbox_host.bundle.envelope import (
    build_envelope,
    build_statement,
    list_files,
    parse_envelope,
    parse_statement,
    pre_authentication_encoding,
    root_digest_of,
)
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.verify import verify
from sandbox_host.errors import ManifestError, RefusedError
from tests.support.bundles import NOW, make_key, signed_contents, store_of

KEY = make_key(1)
OTHER_KEY = make_key(2)
TRUST = store_of(KEY)
REVOKED_KEY = f'[[revoked]]\nkey = "{KEY.key_id}"\nreason = "stolen"\ndate = 2026-01-30\n'


def refused(
    contents: Contents, kind: type[RefusedError], trust: TrustStore = TRUST, now: dt.datetime = NOW
) -> str:
    """Verify, expect exactly `kind` of refusal, and return its text."""
    with pytest.raises(RefusedError) as caught:
        verify(contents, trust, now)
    assert type(caught.value) is kind, caught.value
    assert caught.value.remedy or kind is ManifestError  # there the message says what to write
    return str(caught.value)


def claim(contents: Contents, key_id: str) -> Contents:
    """Return `contents` whose envelope claims another key."""
    assert contents.envelope is not None
    value = json.loads(contents.envelope)
    value["signatures"][0]["keyid"] = key_id
    return dataclasses.replace(contents, envelope=compact(value) + b"\n")


def compact(value: Any) -> bytes:
    """Return JSON in the form of our envelopes."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def resigned(contents: Contents, edit: Callable[[dict[str, Any]], None]) -> Contents:
    """Return `contents` with an edited statement that a trusted key signed."""
    assert contents.envelope is not None
    value = json.loads(parse_envelope(contents.envelope).payload)
    edit(value)
    payload = compact(value)
    signature = KEY.sign(pre_authentication_encoding(payload))
    return dataclasses.replace(contents, envelope=build_envelope(payload, KEY.public, signature))


def signed_as(files: dict[str, bytes], name: str = "sample", version: str = "1.0.0") -> Contents:
    """Sign any files at all with a trusted key, without the checks of `sign`."""
    entries = list_files(files)
    base = signed_contents(KEY)
    assert base.envelope is not None
    statement = dataclasses.replace(
        parse_statement(parse_envelope(base.envelope).payload),
        name=name,
        version=version,
        files=entries,
        root_digest=root_digest_of(entries),
    )
    payload = build_statement(statement)
    signature = KEY.sign(pre_authentication_encoding(payload))
    return Contents(files, build_envelope(payload, KEY.public, signature), "memory")
