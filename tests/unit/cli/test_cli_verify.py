from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from sandbox_host.bundle.archive_write import write_archive
from sandbox_host.bundle.reader import read_directory
from sandbox_host.bundle.sign import complete, draft_more
from sandbox_host.bundle.trust import Revocation, TrustStore
from sandbox_host.bundle.trust_edit import revoke
from sandbox_host.cli.candidates import Candidate
from sandbox_host.cli.judge import judge
from sandbox_host.cli.reports.model import Verdict
from tests.support.bundles import NOW, make_key, signed_plugin, trust_store, write_plugin
from tests.support.command_line import LocalCommandLine, snapshot
from tests.support.sarif import checked_log

KEY, STRANGER = make_key(1), make_key(9)
SIGNED, FOUND = (hashlib.sha256(source).hexdigest() for source in (b"x = 1\n", b"x = 2\n"))


@pytest.fixture
def plugins(cli: LocalCommandLine) -> dict[str, Path]:
    """One plugin for each verdict, by what ought to be said of it."""
    made = {
        name: signed_plugin(cli.home / name, STRANGER if name == "untrusted" else KEY)
        for name in ("verified", "tampered", "untrusted", "manifest", "bundle")
    }
    (made["tampered"] / "__init__.py").write_text("x = 2\n")
    (made["bundle"] / "link.py").symlink_to("__init__.py")
    made["unsigned"] = write_plugin(cli.home / "unsigned")
    (made.pop("manifest") / "plugin.json").write_text("{}")
    return made


CODES = {"verified": 0, "tampered": 1, "bundle": 1, "unsigned": 3, "untrusted": 4}


@pytest.mark.parametrize(("verdict", "code"), CODES.items())
def test_each_verdict_has_its_exit_code(
    cli: LocalCommandLine, store: Path, plugins: dict[str, Path], verdict: str, code: int
) -> None:
    before = snapshot(cli.home)
    text = cli("verify", plugins[verdict], "--trust-store", store)
    document = cli("verify", plugins[verdict], "--trust-store", store, "--format", "json")
    assert (text.code, document.code) == (code, code)
    assert (text.err, document.err) == ("", "")
    told = json.loads(document.out)
    assert told["schema_version"] == 1
    (one,) = told["verdicts"]
    assert (one["verdict"], one["exit_code"]) == (verdict, code)
    assert verdict in text.out
    if code:
        assert "NOT VERIFIED" in text.out
        assert one["reason"]
        assert one["reason"] in text.out
    assert snapshot(cli.home) == before


def test_a_verdict_names_key_scope_and_digest(cli: LocalCommandLine, signed: Path) -> None:
    store = trust_store(cli.home, KEY, ("sam*", "other"), label="weather team")
    ran = cli("verify", signed, "--trust-store", store, "--format", "json")
    (one,) = json.loads(ran.out)["verdicts"]
    assert one["key"] == KEY.key_id
    assert one["signer"] == "weather team (publisher)"
    assert one["scope"] == ["sam*", "other"]
    assert (one["plugin"], one["version"], one["files"]) == ("sample", "1.0.0", 2)
    text = cli("verify", signed, "--trust-store", store).out
    for shown in (KEY.key_id, "weather team", "sam*, other", one["digest"], "sample 1.0.0"):
        assert shown in text
    assert max(map(len, text.splitlines()[1:])) <= 80


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (("verified", "verified"), 0),
        (("verified", "unsigned"), 3),
        (("untrusted", "unsigned", "verified"), 4),
        (("untrusted", "tampered", "unsigned"), 1),
    ],
)
def test_the_gravest_of_several(
    cli: LocalCommandLine,
    store: Path,
    plugins: dict[str, Path],
    names: tuple[str, ...],
    code: int,
) -> None:
    some = [plugins[name] for name in names]
    ran = cli("verify", *some, "--trust-store", store, "--format", "json")
    assert ran.code == code
    assert [one["verdict"] for one in json.loads(ran.out)["verdicts"]] == list(names)


def test_a_revoked_key_and_a_key_out_of_scope(cli: LocalCommandLine, signed: Path) -> None:
    store = trust_store(cli.home, KEY, ("weather_*",))
    ran = cli("verify", signed, "--trust-store", store)
    assert ran.code == 4
    assert "weather_*" in ran.out
    revoke(store, Revocation(KEY.key_id, "key", "stolen", NOW.date()))
    ran = cli("verify", signed, "--trust-store", store)
    assert ran.code == 4
    assert "stolen" in ran.out


