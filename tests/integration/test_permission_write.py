"""The permission ``write``: refused without a grant, working with it, and nothing beyond it.

`tests.support.granted_paths` has the attempts; as root, whose plugin has a user of its own, and as
an ordinary user; in a root of its own, and with Landlock alone.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import HostConfig, SandboxHost
from sandbox_host.errors import AdmissionError, ConfinementError
from tests.support.granted_paths import ATTEMPTS, LANDLOCK_ONLY
from tests.support.host import Workshop
from tests.support.users import USERS, users

pytestmark = [
    pytest.mark.needs("landlock", "seccomp", "own-root"),
    pytest.mark.timeout(120),
]

OWN_ROOT = "own-root"
PLACES = [(user, how) for user in USERS for how in (OWN_ROOT, LANDLOCK_ONLY)]

NO_READING, NO_ENTRY = {"EACCES"}, {"ENOENT", "EACCES", "EROFS", "EXDEV"}
READ_ONLY, APART = {"EROFS", "EACCES"}, {"EXDEV", "EACCES"}
WORKS = {
    *("make a file", "write a file that is there", "append", "truncate", "make a directory"),
    *("write below", "rename", "remove a file", "remove a directory", "the longest name"),
    *("write a file that was granted", "write and read where both are granted"),
    *("read what is below both", "write what is read-granted below a written path"),
    *("read where reading is granted", "list where reading is granted"),
}
MET = {
    **dict.fromkeys(
        (
            *("read a file", "read what it wrote", "read and write", "list", "copy out"),
            *("read a file that was granted for writing", "map what is open for writing"),
        ),
        NO_READING,
    ),
    **dict.fromkeys(
        (
            *("link it to where reading is allowed", "move it to where reading is allowed"),
            *("link it to another granted path", "move it to another granted path"),
            "link it below itself to where reading is granted",
            "move it below itself to where reading is granted",
            *("link it to where writing is granted", "move it to where writing is granted"),
        ),
        APART,
    ),
    **dict.fromkeys(
        (
            *("write where reading is granted", "make a file where reading is granted"),
            *("remove where reading is granted", "truncate where reading is granted"),
            "write through a link to what is read-granted",
            *("remove a file that was granted", "remove what was granted"),
        ),
        READ_ONLY,
    ),
    **dict.fromkeys(
        (
            *("through a link that leads out", "read through a link that leads out"),
            *("link from outside", "move from outside", "move to outside"),
            *("dot dot", "dot dot beside", "read by dot dot", "replace a file that was granted"),
            "open relative to a granted directory",
            *("the twin of another case", "a name that begins alike"),
        ),
        NO_ENTRY,
    ),
    "make a link": {"EACCES"},
    "a name that is too long": {"ENAMETOOLONG"},
    **dict.fromkeys(
        ("make a FIFO", "make a device", "set-user-id", "execute"), frozenset({"EPERM"})
    ),
}
BY_THE_MOUNT = {
    "map as code": {"EPERM"},
    "map its own copy as code": {"EPERM"},
    "load a shared object": {"OSError"},
    "dot dot of a directory that was moved": {"EXDEV"},
}
"""What only a root of its own refuses: the first three are an honest limit of Landlock alone, the
last is a move between two directories that may both be written."""

Outcome = Callable[[str, str], Any]


@pytest.fixture(scope="module")
def outcome() -> Iterator[Outcome]:
    """Return a function of a user and the kind of confinement: what came of it."""
    with users() as runner:

        @functools.cache
        def run(user: str, how: str) -> Any:
            return json.loads(runner.run(user, "tests.support.granted_paths", how))

        yield run


def ids(pair: tuple[str, str]) -> str:
    return f"{pair[0]}-{pair[1]}"


def test_every_attempt_is_expected_to_meet_something() -> None:
    assert set(ATTEMPTS) == WORKS | set(MET) | set(BY_THE_MOUNT)


@pytest.mark.parametrize("place", PLACES, ids=ids)
class TestGranted:
    """What a plugin that was granted paths can do with them."""

    def test_the_attacks_work_without_the_sandbox(
        self, outcome: Outcome, place: tuple[str, str]
    ) -> None:
        assert outcome(*place)["alone"] == {"read": "secret", "too long": "ENAMETOOLONG"}

    def test_it_does_what_it_was_granted(self, outcome: Outcome, place: tuple[str, str]) -> None:
        met = outcome(*place)["met"]
        assert {name: met[name] for name in WORKS} == dict.fromkeys(WORKS, "works")
        kept = outcome(*place)["kept"]
        assert (kept["old"], kept["one"]) == ("changed", "onemore")
        assert {"made", "moved", "new"} < set(kept["out"])
        assert not {"unwanted", "empty", "file"} & set(kept["out"])

    def test_it_does_nothing_else(self, outcome: Outcome, place: tuple[str, str]) -> None:
        met = outcome(*place)["met"]
        wanted = MET | (BY_THE_MOUNT if place[1] == OWN_ROOT else {})
        assert {name: met[name] for name in wanted if met[name] not in wanted[name]} == {}

    def test_nothing_else_was_changed(self, outcome: Outcome, place: tuple[str, str]) -> None:
        kept = outcome(*place)["kept"]
        assert (kept["secret"], kept["outside"]) == ("secret", ["secret"])
        assert (kept["seen"], kept["in seen"]) == ("seen", ["file"])
        assert (kept["twin"], kept["alike"], kept["set-user-id"]) == ([], [], [])
        assert kept["links"] == ["leads-out", "leads-to-seen"]

    def test_what_is_swapped_in_later_is_not_what_was_granted(
        self, outcome: Outcome, place: tuple[str, str]
    ) -> None:
        found = outcome(*place)
        assert found["outside after the swap"] == ["secret"]
        # In its root the path goes on to lead to the directory that it was given.
        written = found["swapped"] == {"write after the swap": "works"}
        assert written is found["moved along"] is (place[1] == OWN_ROOT)

    def test_the_receipt_says_what_holds(self, outcome: Outcome, place: tuple[str, str]) -> None:
        found = outcome(*place)
        how = {name: told for name, _, told in found["receipt"] if name in {"read", "write"}}
        mounted = {"read": "mounted noexec,ro, ", "write": "mounted noexec,rw, "}
        with_root = place[1] == OWN_ROOT
        assert how == {name: f"{mounted[name] * with_root}Landlock rule" for name in mounted}
        status, detail = found["disk"]
        assert status == "degraded"
        assert "what it writes to granted paths is bounded by the file, not in total" in detail


# -- without a grant ------------------------------------------------------------------------------

WRITE = """
@operation
def write(path):
    with open(path, "w") as file:
        file.write("written")
    os.chmod(path, 0o644)
