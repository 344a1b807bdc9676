"""``--also FORM=PATH``: the signed payload once more, in files for other tools."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sandbox_host.cli.written import write_file
from sandbox_host.signing.foreign import FORMS, export

if TYPE_CHECKING:
    from sandbox_host.bundle.sign import Draft, Signer


@dataclass(frozen=True, slots=True)
class Also:
    """One form, and the file of its signature; two more are written beside it."""

    form: str
    path: Path


def _read(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[Also, ...]:
    return tuple(_read_one(value, ctx, param) for value in values)


def _read_one(value: str, ctx: click.Context, param: click.Parameter) -> Also:
    form, equals, path = value.partition("=")
    if form not in FORMS or not equals or not path:
        expected = ", ".join(f"{name}=PATH" for name in FORMS)
        raise click.BadParameter(f"expected one of {expected}.", ctx, param)
    return Also(form, Path(path))


also_option = click.option(
    "--also",
    callback=_read,
    metavar="FORM=PATH",
    multiple=True,
    help="Sign for minisign, signify or sshsig as well: PATH, PATH.pub and PATH.payload. "
    "Repeatable.",
)


def export_all(also: tuple[Also, ...], signer: Signer, what: Draft) -> None:
    """Sign the payload in each form, and write the files; older ones are replaced.

    Raises:
        SignerError: the signer did not sign.
        ConfigError: a file cannot be written.
    """
    statement = what.statement
    comment = f"{statement.identity} {statement.version} sha256:{statement.root_digest}"
    exports = [(one, export(one.form, signer, what.payload, comment)) for one in also]
    for one, made in exports:
        write_file(one.path, made.signature, f"the {one.form} signature")
        write_file(_beside(one.path, "pub"), made.public, "the public key")
        write_file(_beside(one.path, "payload"), what.payload, "the signed payload")


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")
