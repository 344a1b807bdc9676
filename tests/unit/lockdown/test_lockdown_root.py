"""A root of one's own, made in a user and mount namespace of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.alone import alone

pytestmark = pytest.mark.usefixtures("_own_user")

RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
QUIET = NOSUID | NODEV | NOEXEC

MADE = """
from plugin_sdk.lockdown.namespaces import NEWNS, NEWPID
from plugin_sdk.lockdown.root import make_root, mount, restrict

def points():
    lines = open("/proc/self/mountinfo").read().splitlines()
    return {line.split()[4]: sorted(line.split()[5].split(",")) for line in lines}

own_user(NEWNS | NEWPID)
# A pid namespace of its own, for /proc: what follows is process 1 there.
if child := os.fork():
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
plan = json.loads(sys.argv[1])
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory with something to bind: ``code``, with a directory to hide, and a file."""
    (tmp_path / "at").mkdir()
    hidden = tmp_path / "code" / "site-packages"
    hidden.mkdir(parents=True)
    (hidden / "secret.py").write_text("")
    (tmp_path / "code" / "main.py").write_text("x = 1")
    (tmp_path / "file").write_text("file")
    (tmp_path / "data").mkdir()
    (tmp_path / "outside").write_text("")
    return tmp_path.resolve()


def bind(path: Path | str, flags: int) -> dict[str, Any]:
    status = os.lstat(path) if os.path.lexists(path) else os.stat("/")
    source = [status.st_dev, status.st_ino]
    return {"kind": "bind", "path": str(path), "flags": flags, "data": "", "source": source}


def root(base: Path, *mounts: dict[str, Any], **changes: Any) -> str:
    code = base / "code"
    plan = {
        "at": str(base / "at"),
        "size": "size=64k,nr_inodes=64,mode=755",
        "links": [["/usual", str(code)], ["/deep/er/usual", str(base / "file")]],
        "mounts": [
            bind(code, RDONLY | NOSUID | NODEV),
            bind(base / "file", RDONLY | QUIET),
            bind(base / "data", QUIET),
            bind("/dev/null", RDONLY | NOSUID | NOEXEC),
            {
                "kind": "hidden",
                "path": str(code / "site-packages"),
                "flags": RDONLY | QUIET,
                "data": "",
            },
            {
                "kind": "tmpfs",
                "path": str(base / "scratch"),
                "flags": QUIET,
                "data": "size=16k,nr_inodes=3,mode=700",
            },
            {
                "kind": "proc",
                "path": "/proc",
                "flags": RDONLY | QUIET,
                "data": "subset=pid,hidepid=ptraceable",
            },
            *mounts,
        ],
        "cwd": str(base / "scratch"),
    }
    return json.dumps(plan | changes)


def test_nothing_is_there_but_the_plan(base: Path) -> None:
    found = alone(
        MADE
        + """
base = sys.argv[2]
make_root(plan)
result = {
    "cwd": os.getcwd(),
    "top": sorted(os.listdir("/")),
    "base": sorted(os.listdir(base)),
    "code": sorted(os.listdir(base + "/code")),
    "outside": met(open, base + "/outside"),
    "etc": met(os.stat, "/etc"),
    "link": open("/usual/main.py").read(),
    "deep": open("/deep/er/usual").read(),
    "proc": sorted(n for n in os.listdir("/proc") if n.isdigit()),
    "up": sorted(os.listdir("/..")),
    "null": open("/dev/null").read(),
}
""",
        root(base),
        base,
    )
    first = base.parts[1]
    assert found["cwd"] == str(base / "scratch")
    assert found["top"] == sorted({"deep", "dev", "proc", "usual", first})
    assert found["up"] == found["top"]
    assert found["base"] == ["code", "data", "file", "scratch"]
    assert found["code"] == ["main.py", "site-packages"]
    assert (found["outside"], found["etc"]) == ("ENOENT", "ENOENT")
    assert (found["link"], found["deep"], found["null"]) == ("x = 1", "file", "")
    assert found["proc"] == ["1"]


def test_mounts_have_their_restrictions(base: Path) -> None:
    found = alone(MADE + "\nmake_root(plan)\nresult = points()\n", root(base))
    words = {RDONLY: "ro", NOSUID: "nosuid", NODEV: "nodev", NOEXEC: "noexec"}
    planned = json.loads(root(base))["mounts"]
    assert set(found) == {"/", *(mount["path"] for mount in planned)}
    for mount in planned:
        wanted = {word for flag, word in words.items() if mount["flags"] & flag}
        assert wanted <= set(found[mount["path"]])
    assert set(words.values()) <= set(found["/"])
    assert "ro" not in found[str(base / "data")]


def test_what_can_be_written(base: Path) -> None:
    found = alone(
        MADE
        + """
