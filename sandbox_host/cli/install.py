"""``sandbox-host install``: a plugin, verified, into the directory that hosts load from."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sandbox_host.admission.history import Candidate, permission_for
from sandbox_host.admission.plan import admit
from sandbox_host.admission.policy import Policy
from sandbox_host.admission.versions import version_key
from sandbox_host.bundle.source import read_bundle
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.verify import verify
from sandbox_host.catalog.judging import Judging
from sandbox_host.cli.asking import agreed
from sandbox_host.cli.describe import limit_lines, permission_lines
from sandbox_host.cli.downgrades import allow_downgrade
from sandbox_host.cli.exits import Exit
from sandbox_host.cli.options import memory_options, output_format, plugin_bundle
from sandbox_host.cli.output import clean, fail, field, note, print_json, print_table, say
from sandbox_host.cli.output import place as shown_place
from sandbox_host.cli.plugin_place import directory_of, place_for, place_option, tell_readme
from sandbox_host.errors import PluginDisabledError, RollbackError
from sandbox_host.model import Guarantee, Layer
from sandbox_host.observe.journal import Journal
from sandbox_host.runtime.admissions import Admissions, check_remembered, difference
from sandbox_host.runtime.history_store import HistoryStore

if TYPE_CHECKING:
    from sandbox_host.admission.changes import Change
    from sandbox_host.admission.history import Downgrade
    from sandbox_host.bundle.contents import Contents
    from sandbox_host.bundle.verify import VerifiedBundle
    from sandbox_host.catalog.placing import PluginPlace
    from sandbox_host.catalog.roster import Judged
    from sandbox_host.cli.options import HostOptions
    from sandbox_host.config import HostConfig


@click.command("install", short_help="Put a plugin into the plugin directory.")
@plugin_bundle
@click.option("--yes", is_flag=True, help="Do not ask.")
@allow_downgrade
@place_option
@memory_options
@output_format
def command(
    directory: Path,
    yes: bool,
    downgrades: tuple[Downgrade, ...],
    place: Path | None,
    host: HostOptions,
    as_format: str,
) -> int:
    """Verify PLUGIN, show what it asks for, and put it into the plugin directory in one step.

    A host that watches the directory loads it then. What a host would refuse is refused here: what
    is unsigned, not granted, or older than what was admitted or is installed. An update that asks
    for more than the version before it is approved first: without --yes it asks on a terminal.

    The plugin becomes one file, NAME.plugin, in the place of the version before it.

    \b
    Example:
      sandbox-host install dist/weather_model-1.1.0.plugin
    """
    config, now = host.read(), datetime.now(UTC)
    where = directory_of(config, place)
    update = _read(directory, config, now, downgrades)
    if as_format == "text":
        _show(update)
    question = "Approve that it asks for this, and install it?"
    if update.held and not agreed(question, yes):
        fail("nothing was installed.")
        return Exit.REFUSED
    with Journal(config.journal_path) as journal:
        plugins = place_for(where, journal)
        with plugins.held(make=True):
            before = _installed(plugins, config, update)
            path = _put(update, plugins, config, journal, before)
    tell_readme(where, config)
    _tell(update, before, path, as_format)
    return Exit.OK


@dataclass(frozen=True, slots=True)
class _Update:
    """What is to be installed, and what speaks for and against it.

    Attributes:
        changes: what it asks for beside the version that was admitted before it.
        held: it asks for more, and nobody has approved of that.
        downgrades: the operator's word for versions that history speaks against.
        off: why it will not run although it is installed; "" if it will.
    """

    bundle: VerifiedBundle
    contents: Contents
    trust: TrustStore
    now: datetime
    changes: tuple[Change, ...]
    held: bool
    downgrades: tuple[Downgrade, ...]
    off: str

    @property
    def identity(self) -> str:
        return self.bundle.manifest.identity

    @property
    def allowed(self) -> bool:
        """Whether the operator's word for this version was given."""
        return permission_for(Candidate.of(self.bundle), self.downgrades) is not None


def _read(
    path: Path, config: HostConfig, now: datetime, downgrades: tuple[Downgrade, ...]
) -> _Update:
    """Take the steps of every load, up to the approval.

    Raises:
        RefusedError: a host would refuse it.
    """
    trust = TrustStore.load(config.trust_store)
    contents = read_bundle(path)
    bundle = verify(contents, trust, now)
    check_remembered(config.state_dir, bundle, trust, now, downgrades)
    off = _check_admitted(bundle, config)
    changes = difference(config.state_dir, bundle)
    history = HistoryStore(config.state_dir).read()
    record = history.plugins.get(bundle.manifest.identity) if history else None
    approved = record is not None and record.approval == bundle.root_digest
    held = any(change.wider for change in changes) and not approved
    return _Update(bundle, contents, trust, now, changes, held, downgrades, off)


