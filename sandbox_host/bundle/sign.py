"""Sign what was read: the other end of `verify`, by the same rules."""

from __future__ import annotations

from datetime import datetime

from sandbox_host.bundle.contents import Contents
from sandbox_host.bundle.envelope import (
    Statement,
    build_envelope,
    build_statement,
    list_files,
    parse_envelope,
    parse_statement,
    pre_authentication_encoding,
    root_digest_of,
)
from sandbox_host.bundle.rules import check_contents
from sandbox_host.bundle.signature import PrivateKey
from sandbox_host.errors import UsageError


def sign(
    contents: Contents, private_key: PrivateKey, now: datetime, expires: datetime | None = None
) -> bytes:
    """Return the envelope for `contents`; an envelope that they hold already is ignored.

    Nothing is written: `stage.stage_source` makes a signed copy.

    Args:
        contents: what was read of the plugin.
        private_key: the signer.
        now: goes into the statement as the time of signing, in whole seconds.
        expires: when the signature stops counting; None is "until it is revoked".

    Raises:
        BundleError: the files break a rule of every bundle.
        ManifestError: plugin.json is not acceptable.
        UsageError: a time is without its time zone, or `expires` is not after `now`.
    """
    if now.tzinfo is None or (expires is not None and expires.tzinfo is None):
        raise UsageError("sign needs its times with their time zone.")
    manifest = check_contents(contents.files)
    files = list_files(contents.files)
    statement = Statement(
        name=manifest.name,
        version=manifest.version,
        plugin_api=manifest.plugin_api,
        created=now.replace(microsecond=0),
        expires=expires.replace(microsecond=0) if expires else None,
        files=files,
        root_digest=root_digest_of(files),
    )
    if statement.expires is not None and statement.expires <= statement.created:
        raise UsageError("the signature would expire before it is made.")
    payload = build_statement(statement)
    # Whatever the strict parsers would refuse must fail here, at the author's desk.
    parse_statement(payload)
    envelope = build_envelope(
        payload, private_key.public, private_key.sign(pre_authentication_encoding(payload))
    )
    parse_envelope(envelope)
    return envelope
