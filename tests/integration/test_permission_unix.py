"""The permission ``unix``: refused without a grant, working with it, and nothing beyond it.

`tests.support.granted_sockets` has the attempts; as root, whose plugin has a user of its own, and
as an ordinary user. `test_clients` has a client in C that needs it.
"""

from __future__ import annotations

import os
import socket
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import SandboxHost
from sandbox_host.errors import AdmissionError, ConfinementError
from tests.support.granted_sockets import ATTEMPTS, SOURCE, echo_server
from tests.support.host import Workshop
from tests.support.users import ROOT, USERS, outcomes

pytestmark = [
    pytest.mark.needs("landlock", "seccomp", "own-root", "network-namespace"),
    pytest.mark.timeout(120),
]

WORKS = {
    *("connect", "connect to another that was granted", "connect by asyncio", "connect by C"),
    *("several at once", "its attributes"),
}
REFUSED = frozenset({"EPERM"})
NOT_THERE, OUT_OF_REACH = {"ENOENT"}, {"ECONNREFUSED"}
MET = {
    **dict.fromkeys(
        (
            *("one beside it", "one beside it, relative", "one beside it by C"),
            "one in a directory of the host's",
        ),
        NOT_THERE,
    ),
    "one beside it by dot dot": {"ENOTDIR", "ENOENT"},
    "an abstract one": OUT_OF_REACH,
    **dict.fromkeys(
        (
            *("a datagram socket", "a sequenced one", "a pair of datagram sockets", "bind"),
            *("bind to no name", "listen", "make a socket's file", "send a descriptor"),
            *("send a descriptor in a pair", "take a descriptor", "out of band", "who is there"),
            *("a hold on who is there", "ask for credentials"),
            *("TCP", "TCP over IPv6", "UDP", "netlink"),
        ),
        REFUSED,
    ),
    "open it": {"EACCES", "ENXIO"},
    "remove it": {"EBUSY", "EACCES", "EROFS"},
    "move it": {"EXDEV", "EACCES", "EBUSY"},
    "link it": {"EXDEV", "EACCES"},
    "change its mode": {"EROFS", "EPERM"},
}

Outcome = Callable[[str], Any]


@pytest.fixture(scope="module")
def outcome() -> Iterator[Outcome]:
    """Return a function of a user: what came of it."""
    with outcomes("tests.support.granted_sockets") as run:
        yield run


def test_every_attempt_is_expected_to_meet_something() -> None:
    assert set(ATTEMPTS) == WORKS | set(MET)


@pytest.mark.parametrize("user", USERS)
class TestGranted:
    """What a plugin that was granted Unix sockets can do with them."""

    def test_the_attacks_work_without_the_sandbox(self, outcome: Outcome, user: str) -> None:
        assert set(outcome(user)["alone"].values()) == {"works"}

    def test_it_connects_to_what_it_was_granted(self, outcome: Outcome, user: str) -> None:
        met = outcome(user)["met"]
        assert {name: met[name] for name in WORKS} == dict.fromkeys(WORKS, "works")

    def test_it_does_nothing_else(self, outcome: Outcome, user: str) -> None:
        met = outcome(user)["met"]
        assert {name: met[name] for name in MET if met[name] not in MET[name]} == {}

    def test_the_server_sees_the_plugins_user(self, outcome: Outcome, user: str) -> None:
        found = outcome(user)
        # The host itself connects once, to find out whether anybody listens.
        others = set(found["peers"]) - {found["user"]}
        assert len(others) == (1 if user == ROOT else 0)
        as_host = "as this host's own user: what the server lets that user do"
        assert (as_host in found["logged"]) is (user != ROOT)

    def test_the_receipt_says_what_holds_and_what_does_not(
        self, outcome: Outcome, user: str
    ) -> None:
        found = outcome(user)
        told = [how for name, _, how in found["receipt"] if name == "unix"]
        how = (
            "mounted noexec,ro; connected by the plugin itself: the host counts neither "
            "connections nor bytes; to bind, or to send a descriptor: seccomp, tried: EPERM, EPERM"
        )
        assert told == [how, how]
        assert found["connections"] == 0

    def test_another_server_at_the_same_path_is_another(self, outcome: Outcome, user: str) -> None:
        found = outcome(user)
        assert (found["anew"], found["loaded again"]) == ("ECONNREFUSED", "works")


# -- without a grant ------------------------------------------------------------------------------


@pytest.fixture
def there(tmp_path: Path) -> Iterator[str]:
    """Serve at a path that everybody can reach; return it."""
    directory = tmp_path / "a server"
    directory.mkdir()
    with echo_server(directory / "socket"):
        yield str(directory / "socket")


def connect(host: Any, bundle: Path, path: str) -> Any:
    return host.load(bundle).call("attempt", "echo(connected(granted))", {"granted": path})