def _check_admitted(bundle: VerifiedBundle, config: HostConfig) -> str:
    """Refuse what the configuration does not grant; return why it is disabled, or "".

    This machine's layers, the scan, and the services that an application offers are for the host
    that loads it.
    """
    policy = replace(
        Policy.from_config(config),
        accept_missing=frozenset([*Guarantee, *Layer]),
        disabled=frozenset(),
        refuse_findings="none",
        services=frozenset(bundle.manifest.permissions.services),
    )
    with contextlib.suppress(PluginDisabledError):
        admit(bundle, policy, frozenset(Layer))
    return Judging(config).off(bundle.manifest)


def _installed(plugins: PluginPlace, config: HostConfig, update: _Update) -> Judged | None:
    """Return the verified version that is there.

    Raises:
        RollbackError: it is newer.
    """
    found = plugins.of(update.identity)
    if len(found) != 1:
        return None  # none; or two, which `put` refuses
    judged = Judging(config)(found[0].path)
    if not judged.digest:
        return None  # what does not verify has no version: anybody may have written it
    version = update.bundle.manifest.version
    if version_key(version) < version_key(judged.version) and not update.allowed:
        raise RollbackError(
            f"Plugin {update.identity} {version} is older than {judged.version}, which is "
            f"installed in {judged.path}.",
            remedy="Install the newest release; or, knowingly, give "
            f"`--allow-downgrade {update.identity} {version} REASON`.",
        )
    return judged


def _put(
    update: _Update,
    plugins: PluginPlace,
    config: HostConfig,
    journal: Journal,
    before: Judged | None,
) -> Path:
    admissions = Admissions(config.state_dir, journal)
    if update.held:
        admissions.approve(update.bundle, update.trust, update.now, update.changes)
    elif update.allowed:
        # The word is remembered, so that the host that loads it needs not be told again.
        admissions.admit(update.bundle, update.trust, update.now, update.downgrades)
    if before and before.digest == update.bundle.root_digest:
        return before.path
    placed = plugins.put(update.bundle, update.contents)
    if placed.left:
        note(f"note: the old version could not be cleared away: {placed.left}")
    journal.sync()
    return placed.path


def _show(update: _Update) -> None:
    manifest = update.bundle.manifest
    say(f"{manifest.identity} {manifest.version}")
    field("signer", ", ".join(key.signer for key in update.bundle.signers))
    field("digest", update.bundle.root_digest)
    for number, line in enumerate(_asks(update)):
        field("" if number else "asks for", line)
    if update.changes:
        rows = [("more" if c.wider else "less", c.path, c.before, c.now) for c in update.changes]
        print_table(("", "PLUGIN.JSON", "BEFORE", "NOW"), rows)


def _asks(update: _Update) -> list[str]:
    manifest = update.bundle.manifest
    return [*permission_lines(manifest.permissions), *limit_lines(manifest.limits)]


def _tell(update: _Update, before: Judged | None, path: Path, as_format: str) -> None:
    manifest = update.bundle.manifest
    unchanged = before is not None and before.digest == update.bundle.root_digest
    if as_format == "json":
        print_json(_document(update, before, path, unchanged))
        return
    if unchanged:
        say(f"{manifest.identity} {manifest.version}: it is installed already, in {path}")
    else:
        was = f", in the place of {before.version}" if before else ""
        say(f"{manifest.identity} {manifest.version}: installed in {shown_place(path)}{was}")
    if update.off:
        note(f"note: it does not run: {update.off}.")


def _document(
    update: _Update, before: Judged | None, path: Path, unchanged: bool
) -> dict[str, Any]:
    manifest = update.bundle.manifest
    return {
        "plugin": manifest.identity,
        "version": manifest.version,
        "digest": update.bundle.root_digest,
        "signers": [clean(key.signer) for key in update.bundle.signers],
        "asks": [clean(line) for line in _asks(update)],
        "approved": update.held,
        "path": clean(path),
        "replaced": before.version if before else None,
        "unchanged": unchanged,
        "disabled": update.off or None,
    }
