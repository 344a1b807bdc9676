"""What the documentation says is true: examples run, tables agree with the code, links lead on.

`docs/contributing.md` says which comment above a block makes it run here.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import click
import pytest

import plugin_sdk
import sandbox_host
from plugin_sdk.wire import limits as wire_limits
from sandbox_host import Cause, Guarantee, HostConfig, Layer, Limits, Permissions, State, errors
from sandbox_host.backends.linux.seccomp import rules
from sandbox_host.backends.linux.syscalls import X86_64
from sandbox_host.bundle.envelope import Statement, build_statement
from sandbox_host.bundle.keys import create_development_key
from sandbox_host.bundle.plugin_json import _OPTIONAL, _REQUIRED, parse_manifest
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.trust_document import Document
from sandbox_host.cli import main
from sandbox_host.cli.app import COMMANDS, cli
from sandbox_host.cli.exits import Exit
from sandbox_host.config import PerformanceThresholds, default_config_dir
from sandbox_host.guarantees import PROMISES, WAYS, Way
from sandbox_host.model import FIXED_LAYERS, STANDARD_EVENTS, LayerStatus
from sandbox_host.monitoring_terms import AlertSettings
from sandbox_host.observe import verify_journal
from sandbox_host.observe.journal_lines import NEW, REPAIRED, ROTATED
from sandbox_host.reading import parse_bytes
from sandbox_host.runtime.admissions import STARTED
from sandbox_host.runtime.alert_sinks import ALERT
from sandbox_host.runtime.audience import DENIAL_REPORTED, DENIED
from sandbox_host.runtime.lifecycle import TABLE
from sandbox_host.scan.rules import RULES
from sandbox_host.signing.foreign import FORMS
from sandbox_host.signing.uri import Scheme
from sandbox_host.supervision import lifecycle, rollout
from sandbox_host.terms import LIMIT_KEYS
from tests.support.bundles import manifest, sign_directory
from tests.support.host import Workshop

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}
GUIDE, API = TEXTS["plugin_development.md"], TEXTS["api_reference.md"]
OPERATIONS, SECURITY = TEXTS["operations.md"], TEXTS["security.md"]
ADMISSION, SIGNING = TEXTS["admission.md"], TEXTS["signing.md"]

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[a-z]+)(?:: (?P<path>\S+))? -->\n)?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block, and what the comment above it says."""

    page: str
    line: int
    language: str
    mark: str
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def _blocks(page: str) -> Iterator[Block]:
    for match in _BLOCK.finditer(TEXTS[page]):
        line = TEXTS[page].count("\n", 0, match.start("text")) + 1
        mark, path = match["mark"] or "", match["path"] or ""
        yield Block(page, line, match["language"], mark, path, match["text"])


BLOCKS = [block for page in TEXTS for block in _blocks(page)]
RUNNING = sorted({block.page for block in BLOCKS if block.mark in {"run", "test"}})


def _of(*languages: str) -> Any:
    found = [block for block in BLOCKS if block.language in languages]
    return pytest.mark.parametrize("block", found, ids=str)


def _rows(text: str, mark: str) -> list[list[str]]:
    """Return the cells of the table below the comment ``mark``, without its heading."""
    table = text.split(f"<!-- {mark} -->\n", 1)[1].split("\n\n", 1)[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()[2:]]
    return [[cell.strip().replace("\\|", "|") for cell in row] for row in rows]


def _section(text: str, heading: str) -> str:
    return re.split(rf"^##+ {re.escape(heading)}$", text, flags=re.MULTILINE)[1].split("\n## ")[0]


def _quoted(text: str) -> set[str]:
    """Return what stands in backticks, without what follows a name there."""
    return {re.split(r"[^\w.-]", word, maxsplit=1)[0] for word in re.findall(r"`([^`\n]+)`", text)}


# -- what runs ---------------------------------------------------------------------------------


def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home))
    for variable in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An author's empty directory: a home of its own, a development key, a plugin that ran."""
    _at_home(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for line in ("keygen --dev", "new {}", "sign {}", "run {} --once"):
        assert main(line.format("word_counter").split()) == Exit.OK
    return tmp_path


def _run_commands(block: Block) -> None:
    for line in block.text.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "sandbox-host"
        assert main(arguments) == Exit.OK, f"{block}: {line}"


def _run_python(block: Block) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "documentation"}
    code = compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, names))
    else:
        exec(code, names)
    return names


def _run_tests(block: Block, fixture: Callable[[str], Any]) -> None:
    for test in [value for name, value in _run_python(block).items() if name.startswith("test_")]:
        test(**{name: fixture(name) for name in inspect.signature(test).parameters})


