"""`run` as a service, in a process of its own, and a plugin for it."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sandbox_host.service.client import ask
from tests.support.bundles import make_key, signed_plugin, trust_store
from tests.support.command_line import CommandLine
from tests.support.traces import eventually

SOURCE = """
import os, time
from plugin_sdk import context, on, operation

@operation
def twice(value):
    print("twice", value, flush=True)
    return value * 2

@operation
def version():
    return VERSION

@operation
def publish(count):
    context().publish("counted", {"count": count})

@operation
def leave():
    os._exit(3)

@operation
def forever():
    time.sleep(60)

@operation
def raw():
    return b"\\x00\\xff"

def cleanup():
    open(os.path.join(context().data_dir, "left"), "w").close()
    return True
"""


def sign(directory: Path, version: str = "1.0.0", **manifest: Any) -> Path:
    """Write and sign the plugin, in one step as seen from outside."""
    made = directory.parent.parent / "made" / directory.name
    shutil.rmtree(made, ignore_errors=True)
    permissions = {"publish": ["counted"]}
    signed_plugin(
        made,
        make_key(),
        {"main.py": f"VERSION = {version!r}\n{SOURCE}"},
        version=version,
        permissions=permissions,
        **manifest,
    )
    shutil.rmtree(directory, ignore_errors=True)
    made.rename(directory)
    return directory


class Running:
    """A service in a process of its own."""

    def __init__(self, cli: CommandLine, *arguments: object, **variables: str) -> None:
        self.cli = cli
        self.log = cli.home / "service.log"
        environment = cli.environment | variables
        with self.log.open("ab") as log:
            self.process = cli.start("run", *arguments, stdout=log, stderr=log, env=environment)

    def text(self) -> str:
        return self.log.read_text()

    def until(self, text: str) -> None:
        def told() -> bool:
            assert self.process.poll() is None or text in self.text(), self.text()
            return text in self.text()

        assert eventually(told), self.text()

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def service_command(home: Path) -> CommandLine:
    """Return the command, with a configuration that names a plugin directory."""
    command = CommandLine(home)
    store = trust_store(home, make_key())
    plugins = home / "plugins"
    for directory in (plugins, command.config_dir, home / "made", home / "elsewhere"):
        directory.mkdir(parents=True)
    (command.config_dir / "config.toml").write_text(
        f'plugin_directory = "{plugins}"\ntrust_store = "{store}"\nstop_timeout_seconds = 2\n'
    )
    return command


@contextlib.contextmanager
def starter(cli: CommandLine) -> Iterator[Callable[..., Running]]:
    """Yield what starts services, which are ended at the latest with the block."""
    started: list[Running] = []

    def begin(*arguments: object, **variables: str) -> Running:
        started.append(Running(cli, *arguments, **variables))
        started[-1].until(" running. Ctrl-C")
        return started[-1]

    try:
        yield begin
    finally:
        for one in started:
            if one.process.poll() is None:
                one.process.kill()
            one.process.wait()


def plugins_of(cli: CommandLine) -> dict[str, tuple[str, str]]:
    status = ask(cli.state_dir, "status")
    return {one["plugin"]: (one["version"], one["state"]) for one in status["plugins"]}
