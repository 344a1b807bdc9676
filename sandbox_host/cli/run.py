"""``sandbox-host run``: plugins that stay, until somebody says stop."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sandbox_host.admission.policy import Policy
from sandbox_host.catalog.discover import DiscoveredState, discover
from sandbox_host.catalog.judging import Judging
from sandbox_host.catalog.roster import OFF_BY_CONFIG, SWITCHED_OFF
from sandbox_host.catalog.switches import Switches
from sandbox_host.cli.describe import counted
from sandbox_host.cli.downgrades import allow_downgrade
from sandbox_host.cli.exits import Exit, exit_for
from sandbox_host.cli.failure import show_log
from sandbox_host.cli.options import BUNDLE, FILE, host_options
from sandbox_host.cli.output import fail, note, place, working
from sandbox_host.cli.recorded import recording_options
from sandbox_host.cli.run_readme import Readme
from sandbox_host.cli.run_signals import heeding_signals
from sandbox_host.cli.tables import print_plugins, print_receipt
from sandbox_host.errors import (
    AttestationError,
    ConfigError,
    DependencyError,
    PluginError,
    RefusedError,
    SandboxHostError,
    UsageError,
)
from sandbox_host.model import State
from sandbox_host.reading import sentence
from sandbox_host.service.declared import Declared
from sandbox_host.service.hosting import ServedHost
from sandbox_host.service.place import ServicePlace
from sandbox_host.service.service import Orders, Service
from sandbox_host.supervision.restart import RestartPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox_host.admission.history import Downgrade
    from sandbox_host.cli.options import HostOptions
    from sandbox_host.cli.run_readme import Entries
    from sandbox_host.cli.run_signals import Asked
    from sandbox_host.config import HostConfig
    from sandbox_host.model import Manifest
    from sandbox_host.observe.recorder import RecordingOptions
    from sandbox_host.runtime.blocking import BlockingPlugin

_LOOK_SECONDS: Final = 0.2
_OF_ONE_PLUGIN: Final = (RefusedError, PluginError, ConfigError, AttestationError)
"""Errors that say nothing about the next plugin; an unusable trust store or machine does."""


@dataclass
class _Start:
    """What is to be loaded.

    Attributes:
        discovered: found in the plugin directory, where one that fails does not stop the rest.
        disabled: found there, and not to be loaded.
        failed: whether one of them could not be read or loaded.
        problems: why, by path and, for an instance, identity.
        downgrades: what the operator lets in although history speaks against it.
        record: where to record what is said; None records nothing.
        restart: when to start again what ends by itself; None for never.
        stay: whether to stay without any plugin.
        others: verified plugins of the directory that are not to run, with the reasons.
        waiting: those that lack what they need, and start when that is there.
    """

    directories: list[Path]
    discovered: bool = False
    disabled: Entries = field(default_factory=dict)
    failed: bool = False
    problems: dict[tuple[Path, str], str] = field(default_factory=dict)
    downgrades: tuple[Downgrade, ...] = ()
    record: RecordingOptions | None = None
    restart: RestartPolicy | None = None
    stay: bool = False
    others: list[tuple[Manifest, str]] = field(default_factory=list)
    waiting: dict[Path, DependencyError] = field(default_factory=dict)

    def check_record(self) -> None:
        """Refuse to record several plugins in one file.

        Raises:
            UsageError: that was asked for.
        """
        if self.record and len(self.directories) > 1 and not os.path.isdir(self.record.path):
            text = f"--record {self.record.path} is one file, and several plugins are to run."
            raise UsageError(text, remedy="Name a directory: each gets a file in it.")

    def tell(self, path: Path, reason: str) -> None:
        """Tell of one that failed, and remember it for the exit code."""
        fail(f"{place(path)}: {reason}")
        self.failed = True
        self.problems[path, ""] = reason

    def tell_instance(self, path: Path, identity: str, reason: str) -> None:
        """Likewise of one instance of a plugin, of which others run, or were tried."""
        fail(f"{identity}, of {place(path)}: {reason}")
        self.failed = True
        self.problems[path, identity] = reason


@click.command("run", short_help="Run plugins as a service, until Ctrl-C.")
@click.argument("directories", metavar="[PLUGIN]...", type=BUNDLE, nargs=-1)
@click.option("--once", is_flag=True, help="Load, show and unload.")
@click.option("--stay", is_flag=True, help="Go on without any plugin: one may come.")
@click.option("--no-restart", is_flag=True, help="Leave plugins that end by themselves ended.")
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
    stay: bool,
    no_restart: bool,
    readme: Path | None,
    record: RecordingOptions | None,
    downgrades: tuple[Downgrade, ...],
    host: HostOptions,
) -> int:
    """Verify, confine and load each PLUGIN, and run them until Ctrl-C or SIGTERM.

    A PLUGIN is a directory, or an archive made with `sandbox-host pack`.

    Prints what confines each plugin, read back from the kernel, and what each was granted. One
    that is refused stops the start of all. Who needs others starts after them. A plugin that ends
    by itself is started again, later each time, and not for ever. At the end each may clean up and
    is unloaded; a second Ctrl-C does not wait for that.

    Without PLUGIN, the plugins in the configuration's plugin_directory: one that is refused is
    told, the others run, and the exit code is 1 in the end; one that lacks what it needs waits for
    that. What is added there, changed, removed,
    enabled or disabled meanwhile is loaded, reloaded or unloaded.

    Meanwhile `sandbox-host status`, `top`, `load`, `reload`, `unload`, `release`, `logs`, `events`,
    `call --running` and `drain` talk to it. SIGHUP has it read its configuration again.

    \b
    Example:
      sandbox-host run plugins/weather_source plugins/weather_model
      sandbox-host run --manifest plugins/README.md
    """
    config = host.read()
    start = _Start(list(directories)) if directories else _discovered(config)
    start.downgrades, start.record = downgrades, record
    start.stay = stay or not (directories or config.load_on_startup)
    start.restart = None if no_restart or once else RestartPolicy()
    start.check_record()
    orders = Orders(
        read_config=host.read,
        exit_code=exit_for,
        tell=note,
        restart=start.restart,
        watched=start.discovered,
        give_up=lambda: os._exit(Exit.REFUSED),
    )
    shown = Readme(readme, start.disabled)
    try:
        with (
            heeding_signals() as asked,
            shown,
            _served(config, orders, once=once) as service,
            ServedHost(config) as running,
        ):
            if service is not None:
                service.attend(running)
            _load(start, running, shown, asked, service)
            if not asked.stop:
                print_plugins(running.plugins.values())
            if service is not None:
                if not asked.stop and _stay(start, service, shown, asked) is not Exit.OK:
                    start.failed = True
                if service.steward is not None and service.steward.waiting:
                    start.failed = True
                service.stopping()
    except PluginError as error:
        fail(str(error))
        show_log(error.plugin, config.state_dir)
        return exit_for(error)
    return Exit.REFUSED if start.failed else Exit.OK


@contextlib.contextmanager
def _served(config: HostConfig, orders: Orders, *, once: bool) -> Iterator[Service | None]:
    """Have the state directory's control socket inside the block; with --once there is none."""
    if once:
        yield None
        return
    import sandbox_host

    with (
        ServicePlace(config.state_dir) as where,
        Service(where, orders, sandbox_host.__version__) as service,
    ):
        yield service


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
    policy, switched_off = Policy.from_config(config), Switches(config.state_dir).disabled()
    for one in discover(config.plugin_directory):
        # Two directories of one identity have a manifest, and a reason to load neither.
        if one.manifest is None or one.state is DiscoveredState.UNREADABLE:
            start.tell(one.path, sentence(one.reason))
        elif one.manifest.identity in switched_off or not policy.enables(one.manifest):
            by = SWITCHED_OFF if one.manifest.identity in switched_off else OFF_BY_CONFIG
            note(f"note: {one.manifest.identity} is disabled: {by}.")
            start.disabled[one.manifest.identity] = {"version": one.manifest.version}
            start.others += _verified(one.path, config, by)
        elif config.load_on_startup:
            start.directories.append(one.path)
    return start


