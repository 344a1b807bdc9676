"""``sandbox-host keygen``: a private key, and what others need to trust it."""

from __future__ import annotations

import base64
import shlex
from pathlib import Path

import click

from sandbox_host.bundle.keys import (
    PrivateKey,
    create_development_key,
    fingerprint,
    format_public_key,
    generate_key,
    save_key_pair,
)
from sandbox_host.cli.options import FILE, HostOptions, passphrase_fd, trust_options
from sandbox_host.cli.output import field, say
from sandbox_host.cli.passphrase import ask_passphrase, given_passphrase, passphrase_env
from sandbox_host.config import default_config_dir
from sandbox_host.errors import UsageError


@click.command("keygen", short_help="Make a signing key.")
@click.argument("path", type=FILE, required=False)
@click.option("--dev", is_flag=True, help="Make and trust this user's development key.")
@click.option("--no-passphrase", is_flag=True, help="Leave the key file unencrypted.")
@passphrase_fd
@passphrase_env
@trust_options
def command(
    path: Path | None,
    dev: bool,
    no_passphrase: bool,
    passphrase_fd: int | None,
    passphrase_env: str | None,
    host: HostOptions,
) -> None:
    """Make an Ed25519 signing key in the new file PATH, mode 0600, in OpenSSH's format.

    Its public key goes to the new file PATH.pub, for `sandbox-host trust add`.

    The passphrase is asked for on the terminal, or read with --passphrase-fd or --passphrase-env.
    What is printed is for others: the key's id and fingerprint, to compare by another way, and the
    command that trusts it.

    With --dev and without PATH: a key without a passphrase in the configuration directory, made
    if there is none, and trusted on this machine only.

    \b
    Example:
      sandbox-host keygen --dev
      sandbox-host keygen release.key --passphrase-fd 3 3< passphrase.txt
    """
    if dev:
        if path is not None or no_passphrase or passphrase_fd is not None or passphrase_env:
            raise UsageError(
                "--dev makes the one development key, without a passphrase.",
                remedy="Leave PATH and the passphrase options away, or leave --dev away.",
            )
        _development_key(host)
        return
    if path is None:
        raise UsageError(
            "keygen was not told where to write the key.",
            remedy="Name a new file, or make a development key with --dev.",
        )
    if no_passphrase and (passphrase_fd is not None or passphrase_env):
        raise UsageError(
            "--no-passphrase excludes --passphrase-fd and --passphrase-env.",
            remedy="Keep one of them.",
        )
    key = generate_key()
    passphrase = None
    if not no_passphrase:
        given = given_passphrase(passphrase_fd, passphrase_env)
        passphrase = given or ask_passphrase("Passphrase of the new key", confirm=True)
    beside = save_key_pair(key, path, passphrase)
    say(f"{path}: a new private key, mode 0600; keep it to yourself")
    say(f"{beside}: its public key, for others")
    _tell(key)
    public = base64.b64encode(key.public).decode()
    label = shlex.quote(path.stem)
    field("trust", f"sandbox-host trust add {public} --label {label} --plugins 'PATTERN'")


def _development_key(host: HostOptions) -> None:
    store = host.read().trust_store
    made = create_development_key(default_config_dir(), store)
    word = "made now, mode 0600" if made.created else "there already"
    say(f"{made.path}: the development key ({word}); trusted in {made.trust_store}")
    # No line to hand on: this key has no passphrase, and no other machine should trust it.
    _tell(made.key)


def _tell(key: PrivateKey) -> None:
    field("key", key.key_id)
    field("fingerprint", fingerprint(key.public))
    field("public", format_public_key(key.public))