@pytest.mark.parametrize("content", [None, "[[key]]\n", "not toml"])
def test_without_a_sound_trust_store_there_is_no_verdict(
    cli: LocalCommandLine, signed: Path, content: str | None
) -> None:
    if content is not None:
        cli.config_dir.mkdir(parents=True)
        (cli.config_dir / "trust.toml").write_text(content)
    ran = cli("verify", signed)
    assert (ran.code, ran.out) == (6, "")
    assert "trust.toml" in ran.err


def test_a_name_cannot_forge_a_line_or_an_annotation(cli: LocalCommandLine, store: Path) -> None:
    directory = write_plugin(cli.home / "x\n::error file=a::b\x1b[2J", name="sample")
    (directory / "evil\n::error::\u202e.py").write_text("")
    text = cli("verify", directory, "--trust-store", store)
    assert text.code == 1
    assert "\x1b" not in text.out
    assert not any(line.startswith("::") for line in text.out.splitlines())
    document = cli("verify", directory, "--trust-store", store, "--format", "json")
    assert "\x1b" not in document.out
    assert "\\n::error file" in json.loads(document.out)["verdicts"][0]["path"]


# -- many plugins, and the formats -------------------------------------------------------------


@pytest.fixture
def tree(cli: LocalCommandLine) -> Path:
    """A directory of four plugins: good, tampered, unsigned, foreign; one of them in a group."""
    signed_plugin(cli.home / "tree" / "good", KEY)
    tampered = signed_plugin(cli.home / "tree" / "group" / "tampered", KEY, {"main.py": "x = 1\n"})
    (tampered / "main.py").write_text("x = 2\n")
    write_plugin(cli.home / "tree" / "unsigned")
    signed_plugin(cli.home / "tree" / "foreign", STRANGER)
    return cli.home / "tree"


def test_a_directory_of_plugins(cli: LocalCommandLine, store: Path, tree: Path) -> None:
    ran = cli("verify", "tree", "--trust-store", store, "--format", "json")
    assert ran.code == 1
    told = json.loads(ran.out)["verdicts"]
    assert [(one["path"], one["verdict"]) for one in told] == [
        ("tree/foreign", "untrusted"),
        ("tree/good", "verified"),
        ("tree/group/tampered", "tampered"),
        ("tree/unsigned", "unsigned"),
    ]
    tampered = told[2]
    assert tampered["file"] == {
        "path": "main.py",
        "signed": SIGNED,
        "found": FOUND,
    }
    assert tampered["signers"] == [
        {"key": KEY.key_id, "signer": "test key (publisher)", "scope": ["*"]}
    ]
    assert told[0]["signers"] == [{"key": STRANGER.key_id, "signer": "", "scope": []}]


def test_the_text_names_the_differing_file_both_hashes_and_the_next_command(
    cli: LocalCommandLine, store: Path, tree: Path
) -> None:
    text = cli("verify", "tree", "--trust-store", store).out
    for shown in (
        "  file        main.py",
        f"  signed      {SIGNED}",
        f"  found       {FOUND}",
        f"  claims key  {KEY.key_id}",
        "  command     sandbox-host inspect tree/group/tampered",
        "4 plugins: 1 verified, 1 tampered, 1 unsigned, 1 untrusted",
    ):
        assert shown in text.splitlines()


@pytest.mark.parametrize("empty", ["empty", "tree-of-none"])
def test_a_directory_without_plugins_is_refused(
    cli: LocalCommandLine, store: Path, signed: Path, empty: str
) -> None:
    (cli.home / empty / "sub").mkdir(parents=True)
    ran = cli("verify", signed, empty, "--trust-store", store, "--format", "json")
    assert ran.code == 1
    good, none = json.loads(ran.out)["verdicts"]
    assert good["verdict"] == "verified"
    assert (none["verdict"], none["path"]) == ("bundle", empty)
    assert "there is no plugin" in none["reason"]


def test_archives_are_verified_as_directories_are(
    cli: LocalCommandLine, store: Path, signed: Path
) -> None:
    plugins = cli.home / "packed"
    plugins.mkdir()
    write_archive(read_directory(signed), plugins / "sample.plugin")
    (plugins / "broken.plugin").write_bytes(b"PK")
    ran = cli("verify", plugins, plugins / "sample.plugin", "--trust-store", store)
    assert ran.code == 1
    assert f"{plugins}/sample.plugin: verified" in ran.out
    assert f"{plugins}/broken.plugin: NOT VERIFIED (bundle)" in ran.out
    assert "3 plugins: 2 verified, 1 bundle" in ran.out