@pytest.mark.needs("landlock", "seccomp")
@pytest.mark.parametrize("page", RUNNING)
def test_examples_run_in_their_order(
    page: str, desk: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    key = create_development_key(default_config_dir()).key
    written: set[str] = set()
    for block in _blocks(page):
        if block.mark == "file":
            target = desk / block.path
            target.parent.mkdir(exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
            written.add(target.parent.name)
        elif block.mark == "run" and block.language == "sh":
            _run_commands(block)
        elif block.mark == "run":
            for name in written:
                sign_directory(desk / name, key, now=datetime.now(UTC))
            _run_python(block)
        elif block.mark == "test":
            _run_tests(block, request.getfixturevalue)
    shown = {"plugin_development.md": '"hello Ada"', "admission.md": "intact"}
    assert shown.get(page, "") in capsys.readouterr().out


_ATTEMPT = """
import asyncio, mmap, multiprocessing, pwd, shutil, signal, socket, sqlite3, subprocess, tempfile

@operation
def attempt(code):
    try:
        eval(code)
    except BaseException as error:
        return type(error).__name__
    return "works"
"""


@pytest.mark.needs("landlock", "seccomp")
def test_attempts_meet_what_the_guide_says(load: Callable[..., Any]) -> None:
    plugin = load(_ATTEMPT)
    said = {code.strip("`"): meets.strip("`") for code, meets, _ in _rows(GUIDE, "attempts")}
    assert {code: plugin.call("attempt", code) for code in said} == said


@pytest.mark.needs("landlock", "seccomp")
def test_journal_events_are_documented(workshop: Workshop) -> None:
    directory = workshop.write()
    with sandbox_host.SandboxHost.blocking(workshop.config()) as host:
        host.load(directory)
        host.unload("sample")
        (directory / "main.py").write_text("changed")
        with pytest.raises(errors.VerificationError):
            host.load(directory)
    lines = workshop.config().journal_path.read_text().splitlines()
    assert {json.loads(line)["event"] for line in lines} <= _journal_events()


def _journal_events() -> set[str]:
    return {name for cell, _ in _rows(ADMISSION, "events") for name in _quoted(cell)}


_APPENDED = re.compile(r"(?:_journal\.append|self\._?tell)\(\s*\"([a-z_]+)\"")


def test_every_journal_event() -> None:
    written = {STARTED, ALERT, DENIED, DENIAL_REPORTED, REPAIRED, ROTATED, NEW}
    for source in (ROOT / "sandbox_host").rglob("*.py"):
        written |= set(_APPENDED.findall(source.read_text(encoding="utf-8")))
    # Where the code chooses among several; what goes to subscribers is no line of the journal.
    written |= {
        "host_started",
        "host_stopped",
        "started",
        "restarted",
        "ended",
        "killed",
        "unloaded",
        "degraded",
        "recovered",
    }
    # Those two have several names, or come from another process, whichever the journal has.
    written |= {*lifecycle.JOURNAL.values(), *rollout.JOURNAL.values()}
    written -= {"failed", "update_approved"}
    assert written - STANDARD_EVENTS == _journal_events()


# -- what is parsed ----------------------------------------------------------------------------


@_of("python")
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@_of("toml")
def test_toml_is_what_the_host_reads(block: Block, tmp_path: Path) -> None:
    if {"key", "revoked"} & set(tomllib.loads(block.text)):
        store = TrustStore.parse(block.text.encode())
        assert store.keys
        assert store.revoked
        assert store.version
        return
    file = tmp_path / "config.toml"
    file.write_text(block.text)
    assert HostConfig.from_toml(file) != HostConfig()


@_of("json")
def test_json_is_what_the_host_reads(block: Block, tmp_path: Path) -> None:
    if block.mark == "journal":
        journal = tmp_path / "journal.jsonl"
        journal.write_text(block.text)
        assert verify_journal(journal) is None
        return
    value = json.loads(block.text)
    if "_type" in value:
        now = datetime.now(UTC)
        real = build_statement(Statement("greeter", "1.0.0", "1.0", now, now, (), "0" * 64))
        assert _shape(value) == _shape(json.loads(real))
        return
    parse_manifest(json.dumps({**manifest(), **value}).encode())


def _shape(value: dict[str, Any]) -> list[Any]:
    return [sorted(value), sorted(value["predicate"]), value["_type"], value["predicateType"]]


def _option_names(command: click.Command) -> set[str]:
    return {name for p in command.params for name in p.opts if name.startswith("--")}


def _commands() -> dict[str, click.Command]:
    context = click.Context(cli)
    found: dict[str, click.Command] = {}
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= {f"{name} {sub}": below for sub, below in command.commands.items()}
        else:
            found[name] = command
    return found


@_of("sh")
def test_commands_and_options_exist(block: Block) -> None:
    commands = _commands()
    for line in block.text.splitlines():
        program, *words = shlex.split(line, comments=True) or [""]
        if program == "sandbox-host":
            name = next(n for n in commands if words[: len(n.split())] == n.split())
            used = {word for word in words if word.startswith("--")}
            assert used <= _option_names(commands[name]), line


@pytest.mark.parametrize("page", TEXTS)
def test_commands_in_the_text_exist(page: str) -> None:
    assert set(re.findall(r"`sandbox-host ([a-z]+)[ `]", TEXTS[page])) <= set(COMMANDS)


# -- tables that agree with the code -----------------------------------------------------------


def test_every_command_and_option_is_documented() -> None:
    said = {}
    for usage, _, options in _rows(OPERATIONS, "commands"):
        name = re.match(r"`([a-z]+(?: [a-z]+)?)", usage)
        assert name
        said[name[1]] = set(re.findall(r"--[a-z-]+", options))
    assert said == {name: _option_names(command) for name, command in _commands().items()}


def test_exit_codes() -> None:
    assert [int(code) for code, _ in _rows(OPERATIONS, "exits")] == sorted(Exit)


def test_defaults_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _at_home(tmp_path, monkeypatch)
    said = {key.strip("`"): value.strip("`") for key, value, _ in _rows(OPERATIONS, "defaults")}
    tables = {"ceilings", "grants", "signer_grants", "plugin_config", "performance_thresholds"}
    tables |= {"alerts", "instances", "replicas"}
    assert set(said) == set(HostConfig.model_fields) - tables
    file = tmp_path / "config.toml"
    file.write_text("".join(f"{k} = {v}\n" for k, v in said.items() if v != "unset"))
    assert HostConfig.from_toml(file) == HostConfig()


def test_every_configuration_key_is_in_both_pages() -> None:
    assert set(HostConfig.model_fields) <= _quoted(_section(API, "HostConfig"))
    tables = {*PerformanceThresholds.model_fields, *AlertSettings.model_fields}
    assert tables | {key.key for key in LIMIT_KEYS} <= _quoted(OPERATIONS)


def test_every_key_of_plugin_json() -> None:
    keys = _section(GUIDE, "plugin.json")
    assert {*_REQUIRED, *_OPTIONAL} <= _quoted(keys)
    required = set(re.findall(r"^\| `(\w+)` \|[^|]*\| required \|", keys, re.MULTILINE))
    assert required == set(_REQUIRED)
    assert set(Permissions.__dataclass_fields__) <= _quoted(_section(GUIDE, "Permissions"))


def test_limits_with_default_and_minimum() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \|[^|]*\| `([^`]+)` \| `([^`]+)` \|$",
        _section(GUIDE, "Limits"),
        re.MULTILINE,
    )
    said = {key: (json.loads(default), json.loads(least)) for key, default, least in rows}
    known = {key.key: key for key in LIMIT_KEYS if not key.operator_only}
    assert said.keys() == known.keys()
    for name, (default, least) in said.items():
        key = known[name]
        assert key.read(default, name) == getattr(Limits(), key.field)
        assert key.read(least, name) == key.minimum
    table = _section(API, "Limits, Permissions")
    for key in LIMIT_KEYS:
        assert f"| `{key.field}` | {getattr(Limits(), key.field)} | `{key.key}`" in table


def test_every_limit_of_the_wire() -> None:
    said = {
        name.strip("`"): int(value) if value.isdigit() else parse_bytes(value)
        for name, value, _ in _rows(SECURITY, "limits")
    }
    assert said == {k: v for k, v in vars(wire_limits).items() if k.isupper() and type(v) is int}


def test_every_family_of_findings() -> None:
    said = {family.strip("`") for family, _ in _rows(ADMISSION, "findings")}
    assert said == {rule[:3] for rule in RULES}


def test_every_key_of_the_trust_store() -> None:
    section = _section(SIGNING, "The trust store")
    for name, field in Document.model_fields.items():
        assert name in _quoted(section) or f"[{name}]" in section
        for kind in (field.annotation, *get_args(field.annotation)):
            assert set(getattr(kind, "model_fields", ())) <= _quoted(section)


def test_every_kind_of_signer() -> None:
    section = _section(SIGNING, "Signers")
    assert {scheme.value for scheme in Scheme} <= set(re.findall(r"`([a-z-]+):", section))
    assert set(FORMS) <= set(re.findall(r"--also (\w+)=", SIGNING))


def test_every_system_call() -> None:
    said = [call for _, calls in _rows(SECURITY, "seccomp") for call in calls.split()]
    assert sorted(said) == sorted(X86_64)
    ruled = [c for calls, _, _ in _rows(SECURITY, "rules") for c in re.findall(r"\w+", calls)]
    assert set(ruled) == set(rules(own_pid=1, native_code=False, truncate_by_path=False))


def test_what_keeps_every_guarantee() -> None:
    said = {
        name.strip("`"): (promise, ways) for name, promise, ways in _rows(SECURITY, "guarantees")
    }
    assert said == {
        str(guarantee): (PROMISES[guarantee], "; ".join(map(_way, ways)))
        for guarantee, ways in WAYS.items()
    }
    explained = {name for row in _rows(OPERATIONS, "promises") for name in _quoted(row[0])}
    assert explained == set(Guarantee)


def _way(way: Way) -> str:
    layers = " + ".join(f"`{layer}`" for layer in way.layers)
    return f"{layers} (*{way.restriction}*)" if way.restriction else layers


def test_every_layer_and_which_can_be_switched_off() -> None:
    assert [row[0].strip("`") for row in _rows(SECURITY, "layers")] == list(Layer)
    text = _section(OPERATIONS, "Guarantees and layers").split("What can be switched off: ")[1]
    switches, fixed = text.split("What cannot", 1)
    assert _quoted(switches) == set(Layer) - FIXED_LAYERS
    assert _quoted(fixed.split("\n\n")[0]) == FIXED_LAYERS


def test_every_error_with_its_code() -> None:
    for name, kind in vars(errors).items():
        if inspect.isclass(kind) and issubclass(kind, Exception):
            row = rf"^\| (?:· )*`{name}` \| `{kind.code}` \|"  # type: ignore[attr-defined]
            assert re.search(row, API, re.MULTILINE), name


def test_the_lifecycle() -> None:
    table = _section(API, "State and Cause")
    said = set(re.findall(r"^\| `(\w+)` \| (\w+) \| `(\w+)` \|$", table, re.MULTILINE))
    assert said == {(s, step, after) for s, steps in TABLE.items() for step, after in steps.items()}


def test_every_public_name() -> None:
    words = set(re.findall(r"\w+", API))
    assert {*Cause, *Guarantee, *Layer, *LayerStatus, *State} <= _quoted(API)
    assert set(sandbox_host.__all__) <= words
    for kind in (sandbox_host.SandboxHost, sandbox_host.Plugin, sandbox_host.EventStream):
        assert {member for member in dir(kind) if not member.startswith("_")} <= words
    assert set(plugin_sdk.__all__) <= set(re.findall(r"\w+", GUIDE))


# -- links and the map -------------------------------------------------------------------------


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(_BLOCK, "", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(_BLOCK, "", TEXTS[page])):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (PAGES[page].parent / path).resolve() if path else PAGES[page]
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target.read_text(encoding="utf-8")), link


