"""``sandbox-host run``: plugins that stay, until somebody says stop."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import click

from sandbox_host.admission.policy import Policy
from sandbox_host.catalog.discover import DiscoveredState, discover
from sandbox_host.catalog.readme import update_readme
from sandbox_host.cli.describe import counted
from sandbox_host.cli.downgrades import allow_downgrade
from sandbox_host.cli.exits import Exit, exit_for
from sandbox_host.cli.failure import show_log
from sandbox_host.cli.options import BUNDLE, FILE, host_options
from sandbox_host.cli.output import fail, note, place, working
from sandbox_host.cli.recorded import recording_options
from sandbox_host.cli.tables import print_plugins, print_receipt
from sandbox_host.errors import (
    AttestationError,
    ConfigError,
    PluginError,
    RefusedError,
    UsageError,
)
from sandbox_host.reading import sentence
from sandbox_host.runtime.blocking import BlockingHost
from sandbox_host.runtime.lifecycle import ENDED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from sandbox_host.admission.history import Downgrade
    from sandbox_host.cli.options import HostOptions
    from sandbox_host.config import HostConfig
    from sandbox_host.observe.recorder import RecordingOptions

_LOOK_SECONDS: Final = 0.2
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_OF_ONE_PLUGIN: Final = (RefusedError, PluginError, ConfigError, AttestationError)
"""Errors that say nothing about the next plugin; an unusable trust store or machine does."""

_Entries = dict[str, dict[str, Any]]


class _Stop:
    """Whether a signal asked to stop. A flag, and no lock: a handler may interrupt anything."""

    asked = False


@dataclass
class _Start:
    """What is to be loaded.

    Attributes:
        discovered: found in the plugin directory, where one that fails does not stop the rest.
        disabled: found there, and not to be loaded.
        failed: whether one of them could not be read or loaded.
        downgrades: what the operator lets in although history speaks against it.
        record: where to record what is said; None records nothing.
    """

    directories: list[Path]
    discovered: bool = False
    disabled: _Entries = field(default_factory=dict)
    failed: bool = False
    downgrades: tuple[Downgrade, ...] = ()
    record: RecordingOptions | None = None

    def check_record(self) -> None:
        """Refuse to record several plugins in one file.

        Raises:
            UsageError: that was asked for.
        """
        if self.record and len(self.directories) > 1 and not os.path.isdir(self.record.path):
            text = f"--record {self.record.path} is one file, and several plugins are to run."
            raise UsageError(text, remedy="Name a directory: each gets a file in it.")

    def tell(self, text: str) -> None:
        """Tell of one that failed, and remember it for the exit code."""
        fail(text)
        self.failed = True


@click.command("run", short_help="Run plugins until Ctrl-C.")
@click.argument("directories", metavar="[PLUGIN]...", type=BUNDLE, nargs=-1)
@click.option("--once", is_flag=True, help="Load, show and unload.")
@click.option(
    "--manifest",
    "readme",
    type=FILE,
    metavar="FILE",
    help="A README whose plugin manifest, a block of JSON, is kept up to date meanwhile.",
)
@recording_options
@allow_downgrade
@host_options
def command(
    directories: tuple[Path, ...],
    once: bool,
    readme: Path | None,
    record: RecordingOptions | None,
    downgrades: tuple[Downgrade, ...],
    host: HostOptions,
) -> int:
    """Verify, confine and load each PLUGIN, and run them until Ctrl-C or SIGTERM.

    A PLUGIN is a directory, or an archive made with `sandbox-host pack`.

    Prints what confines each plugin, read back from the kernel, and what each was granted. One
    that is refused stops the start of all. At the end each may clean up and is unloaded; a second
    Ctrl-C does not wait for that.

    Without PLUGIN, the plugins in the configuration's plugin_directory: one that is refused is
    told, the others run, and the exit code is 1 in the end.

    \b
    Example:
      sandbox-host run plugins/weather_source plugins/weather_model
      sandbox-host run --manifest plugins/README.md
    """
    config = host.read()
    start = _Start(list(directories)) if directories else _discovered(config)
    start.downgrades, start.record = downgrades, record
    start.check_record()
    shown = _Readme(readme, start.disabled)
    try:
        with _stop_on_signal() as stop, shown, BlockingHost(config) as running:
            _load(start, config, running, shown, stop)
            if not stop.asked:
                print_plugins(running.plugins.values())
                if not once and _stay(running, shown, stop) is not Exit.OK:
                    return Exit.REFUSED
    except PluginError as error:
        fail(str(error))
        show_log(error.plugin, config.state_dir)
        return exit_for(error)
    return Exit.REFUSED if start.failed else Exit.OK


def _discovered(config: HostConfig) -> _Start:
    """Look into the plugin directory.

    Raises:
        click.UsageError: there is none.
        ConfigError: it cannot be read.
    """
    if config.plugin_directory is None:
        text = "Missing argument 'PLUGIN...', and the configuration names no plugin_directory."
        raise click.UsageError(text, click.get_current_context())
    start = _Start([], discovered=True)
    policy = Policy.from_config(config)
    for one in discover(config.plugin_directory):
        # Two directories of one identity have a manifest, and a reason to load neither.
        if one.manifest is None or one.state is DiscoveredState.UNREADABLE:
            start.tell(sentence(f"{place(one.path)}: {one.reason}"))
        elif policy.enables(one.manifest):
            start.directories.append(one.path)
        else:
            note(f"note: {one.manifest.identity} is disabled: config.enabled is false.")
            start.disabled[one.manifest.identity] = {"version": one.manifest.version}
    return start


def _load(
    start: _Start, config: HostConfig, running: BlockingHost, shown: _Readme, stop: _Stop
) -> None:
    for directory in start.directories:
        try:
            with working(f"loading {directory}"):
                plugin = running.load(directory, downgrades=start.downgrades, record=start.record)
        except _OF_ONE_PLUGIN as error:
            if not start.discovered:
                raise
            start.tell(f"{place(directory)}: {error}")
            if isinstance(error, PluginError):
                show_log(error.plugin, config.state_dir)
            continue
        print_receipt(plugin.receipt)
        shown.update(running)
        if stop.asked:
            return


def _stay(running: BlockingHost, shown: _Readme, stop: _Stop) -> Exit:
    """Wait for a signal, or until no plugin is left."""
    if not running.plugins:
        fail("there is no plugin to run.")
        return Exit.REFUSED
    note(f"{counted(len(running.plugins), 'plugin')} running. Ctrl-C unloads and ends.")
    # What ends a plugin is told by the library's own warning.
    with running.subscribe("plugin_unloaded") as ends:
        while not stop.asked:
            ends.get(_LOOK_SECONDS)
            shown.update(running)
            if all(p.state in ENDED for p in running.plugins.values()):
                fail("no plugin is running any more; see the notes above and the journal for why.")
                for plugin in running.plugins.values():
                    show_log(plugin.name, plugin.log_path.parent.parent)
                return Exit.REFUSED
    note("unloading ...")
    return Exit.OK


class _Readme:
    """The README that says what is loaded, or none.

    One that cannot be written stops the start. Later that is only told: a README is no reason to
    end a plugin.

    Args:
        path: the README, or None.
        disabled: what is discovered and disabled.
    """

    def __init__(self, path: Path | None, disabled: _Entries) -> None:
        self._path = path
        self._disabled = disabled
        self._active: _Entries = {}

    def __enter__(self) -> Self:
        self._write()
        return self

    def update(self, running: BlockingHost) -> None:
        """Say what is loaded now, if that is something else than before."""
        active = {
            plugin.name: {
                "version": plugin.version,
                "description": plugin.plan.manifest.description,
                "capabilities": list(plugin.plan.manifest.capabilities),
                "status": str(plugin.state),
            }
            for plugin in running.plugins.values()
            if plugin.state not in ENDED
        }
        if active != self._active:
            self._active = active
            try:
                self._write()
            except ConfigError as error:
                fail(str(error))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._active = {}
        try:
            self._write()
        except ConfigError as problem:
            if kind is None:
                raise
            fail(str(problem))  # and what ended the command goes on to decide its exit code

    def _write(self) -> None:
        if self._path is not None:
            update_readme(self._path, self._active, self._disabled, datetime.now(UTC))


@contextlib.contextmanager
def _stop_on_signal() -> Iterator[_Stop]:
    stop = _Stop()
    before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}

    def ask(_number: int, _frame: object) -> None:
        if stop.asked:
            # Whoever asks twice does not want to wait. The kernel ends the plugins with this
            # process, and the next host removes what it leaves.
            os._exit(Exit.INTERRUPTED)
        stop.asked = True

    for number in _STOP_SIGNALS:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
