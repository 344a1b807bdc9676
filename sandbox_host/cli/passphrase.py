"""Where passphrases come from: a terminal, an open descriptor or a variable, never an argument.

Arguments can be listed by every user of the machine. Environment variables are inherited by
whatever is started, so one is used only where it is named, as CI services hand out their secrets,
and is removed from this process's environment when it is read.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

import click

from sandbox_host.errors import PassphraseError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox_host.bundle.keys import PrivateKey

MAX_PASSPHRASE_BYTES: Final = 1_024

passphrase_env = click.option(
    "--passphrase-env",
    metavar="NAME",
    help="Take the key's passphrase from this environment variable, as CI services hand it out.",
)

_CHUNK_BYTES: Final = 256


def read_passphrase(descriptor: int) -> bytes:
    """Return what an open descriptor holds, up to its first line feed, at most 1,024 bytes.

    Raises:
        UsageError: the descriptor cannot be read, or holds nothing or too much.
    """
    data = b""
    try:
        while b"\n" not in data and len(data) <= MAX_PASSPHRASE_BYTES:
            chunk = os.read(descriptor, _CHUNK_BYTES)
            if not chunk:
                break
            data += chunk
    except OSError as error:
        raise UsageError(
            f"The passphrase cannot be read from descriptor {descriptor}: {error.strerror}.",
            remedy="Open it, as in `--passphrase-fd 3 3< FILE`.",
        ) from error
    passphrase = data.split(b"\n", 1)[0].removesuffix(b"\r")
    if not passphrase or len(passphrase) > MAX_PASSPHRASE_BYTES:
        raise UsageError(
            f"Descriptor {descriptor} holds no passphrase of 1 to {MAX_PASSPHRASE_BYTES} bytes on "
            "its first line.",
            remedy="Write one line to it.",
        )
    return passphrase


def ask_passphrase(prompt: str, *, confirm: bool = False) -> bytes:
    """Ask for a passphrase on the terminal, without showing it.

    Raises:
        UsageError: there is no terminal to ask on.
    """
    if not sys.stdin.isatty():
        raise UsageError(
            "A passphrase is needed, and there is no terminal to ask for it.",
            remedy="Give it with --passphrase-fd N, on an open file descriptor.",
        )
    # On standard error: a prompt is no data.
    answer: str = click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    return answer.encode()


def take_passphrase(name: str) -> bytes:
    """Return what an environment variable holds, and remove it from the environment.

    Raises:
        UsageError: it is not set, empty or too long.
    """
    passphrase = os.environb.pop(os.fsencode(name), b"")
    if not passphrase or len(passphrase) > MAX_PASSPHRASE_BYTES:
        raise UsageError(
            f"${name} holds no passphrase of 1 to {MAX_PASSPHRASE_BYTES} bytes.",
            remedy="Export it, or give the passphrase with --passphrase-fd.",
        )
    return passphrase


def given_passphrase(descriptor: int | None, variable: str | None) -> bytes | None:
    """Return the passphrase that the command line leads to; None where it names neither way.

    Raises:
        UsageError: it names both, or there is none where it says.
    """
    if descriptor is not None and variable is not None:
        raise UsageError(
            "--passphrase-fd and --passphrase-env exclude each other.", remedy="Keep one of them."
        )
    if descriptor is not None:
        return read_passphrase(descriptor)
    return take_passphrase(variable) if variable is not None else None


def open_private_key(path: Path, descriptor: int | None, variable: str | None = None) -> PrivateKey:
    """Read a private key, asking for its passphrase only where it has one.

    Raises:
        PassphraseError: the passphrase is wrong.
        TrustStoreError: the key cannot be read, or is not protected.
        UsageError: it has a passphrase, and nobody to ask for it.
    """
    from sandbox_host.bundle.keys import load_private_key

    given = given_passphrase(descriptor, variable)
    if given is not None:
        return load_private_key(path, given)
    try:
        return load_private_key(path)
    except PassphraseError:
        passphrase = ask_passphrase(f"Passphrase of {path}")
    return load_private_key(path, passphrase)
