"""`run` as a service, in a process of its own: commands over its socket, a watched directory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_host.errors import ControlError, RemoteError
from sandbox_host.service.client import ask, stream
from tests.support.bundles import make_key, signed_plugin, write_plugin
from tests.support.command_line import CommandLine, Ran
from tests.support.service import Running, plugins_of, service_command, sign, starter
from tests.support.traces import eventually, is_running

pytestmark = pytest.mark.needs


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    return service_command(tmp_path)


@pytest.fixture
def start(cli: CommandLine) -> Iterator[Callable[..., Running]]:
    with starter(cli) as begin:
        yield begin


def test_commands_talk_to_the_running_service(
    cli: CommandLine, start: Callable[..., Running]
) -> None:
    one, other = sign(cli.home / "plugins" / "one"), sign(cli.home / "elsewhere" / "other")
    service = start()
    shown = cli("status")
    assert (shown.code, shown.err) == (0, "")
    assert re.search(r"^one 1\.0\.0 +ready +\d+ ", shown.out, re.MULTILINE)
    assert f"process {service.process.pid}: running for" in shown.out
    loaded = cli("load", "elsewhere/other")
    assert loaded.code == 0, loaded.err
    assert "other: process" in loaded.out
    assert cli("call", "--running", "one", "twice", "21") == Ran(0, "42\n", "")
    assert json.loads(cli("call", "--running", "one", "raw").out) == {"base64": "AP8="}
    assert cli("logs", "one").out == "twice 21\n"
    document = json.loads(cli("status", "other", "--format", "json").out)
    assert document["plugins"][0]["receipt"]["layers"]
    assert "GUARANTEE" in cli("status", "one").out
    sign(other, "1.1.0")
    assert cli("reload", "other").out == "other: 1.1.0 serves, after 1.0.0\n"
    rehearsed = cli("reload", "other", "--replay", "none.recording", "--ignore", "at")
    assert (rehearsed.code, "none.recording" in rehearsed.err) == (6, True), rehearsed
    assert cli("unload", "other").out == "other: unloaded\n"
    missing = cli("unload", "other")
    assert (missing.code, "No plugin named 'other' is loaded" in missing.err) == (1, True)
    unsigned = write_plugin(cli.home / "unsigned")
    assert cli("load", unsigned).code == 3  # the exit code crosses the socket too
    assert "CPU %" in cli("top", "--count", "2", "--interval", "0.1").out
    assert one.is_dir()
    drained = cli("drain")
    assert (drained.code, drained.out) == (0, "the service has ended\n"), drained.err
    assert service.process.wait(60) == 0, service.text()
    assert (cli.state_dir / "data" / "one" / "left").exists()
    assert not (cli.state_dir / "service" / "control.sock").exists()
    gone = cli("status")
    assert (gone.code, "No service runs" in gone.err) == (6, True)


def test_instances(cli: CommandLine, start: Callable[..., Running]) -> None:
    sign(cli.home / "plugins" / "one")
    start()
    narrow = ("--instance-config", "{}", "--limit", "memory=96 MiB")
    assert cli("load", "plugins/one", "--instance", "a", *narrow).code == 0
    ask(cli.state_dir, "load", path=str(cli.home / "plugins" / "one"), instance="b")
    assert cli("call", "--running", "one@a", "twice", "4") == Ran(0, "8\n", "")
    assert cli("logs", "one@a").out == "twice 4\n"
    with pytest.raises(RemoteError, match="no name of an instance"):
        ask(cli.state_dir, "load", path=str(cli.home / "plugins" / "one"), instance="A")
    with pytest.raises(RemoteError, match="for an instance"):
        ask(cli.state_dir, "load", path=str(cli.home / "plugins" / "one"), limits={"threads": 1})
    assert cli("unload", "one@b").out == "one@b: unloaded\n"
    assert (cli.state_dir / "data" / "one@b" / "left").exists()
    running = ask(cli.state_dir, "status")["plugins"]
    assert [one["plugin"] for one in running] == ["one", "one@a"]
    # What is disabled is the plugin: with all that is of it.
    assert cli("disable", "one").code == 0
    assert ask(cli.state_dir, "status")["plugins"] == []


def test_the_plugin_directory_is_watched(cli: CommandLine, start: Callable[..., Running]) -> None:
    plugins = cli.home / "plugins"
    sign(plugins / "one")
    write_plugin(plugins / "unsigned")
    service = start()
    assert plugins_of(cli) == {"one": ("1.0.0", "ready")}
    sign(plugins / "two")
    assert eventually(lambda: plugins_of(cli).get("two") == ("1.0.0", "ready"))
    sign(plugins / "one", "2.0.0")
    assert eventually(lambda: plugins_of(cli)["one"] == ("2.0.0", "ready"))
    assert ask(cli.state_dir, "call", plugin="one", operation="version")["value"] == "2.0.0"
    assert cli("disable", "two").code == 0
    assert eventually(lambda: set(plugins_of(cli)) == {"one"})
    assert cli("enable", "two").code == 0
    assert eventually(lambda: set(plugins_of(cli)) == {"one", "two"})
    (plugins / "broken").mkdir()
    signed_plugin(plugins / "broken", make_key(), {"main.py": "raise OSError('no luck')\n"})
    service.until("no luck")
    shutil.rmtree(plugins / "two")
    assert eventually(lambda: set(plugins_of(cli)) == {"one"})
    problems = {Path(one["path"]).name for one in ask(cli.state_dir, "status")["problems"]}
    assert problems == {"broken", "unsigned"}
    assert cli("status").code == 1
    # What was told at the start is not told again by the watch.
    assert len(re.findall(rf"^.*{plugins / 'unsigned'}: ", service.text(), re.MULTILINE)) == 1
    assert service.end() == 1


def needs(directory: Path, *dependencies: str, **more: Any) -> Path:
    return sign(directory, dependencies=list(dependencies), **more)


def waiting(cli: CommandLine) -> dict[str, str]:
    return {one["plugin"]: one["reason"] for one in ask(cli.state_dir, "status")["waiting"]}


def test_plugins_start_in_the_order_of_what_they_need_and_wait_for_it(
    cli: CommandLine, start: Callable[..., Running]
) -> None:
    plugins = cli.home / "plugins"
    needs(plugins / "a_top", "left", "right")
    for name in ("left", "right"):
        needs(plugins / name, "z_base")
    sign(plugins / "z_base")
    needs(plugins / "far", "near")
    needs(plugins / "near", "missing >= 1")
    service = start()
    assert set(plugins_of(cli)) == {"a_top", "left", "right", "z_base"}
    chain = "far -> near -> missing: near needs missing >= 1, and there is no plugin"
    assert chain in waiting(cli)["far"]
    shown = cli("status")
    assert (shown.code, f"far waits: far cannot start: {chain}" in " ".join(shown.err.split())) == (
        1,
        True,
    )
    assert service.text().count("near cannot start") == 1  # told at the start, and not again
    rows = json.loads(cli("list", "--format", "json").out)["plugins"]
    states = {row["plugin"]: (row["state"], row["reason"]) for row in rows}
    assert states["a_top"] == ("found", None)
    assert states["far"][0] == "waiting"
    assert chain in states["far"][1]
    # What is missing appears; where it lies does not matter.
    assert cli("load", sign(cli.home / "elsewhere" / "missing")).code == 0
    assert eventually(lambda: {"near", "far"} <= set(plugins_of(cli)))
    assert waiting(cli) == {}
    refused = cli("unload", "z_base")
    assert refused.code == 1
    assert "left, right and a_top would lack it" in refused.err
    assert "sandbox-host unload --dependants" in " ".join(refused.err.split())
    # What is removed goes, and so do those that need it: they wait, and come again with it.
    kept = (plugins / "z_base").rename(cli.home / "made" / "z_base_kept")
    assert eventually(lambda: set(waiting(cli)) == {"left", "right", "a_top"})
    assert set(plugins_of(cli)) == {"missing", "near", "far"}
    kept.rename(plugins / "z_base")
    assert eventually(lambda: waiting(cli) == {})
    assert cli("disable", "z_base").code == 0
    assert eventually(lambda: "z_base does not run: disabled" in waiting(cli).get("left", ""))
    assert cli("enable", "z_base").code == 0
    assert eventually(lambda: waiting(cli) == {})
    gone = cli("unload", "--dependants", "z_base")
    assert gone.out.splitlines()[0] == "a_top: unloaded"
    assert gone.out.splitlines()[-1] == "z_base: unloaded"
    assert service.end() == 0


def test_a_version_that_would_not_do_waits(cli: CommandLine, start: Callable[..., Running]) -> None:
    plugins = cli.home / "plugins"
    sign(plugins / "base", "1.0.0")
    needs(plugins / "user", "base < 2")
    start()
    sign(plugins / "base", "2.0.0")
    assert eventually(lambda: "user needs base < 2" in waiting(cli).get("base", ""))
    assert plugins_of(cli)["base"] == ("1.0.0", "ready")
    needs(plugins / "user", version="1.1.0")  # another range would have to be approved
    assert eventually(lambda: plugins_of(cli)["base"] == ("2.0.0", "ready"))
    assert eventually(lambda: waiting(cli) == {})


def switched(cli: CommandLine) -> list[str]:
    """Return how the switch of one was turned, as the journal has it."""
    journal = (cli.state_dir / "journal.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in journal]
    told = [line["event"] for line in lines if line.get("plugin") == "one"]
    return [event for event in told if event in {"disabled", "enabled"}]


def test_disabled_is_disabled_whoever_asks(cli: CommandLine, start: Callable[..., Running]) -> None:
    """A service that watches nothing: over its socket, by command, and with nobody there."""
    one = sign(cli.home / "elsewhere" / "one")
    service = start(one, "--stay")
    assert ask(cli.state_dir, "disable", plugin="One") == {"plugin": "one", "changed": True}
    assert plugins_of(cli) == {}
    assert ask(cli.state_dir, "disable", plugin="one")["changed"] is False
    refused = cli("load", one)
    assert (refused.code, refused.out) == (1, "")
    assert "Plugin one is disabled" in refused.err
    assert "`sandbox-host enable one`" in refused.err
    with pytest.raises(ControlError) as caught:
        ask(cli.state_dir, "load", path=str(one))
    assert caught.value.code == "disabled"
    # Where it is known from the service's switch alone, and not loaded, it can be enabled.
    enabled = cli("enable", "one")
    assert (enabled.code, enabled.out) == (0, "one: enabled\n")
    assert "`sandbox-host load` loads one" in enabled.err
    assert cli("load", one).code == 0
    assert cli("disable", "one").out.startswith("one: disabled;")
    assert plugins_of(cli) == {}  # at once
    assert switched(cli) == ["disabled", "enabled", "disabled"]
    assert service.end() == 0
    alone = cli("call", one, "version")
    assert (alone.code, "Plugin one is disabled" in alone.err) == (1, True)
    assert ask_nobody(cli, "enable") == "control"
    assert cli("enable", "one").code == 0
    assert cli("call", one, "version") == Ran(0, '"1.0.0"\n', "")


def ask_nobody(cli: CommandLine, operation: str) -> str:
    with pytest.raises(ControlError) as caught:
        ask(cli.state_dir, operation, plugin="one")
    return caught.value.code


def test_a_watching_service_takes_the_switch_at_once(
    cli: CommandLine, start: Callable[..., Running]
) -> None:
    sign(cli.home / "plugins" / "one")
    start()
    assert cli("disable", "one").code == 0
    assert plugins_of(cli) == {}
    told = cli("events", "plugin_state", "--format", "json")
    after = [json.loads(line)["data"]["after"] for line in told.out.splitlines()]
    assert after[-1] == "disabled"
    assert ask(cli.state_dir, "enable", plugin="one") == {
        "plugin": "one",
        "changed": True,
        "loads": True,
    }
    assert eventually(lambda: plugins_of(cli) == {"one": ("1.0.0", "ready")})
    assert ask(cli.state_dir, "enable", plugin="one")["changed"] is False


def test_what_ends_by_itself_is_started_again(
    cli: CommandLine, start: Callable[..., Running]
) -> None:
    sign(cli.home / "plugins" / "one")
    start()
    with pytest.raises(ControlError) as caught:
        ask(cli.state_dir, "call", plugin="one", operation="leave")
    assert (caught.value.code, getattr(caught.value, "exit_code", 0)) == ("ended", 1)
    assert ask(cli.state_dir, "call", plugin="one", operation="twice", arguments=[4]) == {
        "value": 8
    }


def test_quarantine_is_told_and_released(cli: CommandLine, start: Callable[..., Running]) -> None:
    sign(cli.home / "plugins" / "one")
    start()

    def in_quarantine() -> bool:
        with contextlib.suppress(ControlError):
            ask(cli.state_dir, "call", plugin="one", operation="leave")
        return bool(ask(cli.state_dir, "status")["plugins"][0]["quarantine"])

    assert eventually(in_quarantine)
    shown = cli("status")
    assert shown.code == 1
    assert "quarantined" in shown.out
    assert "`sandbox-host release one` starts it again" in shown.err
    assert eventually(lambda: "Its last dossier is /" in cli("status").err)
    (named,) = re.findall(r"Its last dossier is (.+)\.\n", cli("status").err)
    assert Path(named).exists()
    assert cli("release", "one").code == 0
    assert eventually(lambda: plugins_of(cli)["one"] == ("1.0.0", "ready"))


def test_events_and_logs_are_followed(cli: CommandLine, start: Callable[..., Running]) -> None:
    sign(cli.home / "plugins" / "one")
    start()
    with cli.start("events", "--follow", "--last", "0", "counted") as follower:
        assert eventually(lambda: ask(cli.state_dir, "status")["service"]["clients"] == 2)
        ask(cli.state_dir, "call", plugin="one", operation="publish", arguments=[7])
        assert follower.stdout is not None
        line = follower.stdout.readline()
        follower.send_signal(signal.SIGINT)
        follower.communicate(timeout=20)
    assert re.search(r' counted one \{"count": 7\}$', line.rstrip())
    assert cli("events", "counted").out == line
    ask(cli.state_dir, "call", plugin="one", operation="twice", arguments=[1])
    with contextlib.closing(
        stream(cli.state_dir, "logs", plugin="one", last=5, follow=True)
    ) as log:
        told = list(next(log))
        ask(cli.state_dir, "call", plugin="one", operation="twice", arguments=[2])
        while len(told) < 2:
            told += next(log)
    assert told == ["twice 1", "twice 2"]
    with cli.start("logs", "-f", "--last", "1", "one") as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "twice 2\n"
        ask(cli.state_dir, "call", plugin="one", operation="twice", arguments=[3])
        assert follower.stdout.readline() == "twice 3\n"
        follower.send_signal(signal.SIGINT)
        follower.communicate(timeout=20)
    assert eventually(lambda: ask(cli.state_dir, "status")["service"]["clients"] == 1)


def test_who_leaves_takes_the_call_along(cli: CommandLine, start: Callable[..., Running]) -> None:
    sign(cli.home / "plugins" / "one")
    start("--no-restart")
    with cli.start("call", "--running", "one", "forever") as caller:
        assert eventually(lambda: ask(cli.state_dir, "status")["service"]["clients"] == 2)
        caller.kill()
        caller.communicate()
    # It was asked to end, and the plugin serves others.
    assert eventually(lambda: ask(cli.state_dir, "status")["service"]["clients"] == 1)
    asked = {"plugin": "one", "operation": "twice", "arguments": [1], "deadline": 20}
    assert ask(cli.state_dir, "call", **asked) == {"value": 2}


def test_a_second_service_is_refused_and_a_dead_one_replaced(
    cli: CommandLine, start: Callable[..., Running]
) -> None:
    sign(cli.home / "plugins" / "one")
    first = start()
    second = cli("run")
    assert second.code == 6
    assert f"process {first.process.pid}" in second.err
    assert plugins_of(cli)["one"][1] == "ready"
    pid = ask(cli.state_dir, "status")["plugins"][0]["pid"]
    first.process.kill()
    first.process.wait()
    assert eventually(lambda: not is_running(pid))
    assert (cli.state_dir / "service" / "control.sock").is_socket()
    assert cli("status").code == 6
    first.log.unlink()
    third = start()
    assert ask(cli.state_dir, "status")["service"]["pid"] == third.process.pid
    assert third.end() == 0


def test_a_changed_configuration(cli: CommandLine, start: Callable[..., Running]) -> None:
    sign(cli.home / "plugins" / "one")
    service = start()
    file = cli.config_dir / "config.toml"
    good = file.read_text()
    file.write_text(f"{good}nonsense = 1\n")
    service.process.send_signal(signal.SIGHUP)
    service.until("all stays as it was")
    file.write_text(f'{good}sweep_seconds = "10 ms"\nevent_queue = 5\n[grants.one]\npublish = []\n')
    service.process.send_signal(signal.SIGHUP)
    service.until("taken over: grants, sweep_seconds")
    service.until("unchanged until the service is restarted: event_queue")
    assert "event_queue" in cli("reload").out
    # What runs keeps what it was admitted with; what is loaded now does not get it any more.
    ask(cli.state_dir, "call", plugin="one", operation="publish", arguments=[1])
    refused = cli("reload", "one")
    assert "counted" in refused.out + refused.err
    assert plugins_of(cli)["one"] == ("1.0.0", "ready")


def test_without_plugins_it_stays_where_it_is_told_to(
    cli: CommandLine, start: Callable[..., Running]
) -> None:
    service = start("--stay")
    assert plugins_of(cli) == {}
    sign(cli.home / "plugins" / "one")
    assert eventually(lambda: plugins_of(cli).get("one") == ("1.0.0", "ready"))
    assert service.end() == 0


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_a_supervisor_is_told(
    cli: CommandLine, start: Callable[..., Running], abstract: bool
) -> None:
    """No systemd here: its protocol (sd_notify(3)) against a real socket."""
    sign(cli.home / "plugins" / "one")
    name = f"@sandbox-host-test-{os.getpid()}" if abstract else str(cli.home / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        manager.settimeout(60)
        service = start(NOTIFY_SOCKET=name, WATCHDOG_USEC="600000")
        heard: list[str] = []

        def until(word: str) -> str:
            while not any(line.startswith(word) for line in heard):
                heard.extend(manager.recv(4_096).decode().splitlines())
            return next(line for line in heard if line.startswith(word))

        until("READY=1")
        assert until("STATUS=") == "STATUS=1 of 1 plugins running"
        until("WATCHDOG=1")
        heard.clear()
        service.process.send_signal(signal.SIGHUP)
        assert int(until("MONOTONIC_USEC=").partition("=")[2]) > 0
        assert "RELOADING=1" in heard
        until("READY=1")
        service.process.send_signal(signal.SIGTERM)
        until("STOPPING=1")
        assert until("EXTEND_TIMEOUT_USEC=") == "EXTEND_TIMEOUT_USEC=42000000"
    assert service.process.wait(60) == 0


def test_those_that_hang_do_not_hold_up_the_end(
    cli: CommandLine, start: Callable[..., Running]
) -> None:
    for number in range(3):
        sign(cli.home / "plugins" / f"p{number}")
    service = start()
    callers = [
        cli.start("call", "--running", f"p{number}", "forever", stdout=subprocess.DEVNULL)
        for number in range(3)
    ]
    assert eventually(lambda: ask(cli.state_dir, "status")["service"]["clients"] == 4)
    assert service.end() == 0
    for caller in callers:
        with caller:
            _, err = caller.communicate()
        assert caller.returncode == 1
        assert "Traceback" not in err
