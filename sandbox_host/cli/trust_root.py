"""``sandbox-host trust sign|root|install``: one offline key that vouches for whole trust stores."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sandbox_host.bundle.keys import fingerprint
from sandbox_host.bundle.signature import key_id
from sandbox_host.bundle.trust_install import install_store, pin_root, sign_store
from sandbox_host.bundle.trust_root import pin_path, signature_path
from sandbox_host.cli.options import FILE, trust_options
from sandbox_host.cli.output import field, say
from sandbox_host.cli.signers import key_options, read_public_key
from sandbox_host.runtime.admissions import check_store

if TYPE_CHECKING:
    from sandbox_host.cli.options import HostOptions
    from sandbox_host.cli.signers import KeyOptions


@click.command("sign", short_help="Sign the trust store with its root key.")
@key_options
@trust_options
def sign(key: KeyOptions, host: HostOptions) -> None:
    """Sign the trust store with a root key, into a file beside it, .sig.

    Done where the root's key is, which need be no machine that runs plugins. To exchange the root,
    name the new one in the store, under [root], and sign with both, one after the other.

    \b
    Example:
      sandbox-host trust sign --trust-store fleet.toml --key root.key
    """
    store = host.read().trust_store
    signer = key.open()
    signed = sign_store(store, signer)
    say(f"{signature_path(store)}: signed")
    field("version", signed.version)
    field("root", key_id(signer.public))


@click.command("root", short_help="Believe only trust stores that this root signed.")
@click.argument("public_key", metavar="PUBLIC_KEY_FILE|BASE64")
@trust_options
def root(public_key: str, host: HostOptions) -> None:
    """Hold the trust store to a root key from now on.

    A store without that key's signature is no store then, and `trust add` and `trust revoke` leave
    it to whoever has the key. A store that is there already must be signed by it.

    \b
    Example:
      sandbox-host trust root root.key.pub
    """
    store = host.read().trust_store
    public = read_public_key(public_key)
    pin_root(store, public)
    say(f"{pin_path(store)}: the trust store is held to this root")
    field("root", key_id(public))
    field("fingerprint", fingerprint(public))


@click.command("install", short_help="Take over a newer trust store that the root signed.")
@click.argument("candidate", metavar="TOML", type=FILE)
@trust_options
def install(candidate: Path, host: HostOptions) -> None:
    """Replace the trust store by the newer one in TOML, whose signature is beside it.

    Where that one names a new root, the old and the new one must have signed it, and the new one is
    what counts from then on.

    \b
    Example:
      sandbox-host trust install downloads/fleet.toml
    """
    config = host.read()
    store = config.trust_store
    done = install_store(store, candidate, partial(check_store, config.state_dir, store))
    say(f"{store}: {'installed' if done.changed else 'this store was in place already'}")
    field("version", done.version)
    field("root", done.root)
    if done.rotated:
        say("The root was exchanged; the one before counts no more.")
