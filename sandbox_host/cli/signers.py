"""Which key a command signs with: the options for it, and the signer that they lead to."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sandbox_host.bundle.keys import (
    DEVELOPMENT_KEY_NAME,
    MAX_KEY_FILE_BYTES,
    is_private,
    parse_public_key,
)
from sandbox_host.cli.options import passphrase_fd
from sandbox_host.cli.passphrase import open_private_key, passphrase_env
from sandbox_host.config import default_config_dir
from sandbox_host.errors import TrustStoreError, UsageError

if TYPE_CHECKING:
    from sandbox_host.bundle.sign import Signer

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """What was said on the command line about the key; None is "nothing"."""

    key_uri: str | None
    public_key: str | None
    passphrase_fd: int | None
    passphrase_env: str | None

    def open(self) -> Signer:
        """Return the signer; the development key where no other is named.

        Raises:
            UsageError: the options make no sense.
            TrustStoreError: the key cannot be read; SignerError where it is no file.
        """
        from sandbox_host.signing.uri import open_signer

        development = default_config_dir() / DEVELOPMENT_KEY_NAME
        if self.key_uri is None and not os.path.lexists(development):
            raise TrustStoreError(
                f"There is no development key ({development}), and --key names no other.",
                remedy="Make one with `sandbox-host keygen --dev`, or give --key URI.",
            )
        public = read_public_key(self.public_key) if self.public_key is not None else None
        return open_signer(
            f"file:{development}" if self.key_uri is None else self.key_uri,
            open_file=lambda path: open_private_key(path, self.passphrase_fd, self.passphrase_env),
            environ=os.environ,
            public=public,
        )


def key_options(function: Function) -> Function:
    """Add the options that name a key; the function gets ``key``."""

    @functools.wraps(function)
    def command(**arguments: Any) -> Any:
        ours = {name: arguments.pop(name) for name in KeyOptions.__dataclass_fields__}
        return function(key=KeyOptions(**ours), **arguments)

    decorated: Any = command
    for option in (passphrase_env, passphrase_fd, _PUBLIC_KEY, _KEY):
        decorated = option(decorated)
    result: Function = decorated
    return result


_KEY = click.option(
    "--key",
    "key_uri",
    metavar="URI",
    help="A file, ssh-agent:[FINGERPRINT] or exec:COMMAND. Default: your development key.",
)
_PUBLIC_KEY = click.option(
    "--public-key",
    metavar="FILE|BASE64",
    help="Whose signature it has to be; required with exec:, which does not say.",
)


def read_public_key(text: str) -> bytes:
    """Return the raw key in the file that `text` names, or in the text itself.

    Raises:
        UsageError: it is neither, the key is weak, or it is a private key.
    """
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
