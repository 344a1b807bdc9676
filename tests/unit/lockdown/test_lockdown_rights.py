"""Capabilities, no_new_privs, Landlock, seccomp, probes: each in a process of its own."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from sandbox_host.backends.linux.landlock import READ, ruleset_for
from sandbox_host.backends.linux.probe import probe
from tests.support.alone import alone

own_user = pytest.mark.usefixtures("_own_user")
NONE = "0" * 16
MACHINE = probe()
landlock = pytest.mark.skipif(not MACHINE.landlock_abi, reason=MACHINE.landlock_reason)
seccomp = pytest.mark.skipif(not MACHINE.seccomp, reason=MACHINE.seccomp_reason)

RETURN, ALLOW, KILL = 0x06, 0x7FFF_0000, 0x8000_0000


# -- privileges ----------------------------------------------------------------------------------


@own_user
def test_all_sets_are_emptied_and_uid_0_is_worth_nothing() -> None:
    found = alone(
        """
        from plugin_sdk.lockdown.privileges import *
        own_user()
        names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
        before = status(*names)
        drop_bounding_set()
        between = status("CapEff", "CapBnd")
        drop_capabilities()
        result = [before, between, status(*names), securebits(), os.getuid()]
        """
    )
    before, between, after, bits, uid = found
    assert int(before[2], 16) != 0
    assert int(between[0], 16) != 0
    assert between[1] == NONE
    assert after == [NONE] * 5
    assert (bits, uid) == (0b1110_1111, 0)


@own_user
def test_leaving_uid_0_does_not_do_it_by_itself_any_more() -> None:
    """What is left of it has to be dropped; the attestation sees whether it was."""
    found = alone(
        """
        from plugin_sdk.lockdown.namespaces import nest
        from plugin_sdk.lockdown.privileges import *
        own_user()
        drop_bounding_set()
        drop_capabilities()
        result = [status("CapPrm"), met(os.chroot, "/")]
        """
    )
    assert found == [[NONE], "EPERM"]


def test_who_holds_nothing_drops_nothing() -> None:
    found = alone(
        """
        from plugin_sdk.lockdown.privileges import *
        if os.geteuid() == 0:
            os.setresuid(61_184, 61_184, 61_184)
        before = status("CapBnd")
        drop_bounding_set()
        drop_capabilities()
        result = [before == status("CapBnd"), status("CapEff", "CapPrm"), securebits()]
        """
    )
    assert found == [True, [NONE, NONE], 0]


def test_no_new_privileges_and_not_dumpable() -> None:
    found = alone(
        """
        from plugin_sdk.lockdown.libc import prctl
        from plugin_sdk.lockdown.privileges import forbid_new_privileges
        forbid_new_privileges()
        result = [*status("NoNewPrivs"), prctl(3), met(prctl, 38, 0)]
        """
    )
    assert found == ["1", 0, "EINVAL"]


# -- Landlock ------------------------------------------------------------------------------------

LANDLOCK = """
from plugin_sdk.lockdown.landlock import restrict_with_landlock
from plugin_sdk.lockdown.privileges import forbid_new_privileges
fs, net, scoped = map(int, sys.argv[2:5])
inside, outside = sys.argv[1] + "/inside", sys.argv[1] + "/outside"
forbid_new_privileges()
"""


@pytest.fixture
def two(tmp_path: Path) -> Path:
    for name in ("inside", "outside"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    return tmp_path


def handled() -> tuple[int, int, int]:
    ruleset = ruleset_for(MACHINE.landlock_abi)
    return ruleset.fs, ruleset.net, ruleset.scoped


@landlock
def test_landlock_grants_what_its_rules_say(two: Path) -> None:
    found = alone(
        LANDLOCK
        + """
read = int(sys.argv[5])
restrict_with_landlock(fs, net, scoped, [(inside, read)])
result = [
    met(open, inside + "/file"), met(os.listdir, inside), met(open, inside + "/file", "a"),
    met(os.mkdir, inside + "/new"), met(open, outside + "/file"), met(os.listdir, "/"),
    len(os.listdir(inside)), met(os.stat, outside + "/file"),
]
""",
        two,
        *handled(),
        READ,
    )
    assert found[:3] == ["allowed", "allowed", "EACCES"]
    assert found[3:6] == ["EACCES"] * 3
    assert found[6:] == [1, "allowed"]  # stat is none of Landlock's business


@landlock
def test_landlock_without_a_rule_denies_everything(two: Path) -> None:
    found = alone(
        LANDLOCK
        + """
before = sorted(os.listdir("/proc/self/fd"))
restrict_with_landlock(fs, net, scoped, [])
result = [met(open, inside + "/file"), met(open, outside + "/file")]
""",
        two,
        *handled(),
    )
    assert found == ["EACCES", "EACCES"]


@landlock
def test_landlock_rule_about_what_is_not_there(two: Path) -> None:
    found = alone(
        LANDLOCK
        + """
