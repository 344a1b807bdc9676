"""``sandbox-host trace``: the smallest permissions and limits that a plugin's own tests need."""

from __future__ import annotations

import difflib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sandbox_host.admission.proposal import Needed, Proposal, propose
from sandbox_host.bundle.contents import MANIFEST_NAME
from sandbox_host.bundle.reader import read_directory
from sandbox_host.bundle.rules import check_contents
from sandbox_host.cli.exits import Exit, exit_for
from sandbox_host.cli.failure import show_trace
from sandbox_host.cli.json_edit import edited
from sandbox_host.cli.options import plugin_directory, trial_options
from sandbox_host.cli.output import clean, fail, no_library_notes, note, working
from sandbox_host.errors import PluginError, UsageError
from sandbox_host.ipc.calls import Pending
from sandbox_host.reading import escaped
from sandbox_host.runtime.healthcheck import ask
from sandbox_host.runtime.throwaway import ThrowawayHost
from sandbox_host.runtime.trace import MAX_LINE_BYTES, TRACE_VARIABLE, Trace, merged, take

if TYPE_CHECKING:
    from sandbox_host.bundle.contents import Contents
    from sandbox_host.cli.options import HostOptions
    from sandbox_host.config import HostConfig
    from sandbox_host.model import Manifest

_TESTS: Final = "tests"
_FIXTURE: Final = "sandbox_host.testing"
_MAX_LINE: Final = 2_000


@click.command(
    "trace",
    short_help="Propose the permissions and limits that a plugin's tests need.",
)
@plugin_directory
@click.argument("tests", metavar="[-- COMMAND...]", nargs=-1)
@click.option("--write", is_flag=True, help="Change plugin.json as well.")
@trial_options
def command(directory: Path, tests: tuple[str, ...], write: bool, host: HostOptions) -> int:
    """Run the tests of the plugin in DIR in the sandbox, and print what plugin.json should say.

    COMMAND runs its tests, which load it with the pytest fixture `sandbox`: what they use of it is
    written down. Without COMMAND that is pytest on DIR/tests, if there is one; else the plugin is
    only loaded and asked for its health, with --config and --plugin-environment.
    The plugin runs in the sandbox; its tests do not, and run as you: read a stranger's first.

    Standard output is a diff, or nothing where plugin.json asks for what is needed. What was
    refused is proposed as well, and told on standard error: it is the plugin's own word.

    \b
    Example:
      sandbox-host trace word_counter -- python -m pytest tests/test_word_counter.py
      sandbox-host trace word_counter --write
    """
    config = host.read()
    contents = read_directory(directory)
    manifest = check_contents(contents.files)
    words = _tests_of(directory, tests)
    try:
        traces = _in_tests(manifest, words) if words else [_at_start(contents, config)]
    except PluginError as error:
        show_trace(error)
        fail(str(error))
        return exit_for(error)
    except _FailedError as error:
        fail(str(error))
        return Exit.REFUSED
    seen = merged(traces)
    return _show(directory / MANIFEST_NAME, contents, manifest, seen, write=write)


class _FailedError(Exception):
    """The tests did not pass, so that what they needed is not known."""


# -- what was needed ---------------------------------------------------------------------------


def _tests_of(directory: Path, given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command that runs the plugin's tests; nothing where it has none."""
    if given or not (directory / _TESTS).is_dir():
        return given
    found = importlib.metadata.entry_points(group="pytest11")
    installed = any(one.value == _FIXTURE for one in found)
    plugin = () if installed else ("-p", _FIXTURE)
    pytest = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    return (*pytest, *plugin, str(directory / _TESTS))


def _in_tests(manifest: Manifest, words: tuple[str, ...]) -> list[Trace]:
    """Run the tests, and return what was seen of the plugin in each process that they started.

    Raises:
        _FailedError: they failed.
        UsageError: they cannot be run, or do not load the plugin.
    """
    with tempfile.TemporaryDirectory(prefix="sandbox-host-trace-") as directory:
        record = Path(directory) / "traces.jsonl"
        variables = {TRACE_VARIABLE: str(record), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            # Its output is not the proposal. The author's own command, run as the author.
            ran = subprocess.run(  # noqa: S603
                words, env={**os.environ, **variables}, stdout=2, check=False
            )
        except OSError as error:
            text = f"The tests cannot be run: {clean(words[0])}: {error.strerror}."
            raise UsageError(text, remedy="Name a program after `--`.") from None
        if ran.returncode:
            raise _FailedError(
                f"the tests failed (exit code {ran.returncode}): nothing is proposed for what "
                "they did not reach."
            )
        traces = [one for one in _read(record) if one.plugin == manifest.identity]
    if not traces:
        text = f"The tests do not load {manifest.identity} with the fixture `sandbox`."
        remedy = "Let them, or leave the command away to see what its start needs."
        raise UsageError(text, remedy=remedy)
    return traces


def _read(record: Path) -> list[Trace]:
    traces = []
    if record.exists():
        with record.open(encoding="utf-8") as file:
            while line := file.readline(MAX_LINE_BYTES):
                try:
                    traces.append(Trace.of_line(line))
                except ValueError as error:
                    raise UsageError(
                        f"{record.name} was written by something else: {error}."
                    ) from None
    return traces


def _at_start(contents: Contents, config: HostConfig) -> Trace:
    """Load the plugin and ask for its health; return what that needed."""
    note("note: there are no tests: only the plugin's start and its health are looked at")
    with no_library_notes(), ThrowawayHost(config, observing=True) as host:
        with working("trying it in the sandbox"):
            process = host.load_contents(contents)
            asked = ask(process)
            if isinstance(asked, Pending):
                process.channel.wait(asked)
        return take(host, process)


# -- what is proposed --------------------------------------------------------------------------


def _show(path: Path, contents: Contents, manifest: Manifest, seen: Trace, *, write: bool) -> int:
    text = contents.files[MANIFEST_NAME].decode()
    named = json.loads(text).get("permissions", {})
    needed = Needed(seen.published, seen.handles, seen.used, seen.denied, seen.peaks)
    proposal = propose(manifest, needed, named)
    if seen.problem:
        fail(f"not all that it needed is known: {seen.problem}")
        return Exit.REFUSED
    for one in (*proposal.notes, *(f"refused by the host: {x}." for x in seen.denied_by_host)):
        note(f"note: {one}")
    proposed = changed(text, proposal)
    # What would be written is read first, by who reads it later.
    check_contents({**contents.files, MANIFEST_NAME: proposed.encode()})
    lines = difflib.unified_diff(
        text.splitlines(), proposed.splitlines(), f"{path}", f"{path}", lineterm=""
    )
    shown = list(lines)
    for line in shown:
        click.echo(escaped(line, _MAX_LINE, keep="\t"))
    if not shown:
        note(f"{path} asks for what is needed, and for no more.")
    elif write:
        _write(path, proposed)
        note(f"{path} was written; sign the plugin again.")
    return Exit.OK


def changed(text: str, proposal: Proposal) -> str:
    """Return plugin.json with the proposal in it, and all else as it is written.

    Args:
        text: plugin.json.
        proposal: what to change.
    """
    for key, value in proposal.permissions.items():
        text = edited(text, ("permissions", key), value)
    for key, written in proposal.limits.items():
        limit: Any = None if written is None else json.loads(written)
        text = edited(text, ("limits", key), limit)
    return text if proposal.events is None else edited(text, ("events",), proposal.events)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from None