def _house() -> list[tuple[Path, list[str]]]:
    """Return what each line of the README's map names first, and the words after it."""
    text = _section(TEXTS["README.md"], "The house").split("```")[1]
    found: list[tuple[Path, list[str]]] = []
    package = ROOT
    for line in text.strip("\n").splitlines():
        name, _, rest = line.strip().partition(" ")
        if not line.startswith(" "):
            package = ROOT / name
        path = package / name if line.startswith(" ") else package
        found.append((path, re.findall(r"[\w./]+", rest)))
    return found


def test_the_map_names_what_is_there() -> None:
    for path, words in _house():
        assert path.exists(), path
        places = (path, path.parent, ROOT) if path.is_dir() else (path.parent, ROOT)
        for word in words:
            if word.endswith((".py", "/")):
                assert any((place / word).exists() for place in places), word
        if path.is_dir() and path.parent.name in {"sandbox_host", "plugin_sdk"}:
            named = [word for word in words if (path / f"{word}.py").exists()]
            assert named or path.name == "cli", path


def test_the_map_has_every_room() -> None:
    named = {path.name for path, _ in _house()} | {w for _, words in _house() for w in words}
    for package in ("sandbox_host", "plugin_sdk"):
        rooms = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        assert rooms <= named
    files = {path.name for path in (ROOT / "sandbox_host").glob("*.py")}
    assert files - {"__main__.py"} <= named
