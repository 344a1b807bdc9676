"""Keys come and go: the stories of docs/signing.md, run with the commands that stand there.

A block of the page that `<!-- story: NAME -->` marks is a part of that story. Each line has to
succeed, unless its comment says otherwise: `# exits with CODE: what it tells`. `NAME_KEY_ID` is
the id of the key in the file `NAME.key`.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox_host.bundle.keys import load_private_key
from tests.support.agents import real_agent
from tests.support.bundles import write_plugin
from tests.support.command_line import REPOSITORY, LocalCommandLine
from tests.support.foreign_tools import needs_tool

PAGE = (REPOSITORY / "docs" / "signing.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^<!-- story: (\w+) -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SAYS = re.compile(r"# exits with (\d): (.+)$")
_KEY_ID = re.compile(r"([A-Z0-9]+)_KEY_ID")


@dataclass(frozen=True)
class Line:
    """A command of a story, how it ends, and what it tells."""

    command: str
    code: int
    tells: str


def lines_of(name: str) -> list[Line]:
    """Return the commands of a story, in their order."""
    found = []
    for text in "".join(
        block for story, block in _BLOCK.findall(PAGE) if story == name
    ).splitlines():
        says = _SAYS.search(text)
        code, tells = (int(says[1]), says[2]) if says else (0, "")
        found.append(Line(text.split("  #")[0], code, tells))
    return found


class Story:
    """An operator's and some authors' commands, in one home."""

    def __init__(self, cli: LocalCommandLine) -> None:
        self.cli = cli
        self.plugin = write_plugin(cli.home / "weather_model", {"main.py": "x = 1\n"})

    def tell(self, name: str) -> list[str]:
        """Run a story of the page, and return what each of its commands printed."""
        return [self._run(line) for line in lines_of(name)]

    def _run(self, line: Line) -> str:
        program, *words = shlex.split(line.command)
        if program != "sandbox-host":
            return self._shell(line.command)
        ran = self.cli(*(_KEY_ID.sub(lambda found: self.key_id(found[1]), one) for one in words))
        assert ran.code == line.code, (line, ran)
        assert line.tells in ran.out + ran.err, (line, ran)
        return ran.out + ran.err

    def _shell(self, command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", command], cwd=self.cli.home, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def key_id(self, name: str) -> str:
        """Return the id of the key in the file that is called so, in whatever case."""
        return load_private_key(self.cli.home / f"{name.lower()}.key").key_id

    def key(self, name: str) -> str:
        """Make a key, trust it, and return its id."""
        self.do("keygen", f"{name}.key", "--no-passphrase")
        self.do("trust", "add", f"{name}.key.pub", "--label", name, "--plugins", "weather_*")
        return self.key_id(name)

    def release(self, directory: str, *names: str, version: str = "1.0.0") -> Path:
        """Sign with the first key into a new directory, and add the others' signatures."""
        write_plugin(self.plugin, {"main.py": "x = 1\n"}, version=version)
        target = self.cli.home / directory / "weather_model"
        first, *others = names
        self.do("sign", self.plugin, "--key", f"{first}.key", "--out", target)
        for name in others:
            self.do("sign", target, "--key", f"{name}.key", "--add")
        return target

    def do(self, *arguments: object) -> str:
        """Run a command that has to succeed, and return what it printed."""
        ran = self.cli(*arguments)
        assert ran.code == 0, (arguments, ran)
        return ran.out

    def admitted(self, target: Path) -> dict[str, object]:
        """Return the verdict on a release, which has to be good."""
        ran = self.cli("verify", target, "--format", "json")
        assert ran.code == 0, ran
        verdict: dict[str, object] = json.loads(ran.out)["verdicts"][0]
        return verdict

    def refused(self, target: Path) -> str:
        """Return why a release is refused for whom it is signed by."""
        ran = self.cli("verify", target)
        assert ran.code == 4, ran
        return ran.out + ran.err


@pytest.fixture
def story(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Story:
    return Story(LocalCommandLine(tmp_path, capsys, monkeypatch))


def test_every_story_is_told_here() -> None:
    assert {name for name, _ in _BLOCK.findall(PAGE)} == {
        "exchange",
        "threshold",
        "root",
        "foreign",
    }


def test_a_key_is_exchanged(story: Story) -> None:
    told = story.tell("exchange")
    assert sum("NOT VERIFIED" in text for text in told) == 2
    last = story.admitted(story.cli.home / "dist" / "1.0.0")
    assert last["key"] == story.key_id("new")
    assert last["disregarded"] == []


def test_two_of_three_sign_and_one_of_them_is_lost(story: Story) -> None:
    story.tell("threshold")
    last = story.admitted(story.cli.home / "dist")
    assert last["key"] == story.key_id("bob")
    assert "laptop stolen" in str(last["disregarded"])

    # Whoever has the stolen key cannot make up for a missing one, nor spoil what two others signed.
    assert "needs 2" in story.refused(story.release("forged", "ada", "cem"))
    story.admitted(story.release("spoilt", "ada", "bob", "cem"))


def test_an_offline_root_signs_stores_and_is_exchanged(story: Story) -> None:
    *_, exchanged, again = story.tell("root")
    new = load_private_key(story.cli.home / "offline" / "next.key").key_id
    assert "The root was exchanged" in exchanged
    assert "in place already" in again
    listed = json.loads(story.do("trust", "list", "--format", "json"))
    assert (listed["version"], listed["root"]) == (3, new)
    assert listed["keys"][0]["standing"].startswith("revoked on ")


@needs_tool("minisign", "signify-openbsd", "ssh-keygen")
def test_others_verify_what_was_signed_for_them(story: Story) -> None:
    story.tell("foreign")
    (story.plugin / "main.py").write_text("x = 2\n")
    with pytest.raises(AssertionError, match=r"main\.py: FAILED"):
        story._run(lines_of("foreign")[-1])


@needs_tool("ssh-agent", "ssh-add")
def test_two_people_on_two_machines(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one's key is in an agent, and the first one's directory came by copying."""
    story.key("first")
    second = story.key("second")
    story.do("trust", "threshold", "2", "--plugins", "*")
    received = story.release("received", "first")
    with real_agent() as agent:
        agent.add(load_private_key(story.cli.home / "second.key"), "second")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.path))
        ran = story.cli("sign", received, "--key", "ssh-agent:second", "--add")
        assert ran.code == 0
        assert f"with the key {second}" in ran.err
        story.admitted(received)
        # Somebody changed a byte on the way: the second one signs nothing.
        tampered = story.release("tampered", "first")
        (tampered / "main.py").write_text("x = 2\n")
        ran = story.cli("sign", tampered, "--key", "ssh-agent:second", "--add")
        assert (ran.code, ran.out) == (1, "")


def test_a_release_that_must_not_run_any_more(story: Story) -> None:
    story.key("team")
    bad = story.release("1.0.0", "team")
    good = story.release("1.0.1", "team", version="1.0.1")
    digest = story.admitted(bad)["digest"]
    story.do("trust", "revoke", digest, "--bundle", "--reason", "leaks its input")
    assert "leaks its input" in story.refused(bad)
    story.admitted(good)
    # Signing the same files again does not help.
    assert "leaks its input" in story.refused(story.release("again", "team"))
