from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox_host.bundle.trust import Revocation
from sandbox_host.bundle.trust_edit import revoke
from tests.support.bundles import NOW, make_key, signed_plugin, trust_store, write_plugin
from tests.support.command_line import LocalCommandLine, snapshot

KEY, STRANGER = make_key(1), make_key(9)


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
