"""Instances and replicas that the service's configuration declares: a service in a process."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox_host.errors import ControlError
from sandbox_host.service.client import ask
from tests.support.bundles import make_key, signed_plugin
from tests.support.command_line import CommandLine, Ran
from tests.support.service import Running, plugins_of, service_command, sign, starter
from tests.support.traces import eventually

pytestmark = pytest.mark.needs

TENANT = """
import os
from plugin_sdk import context, operation

ME = os.urandom(8).hex()

if context().config["city"] == "nowhere":
    raise RuntimeError("no such place")

@operation
def city():
    return context().config["city"]

@operation
def who():
    return ME
"""
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
READY = ("1.0.0", "ready")


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    return service_command(tmp_path)


@pytest.fixture
def start(cli: CommandLine) -> Iterator[Callable[..., Running]]:
    with starter(cli) as begin:
        yield begin


def weather(
    cli: CommandLine, name: str = "weather", version: str = "1.0.0", more: str = ""
) -> Path:
    directory, made = cli.home / "plugins" / name, cli.home / "made" / name
    shutil.rmtree(made, ignore_errors=True)
    signed_plugin(
        made,
        make_key(),
        {"main.py": TENANT + more},
        version=version,
        config={"city": "Bergen"},
        config_schema=CITY,
    )
    shutil.rmtree(directory, ignore_errors=True)
    made.rename(directory)
    return directory


class Declaring:
    """The service's configuration, which can be another one."""

    def __init__(self, cli: CommandLine) -> None:
        self.file = cli.config_dir / "config.toml"
        self.rest = self.file.read_text()

    def write(self, text: str) -> None:
        self.file.write_text(f"{self.rest}{text}\n")

    def renew(self, service: Running, text: str) -> None:
        self.write(text)
        service.process.send_signal(signal.SIGHUP)


def until(cli: CommandLine, *names: str) -> None:
    assert eventually(lambda: plugins_of(cli) == dict.fromkeys(names, READY)), plugins_of(cli)


def call(cli: CommandLine, plugin: str, operation: str) -> object:
    return ask(cli.state_dir, "call", plugin=plugin, operation=operation, deadline=20)["value"]


def journalled(cli: CommandLine, plugin: str) -> list[str]:
    lines = map(json.loads, (cli.state_dir / "journal.jsonl").read_text().splitlines())
    return [line["event"] for line in lines if line.get("plugin") == plugin]


def test_declared_instances_come_with_the_service(
    cli: CommandLine, start: Callable[..., Running]
) -> None:
    """They outlast it, follow the plugin, and go when they are not declared any more."""
    weather(cli)
    sign(cli.home / "plugins" / "user", dependencies=["weather"])
    declaring = Declaring(cli)
    two = '[instances.weather.b]\nlimits = { memory = "96 MiB" }\n'
    declaring.write(f'{two}[instances.weather.a]\nconfig = {{ city = "Oslo" }}')
    service = start()
    # All in one step, and before those that need the plugin: nobody waited, and nothing is told.
    assert plugins_of(cli) == dict.fromkeys(("user", "weather@a", "weather@b"), READY)
    assert [call(cli, one, "city") for one in ("weather@a", "weather@b")] == ["Oslo", "Bergen"]
    assert cli("call", "--running", "weather@a", "city") == Ran(0, '"Oslo"\n', "")
    shown = cli("status")
    assert (shown.code, shown.err) == (0, "")
    assert re.search(r"^weather@a 1\.0\.0 +ready ", shown.out, re.MULTILINE)
    limits = {
        one["plugin"]: one["memory_limit_bytes"] for one in ask(cli.state_dir, "status")["plugins"]
    }
    assert limits["weather@b"] == 96 << 20 < limits["weather@a"]
    assert service.end() == 0, service.text()
    service.log.unlink()
    service = start()
    until(cli, "user", "weather@a", "weather@b")
    # The configuration of one is another: it is reloaded, one is new and one is gone.
    pids = {one["plugin"]: one["pid"] for one in ask(cli.state_dir, "status")["plugins"]}
    declaring.renew(
        service,
        '[instances.weather.a]\nconfig = { city = "Rome" }\n[instances.weather.c]',
    )
    until(cli, "user", "weather@a", "weather@c")
    assert eventually(lambda: call(cli, "weather@a", "city") == "Rome")
    service.until("weather@a: reloaded 1.0.0.")
    service.until("weather@b: unloaded, because it is not declared.")
    after = {one["plugin"]: one["pid"] for one in ask(cli.state_dir, "status")["plugins"]}
    assert after["user"] == pids["user"]  # who needs the plugin had it all the time
    assert journalled(cli, "weather@b")[-1] in {"unloaded", "stopped"}
    # A new version is one for all; who does not declare any has the plugin itself again.
    weather(cli, version="1.1.0")
    assert eventually(
        lambda: {plugins_of(cli)[f"weather@{one}"] for one in "ac"} == {("1.1.0", "ready")}
    )
    declaring.renew(service, "")
    assert eventually(lambda: set(plugins_of(cli)) == {"user", "weather"})
    assert call(cli, "weather", "city") == "Bergen"
    # What cannot be read changes nothing.
    declaring.renew(service, '[instances.weather.a]\nlimits = { memory = "a lot" }')
    service.until("instances.weather.a.limits.memory: expected bytes")
    assert set(plugins_of(cli)) == {"user", "weather"}
    assert service.end() == 0, service.text()