def test_denied_with_the_line_that_would_grant_it(workshop: Workshop, there: str) -> None:
    bundle = workshop.write(SOURCE, permissions={"unix": [there]})
    with (
        SandboxHost.blocking(workshop.config()) as host,
        pytest.raises(AdmissionError) as caught,
    ):
        host.load(bundle)
    assert str(caught.value) == (
        "Plugin sample is not admitted: plugin.json: permissions.unix[0]: connecting to the Unix "
        f'socket "{there}" is not granted. To grant it, write in the host\'s TOML under '
        f'[grants."sample"]: unix = ["{there}"].'
    )
    table, _, line = caught.value.remedy.partition("under ")[2].removesuffix(".").partition(": ")
    grants = tomllib.loads(f"{table}\n{line}")["grants"]
    with SandboxHost.blocking(workshop.config(grants=grants)) as host:
        assert connect(host, bundle, there) == "works"


def test_granted_and_not_requested_is_nothing(workshop: Workshop, there: str) -> None:
    config = workshop.config(grants={"*": {"unix": [there]}})
    with SandboxHost.blocking(config) as host:
        assert connect(host, workshop.write(SOURCE), there) == "EPERM"


def test_a_parent_is_no_grant_of_what_is_in_it(workshop: Workshop, there: str) -> None:
    config = workshop.config(grants={"*": {"unix": [str(Path(there).parent)]}})
    bundle = workshop.write(SOURCE, permissions={"unix": [there]})
    with SandboxHost.blocking(config) as host, pytest.raises(AdmissionError, match="not granted"):
        host.load(bundle)


def test_never_beside_network(workshop: Workshop, there: str) -> None:
    both = {"unix": [there], "network": ["127.0.0.1:80"]}
    told = "Unix sockets and network connections are never given to the same plugin"
    config = workshop.config(grants={"sample": both})
    with SandboxHost.blocking(config) as host, pytest.raises(AdmissionError, match=told):
        host.load(workshop.write(SOURCE, permissions=both))


@pytest.mark.parametrize("layer", ["own-root", "network-namespace", "seccomp"])
def test_each_layer_that_hides_the_others_is_needed(
    workshop: Workshop, there: str, layer: str
) -> None:
    grant = {"unix": [there]}
    without = [layer, *("files", "network", "programs", "kernel-surface", "secrets", "disk")]
    more = ("lifetime", "cpu", "tasks", "processes", "memory")
    config = workshop.config(
        grants={"sample": grant}, disable_layers=[layer], accept_missing=[*without, *more]
    )
    told = f"what keeps every other socket out of its reach is not in force: {layer}"
    with SandboxHost.blocking(config) as host, pytest.raises(AdmissionError, match=told):
        host.load(workshop.write(SOURCE, permissions=grant))


# -- what is never granted, and what is told ------------------------------------------------------


@pytest.mark.parametrize("what", ["file", "directory", "link", "nothing", "state", "read beside"])
def test_what_cannot_be_granted(workshop: Workshop, there: str, what: str) -> None:
    directory = Path(there).parent
    (directory / "file").touch()
    (directory / "link").symlink_to(there)
    workshop.state_dir.mkdir()
    with echo_server(workshop.state_dir / "socket"):
        path, told = {
            "file": (f"{directory}/file", "it is no socket"),
            "directory": (str(directory), "it is no socket"),
            "link": (f"{directory}/link", "is a link to"),
            "nothing": (f"{directory}/nothing", "there is nothing of that name"),
            "state": (f"{workshop.state_dir}/socket", "the host's own state directory"),
            "read beside": (there, "each socket that is made in one is open"),
        }[what]
        grant = {"unix": [path], "read": [str(directory)] if what == "read beside" else []}
        with (
            SandboxHost.blocking(workshop.config(grants={"sample": grant})) as host,
            pytest.raises(ConfinementError, match=told),
        ):
            host.load(workshop.write(SOURCE, permissions=grant))


def test_a_file_may_be_read_beside_it(workshop: Workshop, there: str) -> None:
    file = Path(there).parent / "file"
    file.write_text("text")
    grant = {"unix": [there], "read": [str(file)]}
    with SandboxHost.blocking(workshop.config(grants={"sample": grant})) as host:
        plugin = host.load(workshop.write(SOURCE, permissions=grant))
        code = "assert open(file).read() == 'text'; echo(connected(granted))"
        assert plugin.call("attempt", code, {"file": str(file), "granted": there}) == "works"


def test_a_server_that_is_not_there_is_told(
    workshop: Workshop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "left")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(path)
    os.chmod(path, 0o777)
    grant = {"unix": [path]}
    with SandboxHost.blocking(workshop.config(grants={"sample": grant})) as host:
        bundle = workshop.write(SOURCE, permissions=grant)
        assert connect(host, bundle, path) == "ECONNREFUSED"
    assert f"it is granted the Unix socket {path}, and nobody listens there now" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="plugins have the host's user")
@pytest.mark.needs("own-uid")
def test_a_mode_that_shuts_the_plugins_user_out_is_told(
    workshop: Workshop, there: str, caplog: pytest.LogCaptureFixture
) -> None:
    os.chmod(there, 0o755)
    grant = {"unix": [there]}
    with SandboxHost.blocking(workshop.config(grants={"sample": grant})) as host:
        bundle = workshop.write(SOURCE, permissions=grant)
        assert connect(host, bundle, there) == "EACCES"
        assert f"{there}, and cannot connect with a user id of its own" in caplog.text
        assert "to open it: chmod o+w" in caplog.text
        os.chmod(there, 0o757)
        host.unload("sample")
        assert connect(host, bundle, there) == "works"
