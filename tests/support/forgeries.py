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
    Envelope,
    Signature,
    build_envelope,
    build_statement,
    list_files,
    parse_envelope,
    parse_statement,
    pre_authentication_encoding,
    render_envelope,
    root_digest_of,
)
from sandbox_host.bundle.signature import PrivateKey
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


def set_at(path: str, new: Any) -> Callable[[Any], None]:
    """Return an edit that sets the value at a dotted path, or removes it where `new` is ``...``."""

    def edit(value: Any) -> None:
        *above, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in above:
            value = value[part]
        if new is ...:
            del value[last]
        else:
            value[last] = new

    return edit


def signatures_of(contents: Contents) -> list[dict[str, Any]]:
    """Return the signatures of an envelope as JSON has them."""
    assert contents.envelope is not None
    found: list[dict[str, Any]] = json.loads(contents.envelope)["signatures"]
    return found


def with_signatures(contents: Contents, signatures: list[dict[str, Any]]) -> Contents:
    """Return `contents` with other signatures over the same payload."""
    assert contents.envelope is not None
    value = {**json.loads(contents.envelope), "signatures": signatures}
    return dataclasses.replace(contents, envelope=compact(value) + b"\n")


def signed_by(contents: Contents, *keys: PrivateKey) -> Contents:
    """Return `contents` with the signatures of exactly these keys over the same payload."""
    assert contents.envelope is not None
    payload = parse_envelope(contents.envelope).payload
    message = pre_authentication_encoding(payload)
    made = tuple(Signature(key.key_id, key.sign(message)) for key in keys)
    return dataclasses.replace(contents, envelope=render_envelope(Envelope(payload, made)))
