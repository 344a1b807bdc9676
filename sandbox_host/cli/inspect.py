"""``sandbox-host inspect``: what a plugin says of itself. Looking at it is not trusting it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sandbox_host.bundle.contents import ENVELOPE_NAME, digest_of
from sandbox_host.bundle.differences import differences
from sandbox_host.bundle.envelope import format_time, parse_envelope, parse_statement
from sandbox_host.bundle.reader import read_directory
from sandbox_host.bundle.rules import check_contents
from sandbox_host.cli.describe import limit_lines, permission_lines, size
from sandbox_host.cli.options import output_format, plugin_directory
from sandbox_host.cli.output import clean, field, print_json, say
from sandbox_host.errors import VerificationError

if TYPE_CHECKING:
    from sandbox_host.bundle.contents import Contents
    from sandbox_host.model import Manifest

_WARNING = "NOT VERIFIED. Inspecting is not verifying: nobody has checked any of this."


@click.command("inspect", short_help="Show what a plugin is and asks for, without trusting it.")
@plugin_directory
@output_format
def command(directory: Path, as_format: str) -> None:
    """Show what the plugin in DIR is and asks for, and what its envelope claims.

    Inspecting is not verifying: no key is looked up and no signature is checked. Nothing of the
    plugin is run.

    \b
    Example:
      sandbox-host inspect downloads/weather_model
    """
    contents = read_directory(directory)
    manifest = check_contents(contents.files)
    claim = _claim(contents)
    if as_format == "json":
        print_json(_document(directory, contents, manifest, claim))
        return
    say(f"{directory}: {manifest.identity} {manifest.version}")
    say(f"{_WARNING} Next: sandbox-host verify {directory}")
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
        "key": envelope.key_id,
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
            *("capabilities", "dependencies", "events", "plugin_api", "enabled", "notes"),
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
    field("key", claim["key"])
    field("signed", f"{claim['name']} {claim['version']}, {claim['files']} files")
    field("created", claim["created"])
    if claim["expires"]:
        field("expires", claim["expires"])
    field("digest", claim["digest"])
    for difference in claim["differences"] or ["none; the files are those it lists"]:
        field("difference", difference)