"""


@pytest.fixture
def out(workshop: Workshop) -> Path:
    path = workshop.root / "o ut"
    path.mkdir()
    path.chmod(0o777)
    return path


def test_denied_with_the_line_that_would_grant_it(workshop: Workshop, out: Path) -> None:
    bundle = workshop.write(WRITE, permissions={"write": [str(out)]})
    with SandboxHost.blocking(workshop.config()) as host, pytest.raises(AdmissionError) as caught:
        host.load(bundle)
    assert str(caught.value) == (
        "Plugin sample is not admitted: plugin.json: permissions.write[0]: writing to "
        f'"{out}" is not granted. To grant it, write in the host\'s TOML under '
        f'[grants."sample"]: write = ["{out}"].'
    )
    # What it says, done.
    table, _, line = caught.value.remedy.partition("under ")[2].removesuffix(".").partition(": ")
    grants = tomllib.loads(f"{table}\n{line}")["grants"]
    with SandboxHost.blocking(workshop.config(grants=grants)) as host:
        host.load(bundle).call("write", f"{out}/new")
    assert (out / "new").read_text() == "written"


@pytest.mark.parametrize("granted", ["read", "write"])
def test_one_permission_is_not_the_other(workshop: Workshop, out: Path, granted: str) -> None:
    other = {"read": "write", "write": "read"}[granted]
    bundle = workshop.write(permissions={other: [str(out)]})
    config = workshop.config(grants={"sample": {granted: [str(out)]}})
    with (
        SandboxHost.blocking(config) as host,
        pytest.raises(AdmissionError, match=rf"permissions\.{other}\[0\].*not granted"),
    ):
        host.load(bundle)


def test_a_grant_alone_gives_nothing(workshop: Workshop, out: Path) -> None:
    config = workshop.config(grants={"sample": {"write": [str(out)]}})
    with SandboxHost.blocking(config) as host:
        plugin = host.load(workshop.write(WRITE))
        with pytest.raises(Exception, match="No such file"):
            plugin.call("write", f"{out}/new")
        assert "write" not in {entry.name for entry in plugin.receipt.permissions}
    assert os.listdir(out) == []


def test_what_was_requested_and_not_all_that_was_granted(workshop: Workshop, out: Path) -> None:
    (out / "mine").mkdir()
    (out / "mine").chmod(0o777)
    config = workshop.config(grants={"sample": {"write": [str(out)]}})
    with SandboxHost.blocking(config) as host:
        plugin = host.load(workshop.write(WRITE, permissions={"write": [f"{out}/mine"]}))
        plugin.call("write", f"{out}/mine/new")
        with pytest.raises(Exception, match=r"Read-only|No such file|denied"):
            plugin.call("write", f"{out}/new")
    assert os.listdir(out) == ["mine"]


def test_writing_without_reading_takes_landlock(workshop: Workshop, out: Path) -> None:
    """Only Landlock tells the two apart; a mount shows what it lets write."""
    without = {"disable_layers": ["landlock"], "accept_missing": ["landlock"]}
    grant = {"write": [str(out)]}
    config = workshop.config(grants={"sample": {**grant, "read": [str(out)]}}, **without)
    with SandboxHost.blocking(config) as host:
        with pytest.raises(AdmissionError, match="only the layer landlock keeps that apart"):
            host.load(workshop.write(WRITE, permissions=grant))
        both = {**grant, "read": [str(out)]}
        host.load(workshop.write(WRITE, permissions=both)).call("write", f"{out}/new")


def test_a_file_has_a_size_and_the_whole_has_none(
    workshop: Workshop, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "sandbox_host")
    request = {"permissions": {"write": [str(out)]}, "limits": {"file_size": "64 KiB"}}
    config = workshop.config(grants={"sample": {"write": [str(out)]}})
    source = """
        @operation
        def fill(path, size):
            with open(path, "wb", buffering=0) as file:
                return file.write(bytes(size)) + file.write(b"x")
    """
    with SandboxHost.blocking(config) as host:
        plugin = host.load(workshop.write(source, **request))
        with pytest.raises(Exception, match="File too large"):
            plugin.call("fill", f"{out}/large", 64 * 1024)
        for number in range(4):
            assert plugin.call("fill", f"{out}/{number}", 60 * 1024) == 60 * 1024 + 1
    told = "each file has at most 64 KiB, and nothing bounds all of them"
    assert f"it may write to {out}: {told}" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="plugins have the host's user")
@pytest.mark.needs("own-uid")
@pytest.mark.parametrize("kind", ["directory", "file"])
def test_modes_that_shut_the_plugins_user_out_are_told(
    workshop: Workshop, out: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    path = out if kind == "directory" else out / "file"
    if kind == "file":
        path.touch()
    target = f"{path}/new" if kind == "directory" else str(path)
    bundle = workshop.write(WRITE.replace("os.chmod", "0 and"), permissions={"write": [str(path)]})
    told = f"granted to write to {path}, and cannot with a user id of its own"
    with SandboxHost.blocking(workshop.config(grants={"sample": {"write": [str(path)]}})) as host:
        path.chmod(0o755 if kind == "directory" else 0o644)
        with pytest.raises(Exception, match="Permission denied"):
            host.load(bundle).call("write", target)
        assert told in caplog.text
        remedy = caplog.text.split("to open it: chmod ")[1].split()[0]
        assert remedy == ("o+wx" if kind == "directory" else "o+w")
        caplog.clear()
        path.chmod(0o777)
        host.unload("sample")
        host.load(bundle).call("write", target)
        assert told not in caplog.text


# -- what is never granted ------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["read", "write"])
@pytest.mark.parametrize(
    "what", ["configuration", "its directory", "trust store", "state", "another's data"]
)
def test_nothing_of_the_hosts_own(workshop: Workshop, key: str, what: str) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        host.load(workshop.write(name="other"))
    file = workshop.root / "etc" / "host.toml"
    file.parent.mkdir()
    path = {
        "configuration": file,
        "its directory": file.parent,
        "trust store": workshop.trust_store,
        "state": workshop.state_dir,
        "another's data": workshop.data_dir("other"),
    }[what]
    text = f'[grants."sample"]\n{key} = ["{path}"]\n'
    top = f'trust_store = "{workshop.trust_store}"\nstate_dir = "{workshop.state_dir}"\n'
    file.write_text(top + text)
    with (
        SandboxHost.blocking(HostConfig.from_toml(file)) as host,
        pytest.raises(ConfinementError, match=r"cannot be granted: it (lies in|contains) "),
    ):
        host.load(workshop.write(permissions={key: [str(path)]}))


@pytest.mark.parametrize("what", ["its bundle", "above its bundle", "plugin environment"])
def test_what_is_run_is_not_written(workshop: Workshop, what: str) -> None:
    environment = workshop.root / "environment"
    environment.mkdir()
    directory = workshop.root / "plugins" / "1" / "sample"
    path = {
        "its bundle": directory,
        "above its bundle": directory.parent,
        "plugin environment": environment,
    }[what]
    grants = {"sample": {"write": [str(path)]}}
    config = workshop.config(grants=grants, plugin_environment=environment)
    bundle = workshop.write(permissions={"write": [str(path)]})
    assert bundle == directory
    with (
        SandboxHost.blocking(config) as host,
        pytest.raises(ConfinementError, match="which the host or a plugin runs"),
    ):
        host.load(bundle)
