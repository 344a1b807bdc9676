"""``sandbox-host run``: plugins that stay, until somebody says stop."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from sandbox_host.cli.describe import counted
from sandbox_host.cli.exits import Exit
from sandbox_host.cli.options import DIRECTORY, host_options
from sandbox_host.cli.output import fail, note, working
from sandbox_host.cli.tables import print_plugins, print_receipt
from sandbox_host.model import State
from sandbox_host.runtime.blocking import BlockingHost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox_host.cli.options import HostOptions

_LOOK_SECONDS: Final = 0.2
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class _Stop:
    """Whether a signal asked to stop. A flag, and no lock: a handler may interrupt anything."""

    asked = False


@click.command("run", short_help="Run plugins until Ctrl-C.")
@click.argument("directories", metavar="DIR...", type=DIRECTORY, nargs=-1, required=True)
@click.option("--once", is_flag=True, help="Load, show and unload.")
@host_options
def command(
    directories: tuple[Path, ...],
    once: bool,
    host: HostOptions,
) -> int:
    """Verify, confine and load the plugin in each DIR, and run them until Ctrl-C or SIGTERM.

    Prints what confines each plugin, read back from the kernel, and what each was granted. One
    that is refused stops the start of all. At the end each may clean up and is unloaded; a second
    Ctrl-C does not wait for that.

    \b
    Example:
      sandbox-host run plugins/weather_source plugins/weather_model
    """
    config = host.read()
    with _stop_on_signal() as stop, BlockingHost(config) as running:
        for directory in directories:
            with working(f"loading {directory}"):
                plugin = running.load(directory)
            print_receipt(plugin.receipt)
            if stop.asked:
                return Exit.OK
        print_plugins(running.plugins.values())
        return Exit.OK if once else _stay(running, stop)


def _stay(running: BlockingHost, stop: _Stop) -> Exit:
    """Wait for a signal, or until no plugin is left."""
    note(f"{counted(len(running.plugins), 'plugin')} running. Ctrl-C unloads and ends.")
    # What ends a plugin is told by the library's own warning.
    with running.subscribe("plugin_unloaded") as ends:
        while not stop.asked:
            ends.get(_LOOK_SECONDS)
            if all(p.state in {State.FAILED, State.STOPPED} for p in running.plugins.values()):
                fail("no plugin is running any more; see the notes above and the journal for why.")
                return Exit.REFUSED
    note("unloading ...")
    return Exit.OK


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
