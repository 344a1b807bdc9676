"""Who may give commands: the service's own user and root, and nobody that the host started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from sandbox_host.service.peers import Peer, descends, peer_of, refusal


def test_the_kernel_says_who_is_there() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert peer_of(one) == Peer(os.getpid(), os.geteuid())


@pytest.mark.parametrize(
    ("uid", "pid", "word"),
    [
        (1000, 1, ""),
        (0, 1, ""),
        (1001, 1, "belongs to user id 1001"),
        (1000, 0, "cannot be seen"),
    ],
    ids=["own", "root", "another", "hidden"],
)
def test_refusals(uid: int, pid: int, word: str) -> None:
    why = refusal(Peer(pid, uid), own_uid=1000, own_pid=2**22 + 1)
    assert word in why
    assert bool(why) is bool(word)


def test_a_process_that_we_started_is_told_by_its_descent() -> None:
    nested = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", nested], stdin=subprocess.PIPE) as child:
        assert descends(child.pid, os.getpid())
        assert descends(child.pid, os.getppid())
        assert not descends(os.getpid(), child.pid)
        assert "started by this host" in refusal(
            Peer(child.pid, os.geteuid()), os.geteuid(), os.getpid()
        )
        child.communicate(b"\n")
    assert not descends(os.getpid(), os.getpid())  # itself is no child of its own
