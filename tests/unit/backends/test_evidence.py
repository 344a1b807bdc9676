"""What the kernel tells of a process, gathered from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox_host.backends.linux.evidence import NAMESPACES, VISIBLE, gather
from tests.support.alone import has_user_namespaces

WAITS = "import os, sys; print('ready', flush=True); sys.stdin.read()"
IN_NAMESPACES = """
import os, sys
from plugin_sdk.lockdown.namespaces import NEWNET, NEWUSER, NEWUTS, unshare
unshare(NEWUSER | NEWNET | NEWUTS)
print('ready', flush=True)
sys.stdin.read()
"""
NOT_DUMPABLE = """
import sys
from plugin_sdk.lockdown.libc import prctl
prctl(4, 0)
print('ready', flush=True)
sys.stdin.read()
"""


@contextmanager
def waiting(code: str) -> Iterator[int]:
    """Yield the pid of a process that has run ``code`` and waits."""
    with subprocess.Popen(
        [sys.executable, "-B", "-c", code],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.communicate("")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    path = tmp_path / "canary"
    path.write_text("")
    return path


def test_process_that_is_not_confined(canary: Path) -> None:
    with waiting(WAITS) as pid:
        evidence = gather(pid, os.getpid(), str(canary))
    assert evidence.status["PPid"] == str(os.getpid()) == str(evidence.nursery_pid)
    assert evidence.status["Seccomp"] == evidence.own_status["Seccomp"]
    assert set(evidence.namespaces) == set(NAMESPACES)
    assert evidence.namespaces == evidence.own_namespaces == evidence.nursery_namespaces
    assert evidence.canary == VISIBLE
    assert evidence.descriptors == 3
    assert "/" in {line.point for line in evidence.mounts}
    assert "/" in evidence.nursery_mount_points
    assert evidence.membership == Path("/proc/self/cgroup").read_text()
    soft, hard = evidence.limits["Max open files"]
    assert soft.isdecimal()
    assert hard.isdecimal()


def test_namespaces_are_told_apart(canary: Path) -> None:
    if not has_user_namespaces():
        pytest.skip("no user namespaces here")
    with waiting(IN_NAMESPACES) as pid:
        evidence = gather(pid, os.getpid(), str(canary))
    differing = {
        name for name in NAMESPACES if evidence.namespaces[name] != evidence.own_namespaces[name]
    }
    assert differing == {"user", "net", "uts"}


def test_canary_that_is_gone(tmp_path: Path) -> None:
    with waiting(WAITS) as pid:
        assert gather(pid, os.getpid(), str(tmp_path / "missing")).canary == "ENOENT"
        assert gather(pid, os.getpid(), str(tmp_path / "a" / "b")).canary == "ENOENT"


def test_link_in_place_of_the_canary_is_visible(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/no/such/thing")
    with waiting(WAITS) as pid:
        assert gather(pid, os.getpid(), str(tmp_path / "link")).canary == VISIBLE


def test_process_that_shows_nothing(canary: Path) -> None:
    """An ordinary user is not shown the namespaces of a process that is not dumpable."""
    with waiting(NOT_DUMPABLE) as pid:
        evidence = gather(pid, os.getpid(), str(canary))
    if os.geteuid() == 0:
        assert set(evidence.namespaces) == set(NAMESPACES)
    else:
        assert evidence.namespaces == {}
        assert evidence.canary in {"EACCES", "EPERM"}
    assert evidence.status["PPid"] == str(os.getpid())


def test_process_that_has_ended(canary: Path) -> None:
    with waiting(WAITS) as pid:
        pass
    with pytest.raises(OSError, match=str(pid)):
        gather(pid, os.getpid(), str(canary))
