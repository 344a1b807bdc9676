"""``sandbox-host trust``: whose signatures count, for which plugins."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from sandbox_host.bundle.envelope import format_time
from sandbox_host.bundle.keys import fingerprint, format_public_key
from sandbox_host.bundle.trust import ROLES, Revocation, Role, Threshold, TrustStore
from sandbox_host.bundle.trust_edit import add_key, add_threshold, revoke
from sandbox_host.cli.describe import counted
from sandbox_host.cli.moments import read_moment
from sandbox_host.cli.options import SuggestingGroup, output_format, trust_options
from sandbox_host.cli.output import clean, field, note, print_json, print_table, say
from sandbox_host.cli.signers import read_public_key
from sandbox_host.cli.trust_root import install, root, sign
from sandbox_host.errors import UsageError

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
@click.option(
    "--not-before",
    callback=read_moment,
    metavar="TIME",
    help="The key counts from then on, as 2027-01-31T00:00:00Z.",
)
@click.option("--not-after", callback=read_moment, metavar="TIME", help="And until then.")
@trust_options
def add(
    public_key: str,
    label: str,
    plugins: tuple[str, ...],
    role: Role,
    not_before: datetime | None,
    not_after: datetime | None,
    host: HostOptions,
) -> None:
    """Trust a public key: an OpenSSH line, PEM, or base64 of its 32 bytes.

    Compare its id or fingerprint with its owner's by another way first: whoever holds the private
    key can have code run here. A key that anyone could sign for is refused.

    \b
    Example:
      sandbox-host trust add team.pub --label "weather team" --plugins 'weather_*'
    """
    store = host.read().trust_store
    key = add_key(
        store,
        read_public_key(public_key),
        label,
        roles=(role,),
        plugins=plugins or (_EVERY_PLUGIN,),
        not_before=not_before,
        not_after=not_after,
    )
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
    before = revoke(store, Revocation(digest, kind, reason, datetime.now(UTC).date()))
    say(f"{store}: the {kind} {digest} is revoked")
    if not bundle and digest not in before.keys:
        note("note: no key in the store has this id; a bundle with this digest is refused, too.")


@command.command("threshold", short_help="Ask for several signers.")
@click.argument("count", type=click.IntRange(min=1))
@click.option(
    "--plugins",
    multiple=True,
    required=True,
    metavar="PATTERN",
    help='For these plugins, such as "payments_*"; repeatable.',
)
@trust_options
def threshold(count: int, plugins: tuple[str, ...], host: HostOptions) -> None:
    """Ask for the signatures of COUNT distinct keys on some plugins.

    It adds an entry and never lowers what another one asks for: the greatest number counts.

    \b
    Example:
      sandbox-host trust threshold 2 --plugins 'payments_*'
    """
    store = host.read().trust_store
    changed = add_threshold(store, Threshold(plugins, count))
    say(f"{store}: {', '.join(plugins)} needs {counted(count, 'signature')}")
    able = len(changed.keys.keys() - changed.revoked.keys())
    if able < count:
        note(f"note: the store has {counted(able, 'key')} that could sign, so nothing passes.")


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
    revoked = counted(len(store.revoked), "revocation")
    say(f"{store.origin}: version {store.version}, {counted(len(store.keys), 'key')}, {revoked}")
    if store.mark.root:
        say(f"signed by its root, the key {store.mark.root}")
    if store.keys:
        now = datetime.now(UTC)
        print_table(
            ("KEY", "LABEL", "ROLE", "PLUGINS", "STANDING"),
            [
                (k.id[:_SHORT], k.label, ", ".join(k.roles), k.scope, _standing(k, store, now))
                for k in store.keys.values()
            ],
        )
    if store.threshold > 1:
        say(f"every plugin needs {counted(store.threshold, 'signature')}")
    for asked in store.thresholds:
        say(f"{', '.join(asked.plugins)} needs {counted(asked.count, 'signature')}")
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
    field("fingerprint", fingerprint(key.public))
    field("role", ", ".join(key.roles))
    field("plugins", key.scope)


def _document(store: TrustStore) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "trust_store": clean(store.origin),
        "version": store.version,
        "root": store.mark.root or None,
        "threshold": store.threshold,
        "thresholds": [
            {"plugins": list(one.plugins), "count": one.count} for one in store.thresholds
        ],
        "keys": [
            {
                "id": key.id,
                "fingerprint": fingerprint(key.public),
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


command.add_command(sign)
command.add_command(root)
command.add_command(install)