base = sys.argv[2]
make_root(plan)
def fill():
    with open("full", "wb") as file:
        file.write(bytes(64 * 1024))
result = {
    "root": met(os.mkdir, "/new"),
    "above": met(os.mkdir, base + "/new"),
    "code": met(open, base + "/code/main.py", "a"),
    "hidden": met(os.mkdir, base + "/code/site-packages/x"),
    "file": met(open, base + "/file", "a"),
    "data": met(os.mkdir, base + "/data/new"),
    "too much": met(fill),
    "too many": [met(os.mkdir, name) for name in "abc"],
    "proc": met(open, "/proc/self/comm", "w"),
}
""",
        root(base),
        base,
    )
    assert (found["root"], found["above"], found["code"]) == ("EROFS", "EROFS", "EROFS")
    assert found["hidden"] == "EROFS"
    assert (found["file"], found["data"]) == ("EROFS", "allowed")
    assert found["too much"] == "ENOSPC"
    assert "ENOSPC" in found["too many"]
    assert found["proc"] == "EROFS"
    assert (base / "data" / "new").is_dir()


def test_host_sees_nothing_of_it(base: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    alone(MADE + "\nmake_root(plan)\n", root(base))
    assert Path("/proc/self/mountinfo").read_text() == before
    assert list((base / "at").iterdir()) == []


def test_bind_below_a_bind_brings_its_own_restrictions(base: Path) -> None:
    """What is mounted inside a bound directory comes along, restricted as that is."""
    found = alone(
        MADE
        + """
base = sys.argv[2]
mount("none", base + "/code/site-packages", "tmpfs", 0)
plan["mounts"] = [m for m in plan["mounts"] if m["kind"] != "hidden"]
make_root(plan)
result = points()[base + "/code/site-packages"]
""",
        root(base),
        base,
    )
    assert {"ro", "nosuid", "nodev"} <= set(found)


@pytest.mark.parametrize(
    ("mount", "met"),
    [
        pytest.param(bind("/no/such/thing", RDONLY), "ENOENT", id="missing source"),
        pytest.param(
            {"kind": "tmpfs", "path": "/t", "flags": 0, "data": "nonsense=1"},
            "EINVAL",
            id="unknown option",
        ),
    ],
)
def test_mount_that_fails_is_an_error(base: Path, mount: dict[str, Any], met: str) -> None:
    assert alone(MADE + "\nresult = met(make_root, plan)\n", root(base, mount)) == met


def test_unknown_kind_is_an_error(base: Path) -> None:
    found = alone(
        MADE
        + """
try:
    make_root(plan)
except ValueError as error:
    result = str(error)
""",
        root(base, {"kind": "overlay", "path": "/o", "flags": 0, "data": ""}),
    )
    assert "overlay" in found


def test_without_a_mount_namespace_nothing_is_mounted(base: Path) -> None:
    """In a user namespace alone, the mounts are still those of others."""
    before = Path("/proc/self/mountinfo").read_text()
    found = alone(
        """
        from plugin_sdk.lockdown.root import make_root
        own_user()
        result = met(make_root, json.loads(sys.argv[1]))
        """,
        root(base),
    )
    assert found == "EPERM"
    assert Path("/proc/self/mountinfo").read_text() == before