from plugin_sdk.lockdown.descriptors import open_descriptors
before = open_descriptors()
missing = met(restrict_with_landlock, fs, net, scoped, [(inside + "/missing", 4)])
unknown = met(restrict_with_landlock, fs, net, scoped, [(inside, 1 << 62)])
result = [missing, unknown, open_descriptors() == before, met(open, outside + "/file")]
""",
        two,
        *handled(),
    )
    assert found == ["ENOENT", "EINVAL", True, "allowed"]


@landlock
def test_landlock_rule_about_what_somebody_put_there(two: Path) -> None:
    """With an identity, neither another thing nor a link to the right one is meant."""
    found = alone(
        LANDLOCK
        + """
def identity(path):
    status = os.stat(path)
    return [status.st_dev, status.st_ino]
meant = identity(inside)
os.symlink(inside, sys.argv[1] + "/link")
def rule(path, identity):
    return met(restrict_with_landlock, fs, net, scoped, [(path, 4, identity)])
result = [
    rule(outside, meant), rule(sys.argv[1] + "/link", meant), rule(inside + "/gone", meant),
    rule(sys.argv[1] + "/link/file", identity(inside + "/file")),
    met(open, outside + "/file"),
    rule(inside, meant), met(open, inside + "/file"), met(open, outside + "/file"),
]
""",
        two,
        *handled(),
    )
    assert found == [
        "ESTALE",
        "ELOOP",
        "ENOENT",
        "ELOOP",
        "allowed",
        "allowed",
        "allowed",
        "EACCES",
    ]


@landlock
def test_landlock_right_that_the_kernel_does_not_know(two: Path) -> None:
    found = alone(
        LANDLOCK + "\nresult = met(restrict_with_landlock, 1 << 62, 0, 0, [])\n", two, *handled()
    )
    assert found == "EINVAL"


# -- seccomp -------------------------------------------------------------------------------------

SECCOMP = """
from plugin_sdk.lockdown.seccomp import load_filter
from plugin_sdk.lockdown.privileges import forbid_new_privileges
forbid_new_privileges()
program = bytes.fromhex(sys.argv[1])
"""


def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


@seccomp
def test_filter_is_in_force() -> None:
    unshare = {"x86_64": 272, "aarch64": 97}[MACHINE.architecture]
    program = instruction(0x20, 0) + instruction(0x15, unshare, 0, 1)
    program += instruction(RETURN, 0x5_0000 | 74) + instruction(RETURN, ALLOW)
    found = alone(
        SECCOMP
        + """
from plugin_sdk.lockdown.namespaces import NEWUTS, unshare
load_filter(program)
result = [*status("Seccomp"), met(unshare, NEWUTS), os.getpid() > 0]
""",
        program.hex(),
    )
    assert found == ["2", "EBADMSG", True]


@seccomp
@pytest.mark.parametrize(
    "program",
    [
        pytest.param(b"", id="empty"),
        pytest.param(instruction(0x20, 0), id="no return"),
        pytest.param(instruction(0x15, 0, 9, 9) + instruction(RETURN, ALLOW), id="jumps out"),
        pytest.param(instruction(RETURN, ALLOW) * 4_097, id="too long"),
    ],
)
def test_filter_that_the_kernel_refuses(program: bytes) -> None:
    found = alone(
        SECCOMP + '\nresult = [met(load_filter, program), *status("Seccomp")]\n', program.hex()
    )
    assert found == ["EINVAL", "0"]


# -- probes --------------------------------------------------------------------------------------

PROBES = """
from plugin_sdk.lockdown.probes import try_all
names = sys.argv[2:]
def probe():
    return try_all(names, sys.argv[1], os.getppid())
"""
ALL_PROBES = (
    *("open-canary", "stat-canary", "list-root", "socket", "fork", "execute", "signal-host"),
    *("change-owner", "writable-and-executable", "write-root"),
)


def test_unconfined_nearly_everything_succeeds(tmp_path: Path) -> None:
    """Each probe tells an open door: none is denied for another reason than confinement."""
    (tmp_path / "canary").write_text("")
    names = [name for name in ALL_PROBES if name not in {"change-owner", "write-root"}]
    found = alone(PROBES + "\nresult = probe()", tmp_path / "canary", *names)
    assert set(found) == set(names)
    # A directory is no program: the one that cannot succeed meets another error than the filter's.
    assert found.pop("execute") == "EACCES"
    assert set(found.values()) == {"allowed"}


def test_canary_that_is_not_there(tmp_path: Path) -> None:
    names = ("open-canary", "stat-canary")
    found = alone(PROBES + "\nresult = probe()", tmp_path / "canary", *names)
    assert found == dict.fromkeys(names, "ENOENT")


def test_only_what_is_asked_is_tried(tmp_path: Path) -> None:
    assert alone(PROBES + "\nresult = probe()", tmp_path) == {}


def test_probe_leaves_no_descriptor_and_no_process(tmp_path: Path) -> None:
    names = ("open-canary", "list-root", "socket", "fork", "writable-and-executable")
    found = alone(
        PROBES
        + """
from plugin_sdk.lockdown.descriptors import open_descriptors
import mmap, _socket  # their own descriptors, if any, are not the probe's
before = open_descriptors()
probe()
result = [before == open_descriptors(), met(os.wait)]
""",
        tmp_path,
        *names,
    )
    assert found == [True, "ECHILD"]
