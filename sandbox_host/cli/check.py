"""``sandbox-host check``: for authors, before signing. The sandbox is the real one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from sandbox_host.admission.plan import check_version
from sandbox_host.admission.policy import Policy, limit_differences, permission_differences
from sandbox_host.bundle.rules import check_contents
from sandbox_host.bundle.source import read_bundle
from sandbox_host.cli.describe import counted, limit_lines, permission_lines, size
from sandbox_host.cli.exits import Exit, exit_for
from sandbox_host.cli.failure import show_trace
from sandbox_host.cli.options import plugin_bundle, trial_options
from sandbox_host.cli.output import fail, field, no_library_notes, say, working
from sandbox_host.cli.tables import print_receipt
from sandbox_host.errors import AdmissionError, PluginError, StartError
from sandbox_host.health.verdict import HealthStatus
from sandbox_host.ipc.calls import Pending
from sandbox_host.reading import sentence
from sandbox_host.runtime.healthcheck import ask, judge_health
from sandbox_host.runtime.observed import Observed
from sandbox_host.runtime.throwaway import ThrowawayHost

if TYPE_CHECKING:
    from sandbox_host.bundle.contents import Contents
    from sandbox_host.cli.options import HostOptions
    from sandbox_host.config import HostConfig
    from sandbox_host.model import Manifest
    from sandbox_host.runtime.process import PluginProcess

_MAX_LOG_LINES: Final = 10


@click.command("check", short_help="Try a plugin in the sandbox, before it is signed.")
@plugin_bundle
@click.option("--static", is_flag=True, help="Look at plugin.json and the files only; run nothing.")
@trial_options
def command(
    directory: Path,
    static: bool,
    host: HostOptions,
) -> int:
    """Check PLUGIN, a directory or archive: plugin.json, its files, and a trial in the sandbox.

    The trial loads a copy that is signed with a throw-away key, in a host of its own. PLUGIN, your
    trust store and your plugins' data are not touched. What no host of this version loads is
    refused with --static as well, with exit code 1.

    \b
    Example:
      sandbox-host check word_counter
      sandbox-host check downloads/unknown_plugin --static
    """
    config = host.read()
    contents = read_bundle(directory)
    manifest = check_contents(contents.files)
    say(f"{directory}: {manifest.identity} {manifest.version}")
    warnings = _static(contents, manifest, config)
    try:
        if static:
            check_version(manifest)
        else:
            warnings += _trial(contents, config)
    except (AdmissionError, PluginError) as error:
        _show(warnings)
        fail(str(error))
        return exit_for(error)
    _show(warnings)
    say(f"{directory}: {counted(len(warnings), 'warning') if warnings else 'no complaints'}")
    return Exit.OK


def _show(warnings: list[str]) -> None:
    for warning in warnings:
        field("warning", warning)


# -- without running anything ------------------------------------------------------------------


def _static(contents: Contents, manifest: Manifest, config: HostConfig) -> list[str]:
    """Print what plugin.json and the files say; return what their author should know.

    Source files are never parsed here: a parser is no place to meet a stranger.
    """
    total = sum(map(len, contents.files.values()))
    field("plugin.json", "accepted")
    field("files", f"{len(contents.files)}, {size(total)}")
    field("asks for", ", ".join(permission_lines(manifest.permissions)))
    field("limits", ", ".join(limit_lines(manifest.limits)) or "the host's own")
    policy = Policy.from_config(config)
    asked = permission_differences(manifest, policy) + limit_differences(manifest, policy)
    return [
        *manifest.notes,
        # What nobody can grant is no warning: it is the error at the end.
        *(f"{one.path}: {one.problem}" for one in asked if one.table),
        *_file_hints(contents, manifest),
    ]


def _file_hints(contents: Contents, manifest: Manifest) -> list[str]:
    hints = []
    if "main.py" not in contents.files and len(contents.files["__init__.py"].strip()) == 0:
        hints.append(
            "there is no main.py and __init__.py is empty: init_plugin() and get_metadata() are "
            "looked for in these two."
        )
    if "README.md" not in contents.files:
        hints.append("there is no README.md to tell an operator what this is.")
    if not manifest.enabled:
        hints.append("config.enabled is false: hosts will not load it.")
    return hints


# -- in the sandbox ----------------------------------------------------------------------------


def _trial(contents: Contents, config: HostConfig) -> list[str]:
    """Load, ask for health, and unload; return what the plugin's author should know.

    Raises:
        PluginError: it did not become ready, or ended on the way.
        SandboxHostError: it was refused, or this machine cannot confine it.
    """
    # What the library would warn of is part of the report.
    with no_library_notes(), ThrowawayHost(config, observing=True) as host:
        started = time.monotonic()
        try:
            with working("trying it in the sandbox"):
                process = host.load_contents(contents)
        except StartError as error:
            show_trace(error)
            raise
        identity = process.identity
        field("trial", f"ready after {time.monotonic() - started:.2f} s")
        lacking = host.core.dependencies.lacking(process.plan.manifest)
        warnings = [*process.plan.notes, *lacking, *_show_interface(process)]
        warnings += _show_health(process)
        say()
        print_receipt(process.receipt)
        problem = host.unload(process)
        field("cleanup", problem or "done, or none needed")
        printed = process.log_tail(_MAX_LOG_LINES)
    for line in printed:
        field("printed", line)
    warnings += denial_lines(host, identity)
    return [*warnings, f"clean-up: {problem}"] if problem else warnings


def denial_lines(host: ThrowawayHost, identity: str) -> list[str]:
    """Return what a plugin that is gone was refused, each once; also what it caught itself."""
    lines = [f"denied: {sentence(what)}" for what in host.core.denials[identity]]
    observed = host.observed.get(identity, Observed())
    reports = {(one.rule, one.asked): one for one in observed.denied}
    reports |= {(one.rule, one.asked): one for one in host.core.reports[identity]}
    return lines + [f"denied, by its own word: {sentence(one.text)}" for one in reports.values()]


def _show_interface(process: PluginProcess) -> tuple[str, ...]:
    interface = process.interface
    if interface is None:  # it ended right after it was ready
        return (process.cause_text,)
    field("kind", interface.kind or "functions")
    field("operations", ", ".join(interface.operations) or "none")
    field("handles", ", ".join(interface.handles) or "no events")
    return interface.warnings


def _show_health(process: PluginProcess) -> list[str]:
    with working("asking for its health"):
        asked = ask(process)
        if isinstance(asked, Pending):
            process.channel.wait(asked)
        verdict = judge_health(process, asked)
    field("health", f"{verdict.status}: {verdict.message}".removesuffix(": "))
    return [f"health: {verdict.message}"] if verdict.status is HealthStatus.UNHEALTHY else []
