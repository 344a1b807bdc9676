"""The install command: what a host would refuse is not installed, and what is, is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox_host.bundle.contents import Contents
from sandbox_host.bundle.reader import read_directory
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.verify import verify
from sandbox_host.catalog.discover import discover
from sandbox_host.catalog.manifest import read_manifest
from sandbox_host.catalog.readme import update_readme
from sandbox_host.observe.journal import Journal
from sandbox_host.runtime.admissions import Admissions
from tests.support.archives import packed, write
from tests.support.bundles import NOW, make_key, signed_plugin, trust_store, write_plugin
from tests.support.command_line import LocalCommandLine, Ran


class Desk:
    """A command line with a plugin directory, and a publisher whom it trusts."""

    def __init__(self, cli: LocalCommandLine) -> None:
        self.cli = cli
        self.directory = cli.home / "the plugins"
        self.key = make_key()
        self.trust_store = trust_store(cli.home, self.key)
        self.configure()

    def configure(self, more: str = "") -> None:
        self.cli.config_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.cli.config_dir / "config.toml").write_text(
            f'plugin_directory = "{self.directory}"\ntrust_store = "{self.trust_store}"\n{more}'
        )

    def release(self, version: str = "1.0.0", name: str = "sample", **manifest: Any) -> Path:
        directory = self.cli.home / "releases" / version / name
        return signed_plugin(directory, self.key, version=version, **manifest)

    def install(self, *words: object) -> Ran:
        return self.cli("install", *words)

    def admit(self, release: Path) -> None:
        """Have a host remember that it admitted a release."""
        trust = TrustStore.load(self.trust_store)
        bundle = verify(read_directory(release), trust, NOW)
        self.cli.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with Journal(self.cli.state_dir / "journal.jsonl") as journal:
            Admissions(self.cli.state_dir, journal).admit(bundle, trust, NOW)

    @property
    def versions(self) -> dict[str, str]:
        found = discover(self.directory) if self.directory.exists() else []
        return {one.path.name: one.manifest.version for one in found if one.manifest}

    @property
    def events(self) -> list[str]:
        journal = self.cli.state_dir / "journal.jsonl"
        lines = journal.read_text().splitlines() if journal.exists() else []
        return [json.loads(line)["event"] for line in lines]


@pytest.fixture
def desk(cli: LocalCommandLine) -> Desk:
    return Desk(cli)


def test_a_directory_and_an_update_of_it(desk: Desk) -> None:
    ran = desk.install(desk.release(permissions={"publish": ["x"]}))
    assert (ran.code, ran.err) == (0, "")
    for text in ("sample 1.0.0", "signer", "test key", "publish x", "sample.plugin"):
        assert text in ran.out
    ran = desk.install(desk.release("1.1.0", permissions={"publish": ["x"]}))
    assert "sample 1.1.0: installed in" in ran.out
    assert "in the place of 1.0.0" in ran.out
    assert desk.versions == {"sample.plugin": "1.1.0"}
    assert desk.events == ["installed", "installed"]


def test_an_archive(desk: Desk) -> None:
    contents: Contents = read_directory(desk.release())
    archive = write(desk.cli.home, packed(contents.files, contents.envelope, compress=True))
    ran = desk.install(archive, "--format", "json")
    document = json.loads(ran.out)
    assert document["plugin"] == "sample"
    assert document["path"] == str(desk.directory / "sample.plugin")
    assert (document["replaced"], document["unchanged"], document["approved"]) == (
        None,
        False,
        False,
    )
    assert desk.versions == {"sample.plugin": "1.0.0"}


def test_the_same_again_changes_nothing(desk: Desk) -> None:
    release = desk.release()
    desk.install(release)
    before = (desk.directory / "sample.plugin").stat().st_ino
    ran = desk.install(release)
    assert (ran.code, ran.err) == (0, "")
    assert "it is installed already" in ran.out
    assert (desk.directory / "sample.plugin").stat().st_ino == before


@pytest.mark.parametrize(
    ("what", "code"), [("unsigned", 3), ("stranger", 4), ("tampered", 1), ("nothing", 1)]
)
def test_what_a_host_would_refuse(desk: Desk, what: str, code: int) -> None:
    directory = desk.cli.home / what
    if what == "unsigned":
        write_plugin(directory)
    elif what == "stranger":
        signed_plugin(directory, make_key(2))
    elif what == "tampered":
        (signed_plugin(directory, desk.key) / "__init__.py").write_text("x")
    else:
        directory.mkdir()
        (directory / "file").write_text("x")
    ran = desk.install(directory, "--yes")
    assert ran.code == (3 if what == "nothing" else code)
    assert not desk.directory.exists()


def test_without_a_trust_store(desk: Desk) -> None:
    desk.trust_store.unlink()
    assert desk.install(desk.release()).code == 6


def test_without_a_plugin_directory(desk: Desk) -> None:
    (desk.cli.config_dir / "config.toml").write_text(f'trust_store = "{desk.trust_store}"\n')
    ran = desk.install(desk.release())
    assert ran.code == 6
    assert "--plugin-directory DIR" in ran.err
    ran = desk.install(desk.release(), "--plugin-directory", "elsewhere")
    assert ran.code == 0, ran.err
    assert (desk.cli.home / "elsewhere/sample.plugin").exists()


def test_what_is_not_granted_is_refused_with_the_line_that_grants_it(desk: Desk) -> None:
    release = desk.release(permissions={"read": ["/srv"]})
    ran = desk.install(release, "--yes")
    assert ran.code == 1
    assert '[grants."sample"]: read = ["/srv"]' in ran.err
    assert desk.versions == {}
    desk.configure('[grants."sample"]\nread = ["/srv"]\n')
    assert desk.install(release).code == 0


def test_what_only_a_host_can_tell_is_left_to_it(desk: Desk) -> None:
    desk.configure('refuse_findings = "low"\n')
    ran = desk.install(desk.release(permissions={"services": ["prices.latest"]}))
    assert '[grants."sample"]' in ran.err
    desk.configure('refuse_findings = "low"\n[grants."*"]\nservices = ["prices.latest"]\n')
    ran = desk.install(desk.release(permissions={"services": ["prices.latest"]}))
    assert ran.code == 0, ran.err


def test_an_update_that_asks_for_more_is_held(desk: Desk) -> None:
    old = desk.release()
    desk.install(old)
    desk.admit(old)
    desk.configure('[grants."sample"]\nenv = ["TOKEN"]\n')
    new = desk.release("1.1.0", permissions={"env": ["TOKEN"]})
    ran = desk.install(new)
    assert ran.code == 2
    assert "permissions.env" in ran.out
    assert "Give --yes." in ran.err
    assert desk.versions == {"sample.plugin": "1.0.0"}
    ran = desk.install(new, "--yes", "--format", "json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["approved"]
    assert desk.events[-2:] == ["approved", "installed"]
    desk.admit(new)  # no host holds it any more


def test_what_was_approved_before_is_not_asked_again(desk: Desk) -> None:
    old, new = desk.release(), desk.release("1.1.0", dependencies=["core_framework >= 1.0"])
    desk.admit(old)
    assert desk.cli("approve", new, "--yes").code == 0
    assert desk.install(new).code == 0
    assert desk.events[-1] == "installed"


def test_saying_no(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.admit(desk.release())
    monkeypatch.setattr("sandbox_host.cli.install.agreed", lambda question, yes: False)
    ran = desk.install(desk.release("1.1.0", dependencies=["core_framework >= 1.0"]))
    assert ran.code == 1
    assert "nothing was installed." in ran.err
    assert desk.versions == {}


def test_no_older_than_what_was_admitted(desk: Desk) -> None:
    desk.admit(desk.release("1.1.0"))
    ran = desk.install(desk.release("1.0.0"), "--yes")
    assert ran.code == 5
    assert desk.versions == {}
    word = ("--allow-downgrade", "sample", "1.0.0", "1.1 answers wrongly")
    ran = desk.install(desk.release("1.0.0"), *word)
    assert ran.code == 0, ran.err
    assert desk.versions == {"sample.plugin": "1.0.0"}
    assert "downgrade_allowed" in desk.events
    assert "found" in desk.cli("list").out  # the word counts for hosts as well


def test_no_older_than_what_is_installed(desk: Desk) -> None:
    desk.install(desk.release("1.10.0"))
    ran = desk.install(desk.release("1.9.0"))
    assert ran.code == 5
    assert "is older than 1.10.0, which is installed in" in ran.err
    assert desk.versions == {"sample.plugin": "1.10.0"}
    word = ("--allow-downgrade", "sample", "1.9.0", "better")
    assert desk.install(desk.release("1.9.0"), *word).code == 0
    assert desk.versions == {"sample.plugin": "1.9.0"}


def test_a_version_that_does_not_verify_stops_nobody(desk: Desk) -> None:
    write_plugin(desk.directory / "sample", version="999")
    assert desk.install(desk.release()).code == 0
    assert desk.versions == {"sample.plugin": "1.0.0"}


def test_one_that_is_disabled_stays_so(desk: Desk) -> None:
    desk.install(desk.release())
    desk.cli("disable", "sample")
    ran = desk.install(desk.release("1.1.0"))
    assert ran.code == 0
    assert "note: it does not run: disabled with `sandbox-host disable`." in ran.err
    off = desk.install(desk.release(name="off", config={"enabled": False}))
    assert "note: it does not run: config.enabled is false." in off.err


def test_the_readme_of_the_directory(desk: Desk) -> None:
    desk.directory.mkdir()
    readme = desk.directory / "README.md"
    update_readme(readme, {"sample": {"version": "1.0.0"}, "gone": {}}, {}, NOW)
    desk.install(desk.release())
    assert read_manifest(readme.read_text()) == ({"sample": {"version": "1.0.0"}}, {})
    desk.cli("disable", "sample")
    assert read_manifest(readme.read_text()) == ({}, {"sample": {"version": "1.0.0"}})
    desk.cli("enable", "sample")
    assert read_manifest(readme.read_text()) == ({}, {})
    readme.unlink()
    readme.symlink_to("elsewhere")
    ran = desk.install(desk.release("1.1.0"))
    assert ran.code == 0
    assert "is a symbolic link, which is not followed" in ran.err
