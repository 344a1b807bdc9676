"""``sandbox-host pack``: a plugin and its signature as one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sandbox_host.bundle.archive_format import SUFFIX
from sandbox_host.bundle.archive_write import write_archive
from sandbox_host.bundle.differences import differences
from sandbox_host.bundle.envelope import parse_envelope
from sandbox_host.bundle.rules import check_contents
from sandbox_host.bundle.source import read_bundle
from sandbox_host.bundle.statement import parse_statement
from sandbox_host.cli.describe import size
from sandbox_host.cli.options import FILE, plugin_bundle
from sandbox_host.cli.output import field, place, say
from sandbox_host.errors import UsageError, VerificationError

if TYPE_CHECKING:
    from sandbox_host.bundle.contents import Contents


@click.command("pack", short_help="Pack a plugin into one file.")
@plugin_bundle
@click.option(
    "--out",
    type=FILE,
    metavar="FILE",
    help="The archive; an older one is replaced. Default: NAME-VERSION.plugin in this directory.",
)
@click.option(
    "--compress",
    is_flag=True,
    help="Deflate files. The bytes then depend on the zlib that packs them, not on files alone.",
)
def command(directory: Path, out: Path | None, compress: bool) -> None:
    """Pack PLUGIN and its signature into one archive, which loads as it is.

    The same files give the same bytes, whoever packs them and when. Sign the directory first: an
    envelope is packed with the files, and one that is not for these files is refused.

    \b
    Example:
      sandbox-host pack word_counter --out dist/word_counter.plugin
      sandbox-host verify dist/word_counter.plugin
    """
    contents = read_bundle(directory)
    manifest = check_contents(contents.files)
    _check_envelope(contents)
    target = out or Path(f"{manifest.identity}-{manifest.version}{SUFFIX}")
    _check_target(target, directory)
    packed = write_archive(contents, target, compress=compress)
    say(f"{place(target)}: packed")
    field("plugin", f"{manifest.identity} {manifest.version}")
    field("files", f"{len(contents.files)}, {size(sum(map(len, contents.files.values())))}")
    field("archive", size(packed.size))
    field("SHA-256", packed.sha256)
    field("signature", "packed with it" if contents.envelope is not None else "none: not signed")


def _check_envelope(contents: Contents) -> None:
    """Refuse to hand out what every host would refuse as tampered with.

    Raises:
        VerificationError: the envelope is malformed, or lists other files.
    """
    if contents.envelope is None:
        return
    statement = parse_statement(parse_envelope(contents.envelope).payload)
    found = differences(statement.files, contents.files)
    if found:
        raise VerificationError(
            f"{place(contents.origin)} is not what was signed: {found[0]}.",
            remedy="Sign it again (`sandbox-host sign`), then pack it.",
        )


def _check_target(target: Path, source: Path) -> None:
    """Refuse a place for the archive that cannot be meant.

    Raises:
        UsageError: it is a directory, or would become a file of the plugin itself.
    """
    if target.is_dir():
        raise UsageError(
            f"{place(target)} is a directory.", remedy="Name the archive itself with --out."
        )
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        raise UsageError(
            f"The archive {place(target)} would lie inside the plugin itself.",
            remedy="Name a file outside of it with --out.",
        )
