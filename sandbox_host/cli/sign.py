"""``sandbox-host sign``: the envelope, and nothing else, into a plugin's directory."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sandbox_host.bundle.contents import ENVELOPE_NAME
from sandbox_host.bundle.envelope import parse_envelope
from sandbox_host.bundle.reader import read_directory
from sandbox_host.bundle.sign import complete, draft, draft_more
from sandbox_host.bundle.signature import key_id
from sandbox_host.bundle.stage import stage_source
from sandbox_host.bundle.statement import format_time
from sandbox_host.cli.also import Also, also_option, export_all
from sandbox_host.cli.describe import counted
from sandbox_host.cli.moments import read_moment
from sandbox_host.cli.options import FILE, plugin_directory
from sandbox_host.cli.output import field, note, say
from sandbox_host.cli.signers import key_options
from sandbox_host.errors import ConfigError, UsageError, VerificationError
from sandbox_host.replacing import replacing

if TYPE_CHECKING:
    from sandbox_host.bundle.contents import Contents
    from sandbox_host.bundle.sign import Draft, Signer
    from sandbox_host.cli.signers import KeyOptions

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@click.command("sign", short_help="Sign a plugin.")
@plugin_directory
@key_options
@click.option("--add", is_flag=True, help="Add a signature to those that are there.")
@click.option(
    "--expires",
    callback=read_moment,
    metavar="TIME",
    help="When the signature stops counting, as 2027-01-31T00:00:00Z. Default: never.",
)
@click.option(
    "--out", type=FILE, metavar="NEWDIR", help="Write a signed copy there, and leave DIR as it is."
)
@also_option
def command(
    directory: Path,
    key: KeyOptions,
    add: bool,
    expires: datetime | None,
    out: Path | None,
    also: tuple[Also, ...],
) -> None:
    """Sign every byte of the plugin in DIR.

    Writes one file into it, plugin.dsse.json, in one step; an older one is replaced.

    With --add, a second person signs what a first one signed: the very same files, or nothing. What
    is signed is shown first.

    \b
    Example:
      sandbox-host sign word_counter --key release.key --out dist/word_counter
      sandbox-host sign word_counter --key ssh-agent: --add
    """
    _check_places(directory, out, also)
    if add and expires is not None:
        raise UsageError(
            "--expires is part of what the first signer signed.", remedy="Leave it out with --add."
        )
    contents = read_directory(directory)
    what = draft_more(contents) if add else draft(contents, datetime.now(UTC), expires)
    signer = key.open()
    if add:
        _announce(what, signer)
    else:
        _warn_of_loss(contents)
    envelope = complete(what, signer)
    export_all(also, signer, what)
    if out is None:
        _replace_envelope(directory, envelope)
    else:
        stage_source(contents, envelope, out)
    say(f"{out or directory}: signed")
    _describe(what, signer)
    for one in also:
        field(one.form, one.path)


def _check_places(directory: Path, out: Path | None, also: tuple[Also, ...]) -> None:
    inside = directory.resolve()
    if out is not None and out.resolve().is_relative_to(inside):
        raise UsageError(
            f"The signed copy {out} would lie inside the plugin itself.",
            remedy="Name a directory outside of it with --out.",
        )
    covered = [inside, *([out.resolve()] if out is not None else [])]
    for one in also:
        if any(one.path.resolve().is_relative_to(place) for place in covered):
            raise UsageError(
                f"{one.path} would lie inside the plugin itself, whose every file is signed.",
                remedy="Name a file outside of it with --also.",
            )


def _announce(what: Draft, signer: Signer) -> None:
    """Show what is about to be signed, before an agent or a token asks for consent."""
    statement = what.statement
    until = f", expires {format_time(statement.expires)}" if statement.expires else ""
    note(
        f"about to sign {statement.identity} {statement.version}, "
        f"{counted(len(statement.files), 'file')}, with the key {key_id(signer.public)}"
    )
    note(f"  root digest {statement.root_digest}")
    note(f"  first signed {format_time(statement.created)}{until}")
    for one in what.signatures:
        note(f"  signed already, as it says, by {one.key_id or 'a key that it does not name'}")


def _warn_of_loss(contents: Contents) -> None:
    if contents.envelope is None:
        return
    with contextlib.suppress(VerificationError):
        count = len(parse_envelope(contents.envelope).signatures)
        if count > 1:
            note(f"note: {count} signatures are replaced by one; --add keeps them.")


def _describe(what: Draft, signer: Signer) -> None:
    statement = what.statement
    field("plugin", f"{statement.identity} {statement.version}")
    field("files", len(statement.files))
    field("digest", statement.root_digest)
    field("key", key_id(signer.public))
    if what.signatures:
        field("signatures", len(what.signatures) + 1)
    if statement.expires is not None:
        field("expires", format_time(statement.expires))


def _replace_envelope(directory: Path, envelope: bytes) -> None:
    """Write the envelope so that a reader sees the old one or the new one, never half of it."""
    try:
        parent = os.open(directory, _DIRECTORY)
        try:
            with replacing(parent, ENVELOPE_NAME, 0o644) as file:
                file.write(envelope)
        finally:
            os.close(parent)
    except OSError as error:
        raise ConfigError(
            f"The envelope cannot be written to {directory}: {error.strerror or error}.",
            remedy="Check the directory's permissions, or write a signed copy with --out.",
        ) from error