def _verified(path: Path, config: HostConfig, why: str) -> list[tuple[Manifest, str]]:
    """Return a plugin that is not to run, for whoever needs it: nothing, if it is not verified."""
    judged = Judging(config)(path)
    manifest = judged.manifest if judged.digest else None
    return [(manifest, f"it is disabled: {why}")] if manifest is not None else []


def _load(
    start: _Start, running: ServedHost, shown: Readme, asked: Asked, service: Service | None
) -> None:
    options: dict[str, Any] = {
        "downgrades": start.downgrades,
        "record": start.record,
        "restart": start.restart,
    }
    steward = service.steward if service is not None else None
    fatal: list[SandboxHostError] = []
    started: list[tuple[int, BlockingPlugin]] = []

    def heed(directory: Path, one: BlockingPlugin | SandboxHostError) -> bool:
        if not isinstance(one, SandboxHostError):
            started.append((start.directories.index(directory), one))
            if steward is not None:
                steward.loaded(one.name, directory)
            shown.update(running)
        elif not (start.discovered and isinstance(one, _OF_ONE_PLUGIN)):
            fatal.append(one)
        return not (fatal or asked.stop or (service is not None and service.ending.is_set()))

    def heed_instance(directory: Path, identity: str, error: SandboxHostError) -> None:
        start.tell_instance(directory, identity, str(error))

    options["declared"] = steward.declared if steward is not None else Declared(running.config)
    options["heed_instance"] = heed_instance
    with working(f"loading {counted(len(start.directories), 'plugin')}"):
        loaded = running.load_group(start.directories, start.others, heed, **options)
    for _, plugin in sorted(started, key=lambda one: (one[0], one[1].name)):
        print_receipt(plugin.receipt)
    if fatal:
        raise fatal[0]
    for directory, error in loaded.failed.items():
        _tell_failed(start, directory, error, running, waits=service is not None)


