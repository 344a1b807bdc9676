"""``sandbox-host trust``: whose signatures count, for which plugins."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sandbox_host.bundle.envelope import format_time
from sandbox_host.bundle.keys import (
    MAX_KEY_FILE_BYTES,
    format_public_key,
    is_private,
    parse_public_key,
)
from sandbox_host.bundle.trust import ROLES, Revocation, Role, TrustStore
from sandbox_host.bundle.trust_edit import add_key, revoke
from sandbox_host.cli.describe import counted
from sandbox_host.cli.options import SuggestingGroup, output_format, trust_options
from sandbox_host.cli.output import clean, field, note, print_json, print_table, say
from sandbox_host.errors import TrustStoreError, UsageError

if TYPE_CHECKING:
    from sandbox_host.bundle.trust import TrustedKey
    from sandbox_host.cli.options import HostOptions

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_PREFIX: Final = re.compile(r"[0-9a-f]{8,64}")
_SHORT: Final = 16
_EVERY_PLUGIN: Final = "*"


@click.group(
    "trust", cls=SuggestingGroup, short_help="Decide whose signatures count.", no_args_is_help=False
)
def command() -> None:
    """Decide whose signatures count, and for which plugins.

    \b
    Example:
      sandbox-host trust add team.pub --label "weather team" --plugins 'weather_*'
      sandbox-host trust list
    """


@command.command("add", short_help="Trust a public key.")
@click.argument("public_key", metavar="PUBLIC_KEY_FILE|BASE64")
@click.option("--label", required=True, help="A name for people.")
@click.option(
    "--plugins",
    multiple=True,
    metavar="PATTERN",
    help='Plugins that the key may sign, such as "weather_*"; repeatable. Default: all.',
)
@click.option("--role", type=click.Choice(ROLES), default="publisher", show_default=True)
@trust_options
def add(
    public_key: str, label: str, plugins: tuple[str, ...], role: Role, host: HostOptions
) -> None:
    """Trust a public key: an OpenSSH line, PEM, or base64 of its 32 bytes.

    Compare its id with its owner's by another way first: whoever holds the private key can have
    code run here.

    \b
    Example:
      sandbox-host trust add team.pub --label "weather team" --plugins 'weather_*'
    """
    store = host.read().trust_store
    patterns = plugins or (_EVERY_PLUGIN,)
    key = add_key(store, _public_key(public_key), label, roles=(role,), plugins=patterns)
    say(f"{store}: trusts {key.label}")
    _print_key(key)
    if not plugins:
        note("note: this key may sign every plugin; --plugins narrows that.")


@command.command("revoke", short_help="Never believe a key or bundle again.")
@click.argument("digest", metavar="DIGEST")
@click.option("--reason", required=True, help="For whoever is refused later.")
@click.option(
    "--bundle", is_flag=True, help="DIGEST is a bundle's root digest, as verify shows it."
)
@trust_options
def revoke_(
    digest: str,
    reason: str,
    bundle: bool,
    host: HostOptions,
) -> None:
    """Revoke the key with the id DIGEST for good, whenever it signed.

    \b
    Example:
      sandbox-host trust revoke 5f0c...e1 --reason "laptop stolen"
    """
    if not _DIGEST.fullmatch(digest):
        raise UsageError(
            f"{digest!r} is not a key id or root digest.",
            remedy="Give all of its 64 lower-case hexadecimal digits; `sandbox-host trust show` "
            "prints them.",
        )
    store = host.read().trust_store
    known = TrustStore.load(store).revoked.get(digest) if os.path.lexists(store) else None
    if known is not None:
        say(f"{store}: {digest} was revoked on {known.date} already: {known.reason}")
        return
    kind: Any = "bundle" if bundle else "key"
    revoke(store, Revocation(digest, kind, reason, datetime.now(UTC).date()))
    say(f"{store}: the {kind} {digest} is revoked")


@command.command("list", short_help="List trusted keys and revocations.")
@trust_options
@output_format
def list_(host: HostOptions, as_format: str) -> None:
    """List the trusted keys and what was revoked.

    \b
    Example:
      sandbox-host trust list --format json
    """
    store = TrustStore.load(host.read().trust_store)
    if as_format == "json":
        print_json(_document(store))
        return
    now = datetime.now(UTC)
    revoked = counted(len(store.revoked), "revocation")
    say(f"{store.origin}: {counted(len(store.keys), 'key')}, {revoked}")
    if store.keys:
        print_table(
            ("KEY", "LABEL", "ROLE", "PLUGINS", "STANDING"),
            [
                (k.id[:_SHORT], k.label, ", ".join(k.roles), k.scope, _standing(k, store, now))
                for k in store.keys.values()
            ],
        )
    for gone in store.revoked.values():
        say(f"revoked {gone.date} {gone.kind} {gone.subject}: {gone.reason}")


@command.command("show", short_help="Show one trusted key.")
@click.argument("key_id", metavar="KEY_ID")
@trust_options
def show(key_id: str, host: HostOptions) -> None:
    """Show the key whose id begins with KEY_ID, of at least 8 digits.

    \b
    Example:
      sandbox-host trust show 5f0c33aa
    """
    if not _PREFIX.fullmatch(key_id):
        raise UsageError(
            f"{key_id!r} is not the beginning of a key id.",
            remedy="Give at least its first 8 lower-case hexadecimal digits.",
        )
    store = TrustStore.load(host.read().trust_store)
    found = [key for key in store.keys.values() if key.id.startswith(key_id)]
    if len(found) != 1:
        count = f"{len(found)} keys" if found else "no key"
        raise UsageError(
            f"{store.origin} has {count} whose id begins with {key_id}.",
            remedy="See `sandbox-host trust list`.",
        )
    say(found[0].label)
    _print_key(found[0])
    field("public", format_public_key(found[0].public))
    field("standing", _standing(found[0], store, datetime.now(UTC)))


def _public_key(text: str) -> bytes:
    """Return the raw key in the file `text` names, or in the text itself."""
    file = Path(text)
    try:
        data = _read(file) if file.is_file() else text.encode()
        if is_private(data):
            raise UsageError(
                f"{file.name[:80]!r} is a private key, and only its public half is for others.",
                remedy="Keep it to yourself, and give the public key: `sandbox-host keygen` wrote "
                "it beside it, with .pub at the end of its name.",
            )
        return parse_public_key(data)
    except (TrustStoreError, ValueError) as error:
        why = error.message if isinstance(error, TrustStoreError) else "it is not text"
        raise UsageError(
            f"{text!r} is neither the file of a public key nor one itself: {why}",
            remedy="Give an OpenSSH line, PEM, or base64 of the 32 bytes of an Ed25519 key.",
        ) from error
    except OSError as error:
        raise UsageError(
            f"The public key {text!r} cannot be read: {error.strerror}.",
            remedy="Check the path and its permissions.",
        ) from error


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MAX_KEY_FILE_BYTES + 1)


def _standing(key: TrustedKey, store: TrustStore, now: datetime) -> str:
    if key.id in store.revoked:
        return f"revoked on {store.revoked[key.id].date}"
    if key.not_before is not None and now < key.not_before:
        return f"not valid before {format_time(key.not_before)}"
    if key.not_after is not None and now > key.not_after:
        return f"expired at {format_time(key.not_after)}"
    if key.not_after is not None:
        return f"valid until {format_time(key.not_after)}"
    return "valid"


def _print_key(key: TrustedKey) -> None:
    field("key", key.id)
    field("role", ", ".join(key.roles))
    field("plugins", key.scope)


def _document(store: TrustStore) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "trust_store": clean(store.origin),
        "keys": [
            {
                "id": key.id,
                "label": key.label,
                "roles": list(key.roles),
                "plugins": list(key.plugins),
                "not_before": format_time(key.not_before) if key.not_before else None,
                "not_after": format_time(key.not_after) if key.not_after else None,
                "standing": _standing(key, store, now),
            }
            for key in store.keys.values()
        ],
        "revoked": [
            {"kind": r.kind, "digest": r.subject, "date": r.date.isoformat(), "reason": r.reason}
            for r in store.revoked.values()
        ],
    }
