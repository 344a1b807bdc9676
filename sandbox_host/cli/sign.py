"""``sandbox-host sign``: the envelope, and nothing else, into a plugin's directory."""

from __future__ import annotations

import contextlib
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sandbox_host.bundle.contents import ENVELOPE_NAME
from sandbox_host.bundle.envelope import list_files, root_digest_of
from sandbox_host.bundle.keys import DEVELOPMENT_KEY_NAME
from sandbox_host.bundle.reader import read_directory
from sandbox_host.bundle.rules import check_contents
from sandbox_host.bundle.sign import sign
from sandbox_host.bundle.stage import stage_source
from sandbox_host.cli.options import FILE, passphrase_fd, plugin_directory
from sandbox_host.cli.output import field, say
from sandbox_host.cli.passphrase import open_private_key
from sandbox_host.config import default_config_dir
from sandbox_host.errors import ConfigError, TrustStoreError, UsageError

if TYPE_CHECKING:
    from sandbox_host.bundle.keys import PrivateKey

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@click.command("sign", short_help="Sign a plugin.")
@plugin_directory
@click.option("--key", "key_path", type=FILE, metavar="PATH", help="Default: your development key.")
@click.option(
    "--out", type=FILE, metavar="NEWDIR", help="Write a signed copy there, and leave DIR as it is."
)
@passphrase_fd
def command(
    directory: Path, key_path: Path | None, out: Path | None, passphrase_fd: int | None
) -> None:
    """Sign every byte of the plugin in DIR.

    Writes one file into it, plugin.dsse.json, in one step; an older one is replaced.

    \b
    Example:
      sandbox-host sign word_counter --key release.key --out dist/word_counter
    """
    if out is not None and out.resolve().is_relative_to(directory.resolve()):
        raise UsageError(
            f"The signed copy {out} would lie inside the plugin itself.",
            remedy="Name a directory outside of it with --out.",
        )
    contents = read_directory(directory)
    manifest = check_contents(contents.files)
    key = _key(key_path, passphrase_fd)
    envelope = sign(contents, key, datetime.now(UTC))
    if out is None:
        _replace_envelope(directory, envelope)
    else:
        stage_source(contents, envelope, out)
    say(f"{out or directory}: signed")
    field("plugin", f"{manifest.identity} {manifest.version}")
    field("files", len(contents.files))
    field("digest", root_digest_of(list_files(contents.files)))
    field("key", key.key_id)


def _key(path: Path | None, descriptor: int | None) -> PrivateKey:
    development = default_config_dir() / DEVELOPMENT_KEY_NAME
    if path is None and not os.path.lexists(development):
        raise TrustStoreError(
            f"There is no development key ({development}), and --key names no other.",
            remedy="Make one with `sandbox-host keygen --dev`, or give --key PATH.",
        )
    return open_private_key(path or development, descriptor)


def _replace_envelope(directory: Path, envelope: bytes) -> None:
    """Write the envelope so that a reader sees the old one or the new one, never half of it."""
    temporary = f".{ENVELOPE_NAME}.{secrets.token_hex(8)}"
    try:
        parent = os.open(directory, _DIRECTORY)
        try:
            with os.fdopen(os.open(temporary, _CREATE, 0o644, dir_fd=parent), "wb") as file:
                file.write(envelope)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, ENVELOPE_NAME, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)
            raise
        finally:
            os.close(parent)
    except OSError as error:
        raise ConfigError(
            f"The envelope cannot be written to {directory}: {error.strerror or error}.",
            remedy="Check the directory's permissions, or write a signed copy with --out.",
        ) from error