def _tell_failed(
    start: _Start, directory: Path, error: SandboxHostError, running: ServedHost, *, waits: bool
) -> None:
    if isinstance(error, DependencyError) and waits:
        fail(f"{place(directory)}: {error}")
        start.waiting[directory] = error
        return
    start.tell(directory, str(error))
    if isinstance(error, PluginError) and not isinstance(error, DependencyError):
        show_log(error.plugin, running.config.state_dir)


def _stay(start: _Start, service: Service, shown: Readme, asked: Asked) -> Exit:
    """Wait for a signal, or `drain`, or until no plugin is left."""
    running = service.running
    if not running.plugins and not start.stay:
        fail("there is no plugin to run.")
        return Exit.REFUSED
    if service.steward is not None:
        for (path, instance), reason in start.problems.items():
            service.steward.failed(path, reason, instance)
        for path, error in start.waiting.items():
            service.steward.waits(error.plugin, path, str(error))
    service.begin()
    note(f"{counted(len(running.plugins), 'plugin')} running. Ctrl-C unloads and ends.")
    # What ends a plugin is told by the library's own warning.
    with running.subscribe("plugin_unloaded", "plugin_loaded") as changes:
        while not (asked.stop or service.ending.is_set()):
            changes.get(_LOOK_SECONDS)
            shown.update(running)
            service.look()
            if asked.reload:
                asked.reload = False
                _reconfigure(service)
            if not (start.stay or start.discovered) and _is_over(running, start.restart):
                fail("no plugin is running any more; see the notes above and the journal for why.")
                for plugin in running.plugins.values():
                    show_log(plugin.name, plugin.log_path.parent.parent)
                return Exit.REFUSED
    note("unloading ...")
    return Exit.OK


def _is_over(running: ServedHost, restart: RestartPolicy | None) -> bool:
    """Tell whether all plugins have ended, and none of them will be started again.

    That there are none at all is an operator's word, who unloaded them.
    """
    plugins = list(running.plugins.values())
    return bool(plugins) and all(
        plugin.state is State.STOPPED
        or (
            plugin.state is State.FAILED
            and (restart is None or bool(running.quarantined(plugin.name)))
        )
        for plugin in plugins
    )


def _reconfigure(service: Service) -> None:
    """Read the configuration again; one that cannot be used leaves all as it is."""
    try:
        note(f"{service.reconfigure()}.")
    except SandboxHostError as error:
        fail(f"the configuration was read again, and all stays as it was: {error}")
