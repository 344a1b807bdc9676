"""``sandbox-host inspect``: what a plugin says of itself. Looking at it is not trusting it."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sandbox_host.bundle.contents import ENVELOPE_NAME, digest_of
from sandbox_host.bundle.differences import differences
from sandbox_host.bundle.envelope import format_time, parse_envelope, parse_statement
from sandbox_host.bundle.rules import check_contents
from sandbox_host.bundle.source import read_bundle
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.cli.describe import limit_lines, permission_lines, size
from sandbox_host.cli.export import KINDS, export
from sandbox_host.cli.options import output_format, plugin_bundle, trust_options
from sandbox_host.cli.output import clean, field, print_json, say
from sandbox_host.cli.targets import Target, check_targets, reads_targets
from sandbox_host.errors import UsageError, VerificationError

if TYPE_CHECKING:
    from sandbox_host.bundle.contents import Contents
    from sandbox_host.cli.options import HostOptions
    from sandbox_host.model import Manifest

_WARNING = "NOT VERIFIED. Inspecting is not verifying: nobody has checked any of this."


@click.command("inspect", short_help="Show what a plugin is and asks for, without trusting it.")
@plugin_bundle
@output_format
@click.option(
    "--export",
    "targets",
    callback=reads_targets(*KINDS),
    metavar="PART[=FILE]",
    multiple=True,
    help=f"Write a part of the signature instead: {', '.join(KINDS)}; may be repeated.",
)
@click.option(
    "--by",
    default="",
    metavar="KEY",
    help="Of several signatures, export the one by the key whose id begins so.",
)
@trust_options
def command(
    directory: Path, as_format: str, targets: tuple[Target, ...], by: str, host: HostOptions
) -> None:
    """Show what PLUGIN is and asks for, and what its envelope claims.

    PLUGIN is a directory or an archive. Inspecting is not verifying: no key is looked up and no
    signature is checked. Nothing of the plugin is run.

    --export writes what another tool needs to check a signature: pae (the bytes that were signed),
    sig (the signature) and pem (the public key, which the trust store must have).

    \b
    Example:
      sandbox-host inspect downloads/weather_model
      sandbox-host inspect weather_model --export pae=w.pae --export sig=w.sig --export pem=w.pem
      openssl pkeyutl -verify -rawin -pubin -inkey w.pem -in w.pae -sigfile w.sig
    """
    wanted = check_targets(targets, "--export")
    if by and not wanted:
        raise UsageError("--by says which signature to export.", remedy="Give --export as well.")
    contents = read_bundle(directory)
    if wanted:
        export(contents, wanted, by, lambda: TrustStore.load(host.read().trust_store))
        return
    manifest = check_contents(contents.files)
    claim = _claim(contents)
    if as_format == "json":
        print_json(_document(directory, contents, manifest, claim))
        return
    say(f"{directory}: {manifest.identity} {manifest.version}")
    say(f"{_WARNING} Next: sandbox-host verify {shlex.quote(str(directory))}")
    _print_manifest(manifest)
    _print_claim(claim)
    say()
    say("Files")
    for path, data in contents.files.items():
        say(f"  {size(len(data)):>10}  {path}")


def _claim(contents: Contents) -> dict[str, Any]:
    """Return what the envelope claims, or why it says nothing."""
    if contents.envelope is None:
        return {"signed": False}
    try:
        envelope = parse_envelope(contents.envelope)
        statement = parse_statement(envelope.payload)
    except VerificationError as error:
        return {"signed": True, "malformed": clean(error.message)}
    return {
        "signed": True,
        "key": clean(envelope.key_id),
        "keys": [clean(one.key_id) for one in envelope.signatures],
        "name": statement.name,
        "version": statement.version,
        "created": format_time(statement.created),
        "expires": format_time(statement.expires) if statement.expires else None,
        "digest": statement.root_digest,
        "files": len(statement.files),
        "differences": [clean(one) for one in differences(statement.files, contents.files)],
    }


def _document(
    directory: Path, contents: Contents, manifest: Manifest, claim: dict[str, Any]
) -> dict[str, Any]:
    described = {
        name: getattr(manifest, name)
        for name in (
            *("name", "identity", "version", "description", "author", "license"),
            *("capabilities", "dependencies", "events", "exports", "plugin_api"),
            *("enabled", "notes"),
        )
    }
    schema = manifest.config_schema
    return {
        "verified": False,
        "warning": _WARNING,
        "path": clean(directory),
        "plugin": {
            **described,
            "permissions": asdict(manifest.permissions),
            "limits": dict(manifest.limits),
            "config": dict(manifest.config),
            "config_schema": dict(schema) if schema is not None else None,
        },
        "envelope": claim,
        "files": [
            {"path": path, "size": len(data), "sha256": digest_of(data)}
            for path, data in contents.files.items()
        ],
    }


def _print_manifest(manifest: Manifest) -> None:
    say()
    say("What it says it is")
    field("name", manifest.name)
    field("description", manifest.description)
    field("author", manifest.author)
    field("license", manifest.license or "none given")
    field("plugin API", manifest.plugin_api)
    for label, values in (
        ("capability", manifest.capabilities),
        ("depends on", manifest.dependencies),
        ("handles", manifest.events),
        ("exports", manifest.exports),
        ("note", manifest.notes),
    ):
        for value in values:
            field(label, value)
    say()
    say("What it asks for")
    for line in permission_lines(manifest.permissions):
        field("permission", line)
    for line in limit_lines(manifest.limits):
        field("limit", line)
    if manifest.config:
        field("config", json.dumps(dict(manifest.config)))
    if manifest.config_schema is not None:
        field("schema", json.dumps(dict(manifest.config_schema)))


def _print_claim(claim: dict[str, Any]) -> None:
    say()
    say(f"What its envelope ({ENVELOPE_NAME}) claims")
    if not claim["signed"]:
        field("unsigned", "there is none")
        return
    if "malformed" in claim:
        field("malformed", claim["malformed"])
        return
    for key in claim["keys"]:
        field("claims key", key or "none")
    field("signed", f"{claim['name']} {claim['version']}, {claim['files']} files")
    field("created", claim["created"])
    if claim["expires"]:
        field("expires", claim["expires"])
    field("digest", claim["digest"])
    for difference in claim["differences"] or ["none; the files are those it lists"]:
        field("difference", difference)
