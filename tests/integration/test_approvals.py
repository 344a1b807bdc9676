"""An update that asks for more is held until the operator approves exactly it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox_host import SandboxHost
from sandbox_host.errors import AdmissionError, HeldError
from sandbox_host.observe.journal import last_entries
from tests.support.command_line import LocalCommandLine
from tests.support.releases import Publisher

pytestmark = pytest.mark.needs("landlock", "seccomp")

GRANTS = {"weather": {"env": ["TOKEN", "OTHER"]}}


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path)


@pytest.fixture
def cli(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> LocalCommandLine:
    return LocalCommandLine(tmp_path, capsys, monkeypatch)


def load(publisher: Publisher, bundle: Path) -> str:
    with SandboxHost.blocking(publisher.config(grants=GRANTS)) as host:
        return host.load(bundle).version


def test_more_is_held_until_it_is_approved(publisher: Publisher, cli: LocalCommandLine) -> None:
    first = publisher.release("1.0", permissions={"env": ["TOKEN"]}, limits={"memory": "64 MiB"})
    update = publisher.release(
        "1.1", permissions={"env": ["OTHER"]}, limits={"memory": "128 MiB", "threads": 4}
    )
    assert load(publisher, first) == "1.0"
    with pytest.raises(HeldError) as caught:
        load(publisher, update)
    assert caught.value.changes == (
        "permissions.env: OTHER (before: -)",
        "limits.memory: 128 MiB (before: 64 MiB)",
    )
    assert load(publisher, first) == "1.0"  # what ran before goes on
    ran = cli("approve", update, *publisher.options)
    assert ran.code == 2
    assert "Give --yes." in ran.err
    for text in ("permissions.env", "OTHER", "64 MiB", "128 MiB", "more", "less"):
        assert text in ran.out
    with pytest.raises(HeldError):
        load(publisher, update)
    ran = cli("approve", update, "--yes", "--format", "json", *publisher.options)
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert document["approved"] is True
    assert [c["path"] for c in document["changes"] if c["wider"]] == [
        "permissions.env",
        "limits.memory",
    ]
    other = publisher.release(
        "1.1", "\n# other files\n", permissions={"env": ["OTHER"]}, limits={"memory": "128 MiB"}
    )
    with pytest.raises(HeldError):
        load(publisher, other)
    assert load(publisher, update) == "1.1"
    (entry,) = last_entries(publisher.config().journal_path, "approved")
    assert entry.plugin == "weather"
    assert "permissions.env: OTHER" in entry.detail
    refused = last_entries(publisher.config().journal_path, "refused")
    assert all("[held]" in one.detail for one in refused)
    assert "nothing to approve" in cli("approve", update, *publisher.options).out


def test_the_same_or_narrower_goes_through(publisher: Publisher) -> None:
    wide = {"permissions": {"env": ["TOKEN", "OTHER"]}, "limits": {"memory": "96 MiB"}}
    narrow = {"permissions": {"env": ["TOKEN"]}, "limits": {"memory": "64 MiB"}}
    for version, asked in [("1.0", wide), ("1.1", wide), ("1.2", narrow)]:
        assert load(publisher, publisher.release(version, **asked)) == version
    with pytest.raises(HeldError):
        load(publisher, publisher.release("1.3", **wide))


def test_an_approval_grants_nothing(publisher: Publisher, cli: LocalCommandLine) -> None:
    load(publisher, publisher.release("1.0"))
    update = publisher.release("1.1", permissions={"env": ["SECRET"]})
    assert cli("approve", update, "--yes", *publisher.options).code == 0
    with pytest.raises(AdmissionError, match="SECRET"):
        load(publisher, update)


def test_what_is_refused_cannot_be_approved(publisher: Publisher, cli: LocalCommandLine) -> None:
    load(publisher, publisher.release("1.0"))
    load(publisher, publisher.release("1.1"))
    old = publisher.release("1.0", permissions={"env": ["TOKEN"]})
    assert cli("approve", old, "--yes", *publisher.options).code == 5
    (old / "main.py").write_text("# tampered")
    assert cli("approve", old, "--yes", *publisher.options).code == 1


def test_on_the_command_line_a_held_one_says_what_to_do(
    publisher: Publisher, cli: LocalCommandLine
) -> None:
    assert cli("call", publisher.release("1.0"), "version", *publisher.options).code == 0
    update = publisher.release("1.1", limits={"memory": "768 MiB"})
    ran = cli("call", update, "version", *publisher.options)
    assert ran.code == 1
    update = publisher.release("1.1", dependencies=["x >= 1.0"])
    ran = cli("call", update, "version", *publisher.options)
    assert ran.code == 1
    assert f'`sandbox-host approve "{update}"`' in ran.err
