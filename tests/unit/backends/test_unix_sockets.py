"""Granted Unix sockets: which may be, what the plan says of them, and what the filter lets pass."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_host.admission.plan import SandboxPlan
from sandbox_host.backends.base import Places
from sandbox_host.backends.linux import control_sockets
from sandbox_host.backends.linux.attest import attest
from sandbox_host.backends.linux.compile import Ids, compile_plan
from sandbox_host.backends.linux.control_sockets import CONTROL_SOCKETS, control_of
from sandbox_host.backends.linux.expectations import UNIX_PROBES
from sandbox_host.backends.linux.grants import check_beside_sockets, granted_place, granted_socket
from sandbox_host.backends.linux.mounts import NODEV, NOEXEC, NOSUID, RDONLY, Mount
from sandbox_host.backends.linux.probe import Machine
from sandbox_host.backends.linux.receipt import write_receipt
from sandbox_host.backends.linux.seccomp import ALLOW, ARCHITECTURES, build_filter, rules
from sandbox_host.errors import AttestationError, ConfinementError
from sandbox_host.model import Permissions
from tests.support.attested import PID, ROOT_HOST, Case
from tests.support.bpf_simulator import Call, run, verify
from tests.support.plans import plan_and_places

MACHINE = Machine("x86_64", 7, "", seccomp=True, seccomp_reason="")
IDS = Ids(host=100, pid=4_321, own_pid=True, uid=1, proc=True)
EPERM = 0x5_0000 | errno.EPERM
Prepared = tuple[SandboxPlan, Places, str]


def make_socket(path: Path) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        here = os.open(path.parent, os.O_PATH)  # its path may be too long for sun_path
        try:
            made.bind(f"/proc/self/fd/{here}/{path.name}")
        finally:
            os.close(here)
    return str(path)


@pytest.fixture
def prepared(tmp_path: Path) -> Iterator[Prepared]:
    """Yield a plan that has a socket, the places, and the socket."""
    directory = tmp_path / "there"
    directory.mkdir()
    path = make_socket(directory / "the server's")
    asked = {"permissions": {"unix": [path]}}
    with plan_and_places(tmp_path, grants=Permissions(unix=(path,)), **asked) as made:
        yield *made, path


def refused(path: str | Path, places: Places) -> str:
    with pytest.raises(ConfinementError) as caught:
        granted_socket(str(path), places)
    assert caught.value.remedy
    return str(caught.value)


# -- which may be granted -------------------------------------------------------------------------


def test_it_is_the_one_that_stands_there(prepared: Prepared) -> None:
    _, places, path = prepared
    status = os.lstat(path)
    place = granted_socket(path, places)
    assert (place.path, place.identity) == (path, (status.st_dev, status.st_ino))
    assert (place.rights, place.is_directory) == (0, False)


def test_files_and_sockets_are_not_mistaken(prepared: Prepared, tmp_path: Path) -> None:
    _, places, path = prepared
    (tmp_path / "file").touch()
    assert "it is no socket" in refused(tmp_path / "file", places)
    assert "it is no socket" in refused(tmp_path / "there", places)
    with pytest.raises(ConfinementError, match="it is a socket"):
        granted_place(path, places)


def test_the_longest_path(prepared: Prepared, tmp_path: Path) -> None:
    _, places, _ = prepared
    at_most = 107 - len(os.fsencode(tmp_path)) - 1
    longest = make_socket(tmp_path / ("n" * at_most))
    assert granted_socket(longest, places).path == longest
    longer = make_socket(tmp_path / ("n" * (at_most + 1)))
    assert "a path of more than 107 bytes" in refused(longer, places)


def test_not_the_kernels_and_not_the_hosts(prepared: Prepared) -> None:
    _, places, _ = prepared
    own = make_socket(places.data_dir / "s")
    assert "the host's own state directory" in refused(own, places)
    if os.path.exists("/dev/log"):
        assert "/dev/log" in refused("/dev/log", places)


def test_a_directory_beside_one_shows_what_stands_in_it(prepared: Prepared, tmp_path: Path) -> None:
    _, places, path = prepared
    (tmp_path / "file").touch()
    check_beside_sockets([granted_place(f"{tmp_path}/file", places)])
    with pytest.raises(ConfinementError, match="each socket that is made in one is open"):
        check_beside_sockets([granted_place(str(Path(path).parent), places)])


KNOWN = (
    *("/run/docker.sock", "/run/podman/podman.sock", "/run/containerd/containerd.sock"),
    *("/run/user/1000/podman/podman.sock", "/run/libvirt/libvirt-sock", "/run/snapd.socket"),
    *("/run/systemd/private", "/run/systemd/notify", "/run/systemd/journal/stdout"),
    *(
        "/run/systemd/journal/dev-log",
        "/run/user/1000/systemd/private",
        "/run/dbus/system_bus_socket",
    ),
    *("/run/user/1000/bus", "/tmp/ssh-XXXXabcdef/agent.4711", "/run/user/1000/keyring/ssh"),
    *("/run/user/1000/gnupg/S.gpg-agent", "/run/user/1000/ssh-agent.socket", "/tmp/.X11-unix/X0"),
    *("/run/user/1000/wayland-0", "/tmp/tmux-1000/default", "/run/udev/control"),
    *("/run/php/php8.2-fpm.sock", "/run/supervisor.sock", "/srv/build/docker.sock"),
    *("/home/somebody/.gnupg/S.gpg-agent", "/home/somebody/.ssh/master-host:22"),
)
PLAIN = (
    *("/run/postgresql/.s.PGSQL.5432", "/run/mysqld/mysqld.sock", "/run/redis/redis.sock"),
    *("/run/memcached/memcached.sock", "/srv/weather/api.sock", "/tmp/tester/socket"),
)


@pytest.mark.parametrize("path", KNOWN)
def test_what_runs_what_it_is_asked_to(path: str) -> None:
    assert control_of(path, (0, 0))


@pytest.mark.parametrize("path", PLAIN)
def test_a_plain_service(path: str) -> None:
    assert control_of(path, (0, 0)) == ""


def test_another_name_of_one_is_the_same(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, places, path = prepared
    os.link(path, tmp_path / "linked")
    assert granted_socket(f"{tmp_path}/linked", places)
    table = ((f"{tmp_path}/there/*", "a manager of things"), *CONTROL_SOCKETS)
    monkeypatch.setattr(control_sockets, "CONTROL_SOCKETS", table)
    assert "it leads to a manager of things" in refused(tmp_path / "linked", places)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SSH_AUTH_SOCK", "{}"),
        ("DBUS_SESSION_BUS_ADDRESS", "unix:path={},guid=0"),
        ("TMUX", "{},4711,0"),
    ],
)
def test_what_the_hosts_own_environment_names(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    _, places, path = prepared
    for name in ("SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "TMUX"):
        monkeypatch.delenv(name, raising=False)
    granted_socket(path, places)
    monkeypatch.setenv(variable, value.format(path))
    assert "it leads to " in refused(path, places)


# -- what is planned ------------------------------------------------------------------------------


def test_it_is_mounted_read_only_and_has_no_rule(prepared: Prepared) -> None:
    plan, places, path = prepared
    compiled = compile_plan(plan, places, MACHINE, IDS)
    status = os.lstat(path)
    (mount,) = (mount for mount in compiled.mounts if mount.path == path)
    flags = RDONLY | NOSUID | NODEV | NOEXEC
    assert mount == Mount("bind", path, flags, source=(status.st_dev, status.st_ino))
    assert path not in {rule[0] for rule in compiled.order["landlock"]["rules"]}
    assert {"unix-socket", *UNIX_PROBES} < set(compiled.order["probes"])
    assert compiled.order["keep"] == [3, 4, 5], "no socket of the host's"


def test_without_it_nothing_of_it_is_tried(tmp_path: Path) -> None:
    with plan_and_places(tmp_path) as (plan, places):
        probes = compile_plan(plan, places, MACHINE, IDS).order["probes"]
    assert not {"unix-socket", *UNIX_PROBES} & set(probes)


# -- what the filter lets pass --------------------------------------------------------------------


@pytest.fixture(params=sorted(ARCHITECTURES), scope="module")
def architecture(request: pytest.FixtureRequest) -> Any:
    return ARCHITECTURES[request.param]


def verdict(architecture: Any, name: str, *arguments: int, unix: bool = True) -> int:
    options = {"own_pid": 1, "native_code": False, "truncate_by_path": True}
    program = build_filter(architecture, rules(**options, unix=unix), unix=unix)
    verify(program)
    numbers = architecture.numbers | architecture.network | architecture.unix
    return run(program, Call(numbers[name], architecture.audit, arguments))


UNIX, INET, STREAM, DATAGRAM, SEQUENCED = 1, 2, 1, 2, 5
NONBLOCK, CLOEXEC = 0o4000, 0o2000000
CALLS = (
    ("socket", (UNIX, STREAM, 0), ALLOW),
    ("socket", (UNIX, STREAM | NONBLOCK | CLOEXEC, 0), ALLOW),
    ("socket", (UNIX, STREAM, UNIX), ALLOW),
    ("socket", (UNIX, DATAGRAM, 0), EPERM),
    ("socket", (UNIX, SEQUENCED, 0), EPERM),
    ("socket", (INET, STREAM, 0), EPERM),
    ("socket", (10, STREAM, 0), EPERM),
    ("socket", (16, 3, 0), EPERM),
    ("socket", (40, STREAM, 0), EPERM),
    ("connect", (3, 0x1000, 110), ALLOW),
    ("recvmsg", (3, 0x1000, 0), EPERM),
    ("sendto", (3, 0, 0, 0, 0, 0), ALLOW),
    ("sendto", (3, 0, 0, 0x4000, 0, 0), ALLOW),
    ("sendto", (3, 0, 0, 1, 0, 0), EPERM),
    ("sendto", (3, 0, 0, 0, 0x1000, 110), EPERM),
    ("getsockopt", (3, 1, 4, 0, 0), ALLOW),
    ("getsockopt", (3, 1, 17, 0, 0), EPERM),
    ("getsockopt", (3, 1, 77, 0, 0), EPERM),
    ("setsockopt", (3, 1, 16, 0, 0), EPERM),
)


@pytest.mark.parametrize(("name", "arguments", "wanted"), CALLS)
def test_streams_that_it_connects_and_nothing_else(
    architecture: Any, name: str, arguments: tuple[int, ...], wanted: int
) -> None:
    assert verdict(architecture, name, *arguments) == wanted


@pytest.mark.parametrize("name", ["socket", "connect"])
def test_without_it_there_is_neither(architecture: Any, name: str) -> None:
    assert verdict(architecture, name, UNIX, STREAM, 0, unix=False) == EPERM


def test_out_of_band_bytes_are_for_nobody(architecture: Any) -> None:
    assert verdict(architecture, "sendto", 3, 0, 0, 1, 0, 0, unix=False) == EPERM


# -- what is read back ----------------------------------------------------------------------------


@pytest.fixture
def case(prepared: Prepared) -> Case:
    plan, places, _ = prepared
    made = Case(plan, places, ROOT_HOST)
    made.report["probes"] |= {"unix-socket": "allowed", **dict.fromkeys(UNIX_PROBES, "EPERM")}
    return made


def test_all_is_as_planned(case: Case, prepared: Prepared) -> None:
    reports = attest(case.attested())
    receipt = write_receipt(case.attested(), PID, reports, ())
    (entry,) = (one for one in receipt.permissions if one.name == "unix")
    assert entry.value == prepared[2]
    assert entry.mechanism.startswith("mounted noexec,ro; connected by the plugin itself")
    assert "neither connections nor bytes" in entry.mechanism


@pytest.mark.parametrize("probe", ["socket", *UNIX_PROBES])
def test_more_than_connecting_is_a_fault(case: Case, probe: str) -> None:
    case.report["probes"][probe] = "allowed"
    with pytest.raises(AttestationError, match=f"the probe {probe} succeeded"):
        attest(case.attested())


def test_what_was_granted_and_is_not_given_is_a_fault(case: Case) -> None:
    case.report["probes"]["unix-socket"] = "EPERM"
    with pytest.raises(AttestationError, match="the probe unix-socket met EPERM"):
        attest(case.attested())


def test_another_socket_at_its_path_is_a_fault(case: Case, prepared: Prepared) -> None:
    case.evidence.sources[prepared[2]] = (1, 2)  # type: ignore[index]  # the test's own
    with pytest.raises(AttestationError, match="what is mounted on"):
        attest(case.attested())