def test_one_that_fails_stops_no_other(cli: CommandLine, start: Callable[..., Running]) -> None:
    path = weather(cli)
    declaring = Declaring(cli)
    declaring.write(
        '[instances.weather.good]\n[instances.weather.bad]\nconfig = { city = "nowhere" }\n'
        "[instances.weather.worse]\nconfig = { city = 7 }\n[instances.other.a]\n"
    )
    service = start()
    assert plugins_of(cli) == {"weather@good": READY}
    status = ask(cli.state_dir, "status")
    (problem,) = status["problems"]
    assert problem["path"] == str(path)
    assert "weather@bad: " in problem["reason"]
    assert "weather@worse: " in problem["reason"]
    assert [(one["plugin"], one["path"]) for one in status["waiting"]] == [("other", "")]
    assert cli("status").code == 1
    assert service.text().count("weather@worse, of ") == 1  # told once
    declaring.renew(
        service,
        '[instances.weather.good]\n[instances.weather.bad]\nconfig = { city = "Oslo" }\n',
    )
    until(cli, "weather@good", "weather@bad")
    assert eventually(lambda: ask(cli.state_dir, "status")["problems"] == [])
    assert ask(cli.state_dir, "status")["waiting"] == []
    # An operator's word about one of them is about that one, and about the plugin, about all.
    assert cli("unload", "weather@good").code == 0
    assert cli("disable", "weather").code == 0
    assert plugins_of(cli) == {}
    assert cli("enable", "weather").code == 0
    until(cli, "weather@good", "weather@bad")
    shutil.rmtree(path)
    assert eventually(lambda: plugins_of(cli) == {})
    assert service.end() == 1  # one failed at the start


def test_who_needs_the_plugin_goes_with_the_last_of_its_instances(
    cli: CommandLine, start: Callable[..., Running]
) -> None:
    weather(cli)
    sign(cli.home / "plugins" / "user", dependencies=["weather"])
    Declaring(cli).write("[instances.weather.a]\n[instances.weather.b]\n[instances.user.a]")
    start()
    until(cli, "user@a", "weather@a", "weather@b")
    assert cli("disable", "weather").code == 0
    assert plugins_of(cli) == {}
    (waits,) = ask(cli.state_dir, "status")["waiting"]
    assert waits["plugin"] == "user@a"
    assert "user -> weather: weather does not run" in waits["reason"]
    assert cli("enable", "weather").code == 0
    until(cli, "user@a", "weather@a", "weather@b")


def test_calls_of_a_name_go_to_its_replicas(
    cli: CommandLine, start: Callable[..., Running]
) -> None:
    weather(cli)
    weather(cli, "stateful", more="\ndef export_state(): return 1\ndef import_state(one): pass\n")
    declaring = Declaring(cli)
    declaring.write("[replicas]\nweather = 2\nstateful = 2")
    service = start()
    assert plugins_of(cli) == {"weather@r1": READY, "weather@r2": READY}
    (problem,) = ask(cli.state_dir, "status")["problems"]
    assert "stateful cannot have replicas: it has export_state()" in problem["reason"]
    assert len({call(cli, "weather", "who") for _ in range(4)}) == 2
    assert cli("call", "--running", "weather", "city") == Ran(0, '"Bergen"\n', "")
    declaring.renew(service, "[replicas]\nweather = 3")
    assert eventually(lambda: plugins_of(cli).get("weather@r3") == READY)
    assert len({call(cli, "weather", "who") for _ in range(6)}) == 3
    declaring.renew(service, "[replicas]\nweather = 1")
    assert eventually(lambda: "weather@r2" not in plugins_of(cli))
    assert eventually(lambda: "weather@r3" not in plugins_of(cli))
    assert len({call(cli, "weather", "who") for _ in range(3)}) == 1
    assert cli("disable", "weather").code == 0
    with pytest.raises(ControlError) as caught:
        call(cli, "weather", "who")
    assert caught.value.code == "not-found"


def test_without_a_watch(cli: CommandLine, start: Callable[..., Running]) -> None:
    """What was named as an argument has its instances, and SIGHUP has others."""
    path = weather(cli)
    declaring = Declaring(cli)
    declaring.write("[instances.weather.a]")
    service = start(path)
    assert set(plugins_of(cli)) == {"weather@a"}
    declaring.renew(service, "[instances.weather.b]")
    until(cli, "weather@b")
    declaring.renew(service, "")
    until(cli, "weather")
    assert service.end() == 0, service.text()
