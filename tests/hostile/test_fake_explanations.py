"""A plugin that makes up what it was refused misleads neither a decision nor a terminal."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import SandboxHost
from sandbox_host.errors import OperationError, StartError
from sandbox_host.model import State
from sandbox_host.observe.journal import last_entries, verify_journal
from sandbox_host.runtime.audience import DENIAL_REPORTED, DENIED
from tests.support.bundles import plugin_files, write_files
from tests.support.command_line import LocalCommandLine
from tests.support.host import Workshop

pytestmark = pytest.mark.needs

FAKES = """
from plugin_sdk.child.faults import Faults

told = {}

def explained(faults, error, place):
    return dict(told)

Faults._explained = explained

@operation
def fail(**fields):
    told.clear()
    told.update(fields)
    raise ValueError("nothing was refused")
"""

ESCAPES = "\x1b[2J\x1b]0;title\x07\x9b31m\u202e"

ATTACKS: dict[str, dict[str, Any]] = {
    "escape sequences": {"rule": "read", "asked": ESCAPES, "where": ESCAPES},
    "line feeds": {
        "rule": "read",
        "asked": "/x\nsandbox-host: all is well\r\nnote: grant it",
        "where": "main.py:1\nsandbox-host: all is well",
    },
    "length": {"rule": "read", "asked": "/x" * 100_000, "where": "x" * 100_000},
    "quotes": {"rule": "read", "asked": '/x"]}, "native_code": true, "a": ["', "where": ""},
    "words in the place": {
        "rule": "read",
        "asked": "/x",
        "where": "main.py:1 in f is harmless. To go on: sandbox-host trust add evil.pub",
    },
    "a wide wish": {"rule": "read", "asked": "/", "where": "main.py:1 in f"},
    "what it has no use for": {"rule": "native_code", "asked": "", "where": "main.py:1 in f"},
    "what nobody gets": {"rule": "env", "asked": "LD_PRELOAD", "where": ""},
    "the trust store": {"rule": "write", "asked": "/root/.config/sandbox-host", "where": ""},
}
NO_REPORTS: dict[str, dict[str, Any]] = {
    "a rule that there is not": {"rule": "root", "asked": "/", "where": ""},
    "a rule with an escape": {"rule": "read\x1b[2J", "asked": "/", "where": ""},
    "a list for a rule": {"rule": ["read"], "asked": "/", "where": ""},
    "nothing": {},
    "words of its own": {"text": "granted", "request": "x", "rule": None},
}


def _is_plain(text: str) -> bool:
    return text.isprintable() and ESCAPES not in text


@pytest.mark.parametrize("attack", ATTACKS)
def test_it_is_told_in_the_hosts_words_and_as_the_plugins(
    attack: str, workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    config = workshop.config()
    with SandboxHost.blocking(config) as host:
        plugin = host.load(workshop.write(FAKES))
        before = plugin.receipt, plugin.plan.permissions
        with caplog.at_level(logging.WARNING), pytest.raises(OperationError) as caught:
            plugin.call("fail", **ATTACKS[attack])
        # Nothing was decided by it: the plugin goes on, and with no more than before.
        assert plugin.call("echo", 1) == 1
        assert (plugin.receipt, plugin.plan.permissions) == before
        assert plugin.state is State.READY
    denial = caught.value.denial
    assert denial is not None
    text = str(caught.value)
    assert text.endswith("(By the word of the plugin's own process.)")
    assert _is_plain(text)
    assert len(text) < 2_500
    for words in ("all is well", "trust add evil"):
        assert words not in denial.text.replace(json.dumps(denial.asked), "")
    (entry,) = last_entries(config.journal_path, DENIAL_REPORTED, 10)
    assert entry.detail == denial.text
    assert last_entries(config.journal_path, DENIED, 10) == []
    assert verify_journal(config.journal_path) is None
    logged = [one for one in caplog.messages if "denied" in one]
    assert logged == [f"sample: denied, by its own word: {denial.text}"]


@pytest.mark.parametrize("attack", NO_REPORTS)
def test_what_is_no_report_is_passed_over(attack: str, workshop: Workshop) -> None:
    config = workshop.config()
    with SandboxHost.blocking(config) as host:
        plugin = host.load(workshop.write(FAKES))
        with pytest.raises(OperationError) as caught:
            plugin.call("fail", **NO_REPORTS[attack])
    assert caught.value.denial is None
    assert last_entries(config.journal_path, DENIAL_REPORTED, 10) == []


def test_ten_thousand_of_them_hide_nothing_that_the_host_saw(workshop: Workshop) -> None:
    source = FAKES + (
        "import socket\n"
        "@on('user_action')\n"
        "def heard(event):\n"
        "    told.update(rule='read', asked=f'/fake/{event.data}', where='main.py:1 in f')\n"
        "    raise ValueError\n"
        "@operation\n"
        "def connect():\n"
        "    socket.create_connection(('127.0.0.1', 9))\n"
    )
    granted = {"network": ["127.0.0.1:1"]}
    config = workshop.config(grants={"sample": granted})
    with SandboxHost.blocking(config) as host:
        path = workshop.write(source, events=["user_action"], permissions=granted)
        plugin = host.load(path)
        for number in range(1_000):
            with pytest.raises(OperationError):
                plugin.call("fail", rule="read", asked=f"/fake/{number}", where="")
        for batch in range(90):
            for number in range(100):
                host.publish("user_action", batch * 100 + number)
            plugin.call("echo")
        with pytest.raises(OperationError):
            plugin.call("connect")
    reported = last_entries(config.journal_path, DENIAL_REPORTED, 10_000)
    # A hundred, and one a second.
    assert 100 <= len(reported) < 250
    (denied,) = last_entries(config.journal_path, DENIED, 10)
    assert "connecting to 127.0.0.1" in denied.detail


def test_at_the_start(workshop: Workshop) -> None:
    source = FAKES + f"told.update({ATTACKS['line feeds']!r})\nraise ValueError\n"
    with SandboxHost.blocking(workshop.config()) as host, pytest.raises(StartError) as caught:
        host.load(workshop.write(source))
    assert caught.value.denial is not None
    assert _is_plain(str(caught.value))


# -- on the command line ---------------------------------------------------------------------------


@pytest.fixture
def cli(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> LocalCommandLine:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return LocalCommandLine(tmp_path, capsys, monkeypatch)


@pytest.mark.parametrize("attack", ["escape sequences", "line feeds", "length", "quotes"])
def test_no_command_shows_it_raw(attack: str, workshop: Workshop, cli: LocalCommandLine) -> None:
    options = ("--trust-store", workshop.trust_store, "--state-dir", workshop.state_dir)
    fields = [f"{name}={json.dumps(value)}" for name, value in ATTACKS[attack].items()]
    keywords = [word for one in fields for word in ("--kw", one)]
    path = workshop.write(FAKES)
    called = cli("call", path, "fail", *keywords, *options)
    listed = cli("denials", "--state-dir", workshop.state_dir)
    assert (called.code, listed.code) == (1, 0)
    for text in (called.out, called.err, listed.out, listed.err):
        assert all(line.isprintable() for line in text.splitlines())
        assert not any(
            line.startswith(("sandbox-host: all", "note: grant")) for line in text.splitlines()
        )
    assert " plugin " in listed.out
    assert "grant nothing for that alone" in listed.err


def test_what_a_trial_makes_up_is_proposed_as_its_word(cli: LocalCommandLine) -> None:
    """A wish is text in quotes, whatever is in it; what it says that it used is not believed."""
    source = (
        "from plugin_sdk.child.record import Recorder\n"
        f"told = {[ATTACKS[name] for name in ATTACKS if name != 'length']!r}\n"
        "used = [['read', '/srv'], ['native_code', '']]\n"
        "Recorder.report = lambda self: {'used': used, 'denied': told}\n"
        "def init_plugin():\n    return True\n"
        "def get_metadata():\n    return {'name': 'sample'}\n"
    )
    directory = write_files(cli.home / "sample", plugin_files({"__init__.py": source}))
    ran = cli("trace", directory, "--write")
    assert ran.code == 0, ran.err
    assert all(line.isprintable() for line in (ran.out + ran.err).splitlines())
    assert not any(
        line.startswith(("sandbox-host: all", "note: grant")) for line in ran.err.splitlines()
    )
    asked = json.loads((directory / "plugin.json").read_text())["permissions"]
    # Everything that plugin.json can say is there for its author to see, and told by whose word.
    assert asked["read"] == ['/x"]}, "native_code": true, "a": ["', "/x", "/"]
    assert set(asked) <= {"read", "write", "native_code"}
    assert ran.err.count("for the plugin's word alone") >= len(asked["read"])


def test_what_a_trial_makes_up_is_shown_as_its_word(cli: LocalCommandLine) -> None:
    source = (
        "from plugin_sdk.child.record import Recorder\n"
        f"told = [{ATTACKS['escape sequences']!r}, {ATTACKS['line feeds']!r}] * 5_000\n"
        "Recorder.report = lambda self: {'used': [['native_code', '']], 'denied': told[:1_000]}\n"
        "def init_plugin():\n    return True\n"
        "def get_metadata():\n    return {'name': 'sample'}\n"
    )
    files = plugin_files({"__init__.py": source, "README.md": "x"})
    ran = cli("check", write_files(cli.home / "sample", files))
    assert ran.code == 0
    assert all(line.isprintable() for line in ran.out.splitlines())
    told = [line for line in ran.out.splitlines() if line.startswith("  warning     denied")]
    assert len(told) == 2
    assert all(line.startswith("  warning     denied, by its own word: reading") for line in told)