def test_several_formats_at_once(cli: LocalCommandLine, store: Path, tree: Path) -> None:
    ran = cli(
        *("verify", "tree", "--trust-store", store, "--format", "sarif=out.sarif"),
        *("--format", "junit=out.xml", "--format", "github", "--format", "json=all.json"),
    )
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.count("::error ") == 3
    results = checked_log((cli.home / "out.sarif").read_text())["runs"][0]["results"]
    assert [one["ruleId"] for one in results] == ["untrusted", "tampered", "unsigned"]
    assert ET.parse(cli.home / "out.xml").getroot().get("failures") == "3"
    assert len(json.loads((cli.home / "all.json").read_text())["verdicts"]) == 4


def test_with_files_only_standard_output_is_empty_and_an_error_line_counts(
    cli: LocalCommandLine, store: Path, tree: Path
) -> None:
    ran = cli("verify", "tree", "--trust-store", store, "--format", "json=all.json")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "4 plugins: 1 verified, 1 tampered, 1 unsigned, 1 untrusted; see all.json\n"


@pytest.mark.parametrize(
    ("formats", "why"),
    [
        (("json", "github"), "standard output"),
        (("json=a", "junit=a"), "would be written to a"),
        (("xml",), "'xml' is none of text, json"),
        (("json=",), "json= needs a file's name"),
        (("json=tree/good/out.json",), "would lie inside the plugin"),
    ],
    ids=repr,
)
def test_formats_that_cannot_be(
    cli: LocalCommandLine, store: Path, tree: Path, formats: tuple[str, ...], why: str
) -> None:
    before = snapshot(cli.home)
    options = [word for one in formats for word in ("--format", one)]
    ran = cli("verify", "tree", "--trust-store", store, *options)
    assert (ran.code, ran.out) == (2, "")
    assert why in ran.err
    assert snapshot(cli.home) == before


def test_a_report_is_not_written_through_a_link(
    cli: LocalCommandLine, store: Path, tree: Path
) -> None:
    (cli.home / "precious").write_text("precious")
    (cli.home / "out.sarif").symlink_to("precious")
    ran = cli("verify", "tree", "--trust-store", store, "--format", "sarif=out.sarif")
    assert (ran.code, ran.out) == (6, "")
    assert "symbolic link" in ran.err
    assert (cli.home / "precious").read_text() == "precious"


def test_progress_is_shown_on_a_terminal_and_standard_output_stays_data(
    cli: LocalCommandLine, store: Path, tree: Path
) -> None:
    master, slave = os.openpty()
    with cli.start(
        "verify", tree, "--trust-store", store, "--format", "json", stderr=slave
    ) as process:
        os.close(slave)
        shown = b"".join(iter(lambda: _read_terminal(master), b""))
        told = process.communicate()[0]
    os.close(master)
    assert len(json.loads(told)["verdicts"]) == 4
    assert b"verifying" in shown


def _read_terminal(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux says so when the other end is closed
        return b""


def test_all_plugins_are_judged_at_one_moment(
    cli: LocalCommandLine, store: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments: list[object] = []

    def told(candidate: Candidate, trust: TrustStore, now: dt.datetime, *more: Any) -> Verdict:
        moments.append(now)
        return judge(candidate, trust, now, *more)

    monkeypatch.setattr("sandbox_host.cli.verify.judge", told)
    assert cli("verify", tree, "--trust-store", store).code == 1
    assert len(moments) == 4
    assert len(set(moments)) == 1


def test_two_signers_and_one_that_does_not_count(cli: LocalCommandLine, signed: Path) -> None:
    second, unknown = make_key(2), make_key(3)
    for key in (second, unknown):
        envelope = complete(draft_more(read_directory(signed)), key)
        (signed / "plugin.dsse.json").write_bytes(envelope)
    trust_store(cli.home, KEY, label="author")
    store = trust_store(cli.home, second, ("sam*",), label="reviewer")
    ran = cli("verify", signed, "--trust-store", store, "--format", "json")
    (one,) = json.loads(ran.out)["verdicts"]
    assert [(signer["key"], signer["signer"]) for signer in one["signers"]] == [
        (KEY.key_id, "author (publisher)"),
        (second.key_id, "reviewer (publisher)"),
    ]
    (why,) = one["disregarded"]
    assert unknown.key_id in why
    text = cli("verify", signed, "--trust-store", store).out
    for shown in (KEY.key_id, second.key_id, "sam*", "not counted", unknown.key_id):
        assert shown in text
