"""``sandbox-host verify``: a verdict for each plugin, for people and for scripts."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sandbox_host.bundle.reader import read_directory
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.verify import verify
from sandbox_host.cli.exits import Exit, exit_for, worst
from sandbox_host.cli.options import DIRECTORY, output_format, trust_options
from sandbox_host.cli.output import clean, field, print_json, say
from sandbox_host.errors import RefusedError

if TYPE_CHECKING:
    from sandbox_host.cli.options import HostOptions

VERIFIED = "verified"


@click.command("verify", short_help="Tell whether plugins are what a trusted key signed.")
@click.argument("directories", metavar="DIR...", type=DIRECTORY, nargs=-1, required=True)
@trust_options
@output_format
def command(directories: tuple[Path, ...], host: HostOptions, as_format: str) -> int:
    """Tell whether the plugin in each DIR is exactly what a trusted key signed.

    Nothing of a plugin is run. The exit code is the gravest of all verdicts: 1 (not what was
    signed) before 4 (signer not trusted) before 3 (unsigned) before 0.

    \b
    Example:
      sandbox-host verify plugins/* --format json
    """
    trust = TrustStore.load(host.read().trust_store)
    verdicts = [_verdict(directory, trust) for directory in directories]
    if as_format == "json":
        print_json({"trust_store": clean(trust.origin), "verdicts": verdicts})
    else:
        for verdict in verdicts:
            _print(verdict)
    return worst(Exit(verdict["exit_code"]) for verdict in verdicts)


def _verdict(directory: Path, trust: TrustStore) -> dict[str, Any]:
    """Return one verdict as the JSON document has it."""
    path = clean(directory)
    try:
        bundle = verify(read_directory(directory), trust, datetime.now(UTC))
    except RefusedError as error:
        return {
            "path": path,
            "verdict": error.code,
            "exit_code": int(exit_for(error)),
            "reason": clean(error.message),
            "remedy": clean(error.remedy),
        }
    return {
        "path": path,
        "verdict": VERIFIED,
        "exit_code": int(Exit.OK),
        "plugin": bundle.manifest.identity,
        "version": bundle.manifest.version,
        "key": bundle.key_id,
        "signer": clean(bundle.signer),
        "scope": list(trust.keys[bundle.key_id].plugins),
        "digest": bundle.root_digest,
        "files": len(bundle.files),
    }


def _print(verdict: dict[str, Any]) -> None:
    if verdict["verdict"] != VERIFIED:
        say(f"{verdict['path']}: NOT VERIFIED ({verdict['verdict']})")
        field("reason", verdict["reason"])
        if verdict["remedy"]:
            field("next", verdict["remedy"])
        return
    say(f"{verdict['path']}: verified")
    field("plugin", f"{verdict['plugin']} {verdict['version']}")
    field("signer", verdict["signer"])
    field("key", verdict["key"])
    field("scope", ", ".join(verdict["scope"]))
    field("digest", verdict["digest"])
    field("files", verdict["files"])
