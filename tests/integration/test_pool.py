"""Plugins that start from a pool of blank processes: confined like any other, or not started."""

from __future__ import annotations

import compileall
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sandbox_host import BlockingHost, HostConfig, SandboxHost
from sandbox_host.backends.linux.pool import Pool
from sandbox_host.errors import ConfigError, ConfinementError
from sandbox_host.model import Receipt
from sandbox_host.selftest.arena import ATTACKS, open_arena
from sandbox_host.selftest.report import Verdict, given_up, judge
from tests.support.host import Workshop
from tests.support.traces import eventually

pytestmark = pytest.mark.needs("landlock", "seccomp", "pid-namespace", "own-root")

SIZE = 2
SHORT_FORM = 12
"""Every so manieth attack of the collection is made here; all of them are, elsewhere."""


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def host(workshop: Workshop) -> Iterator[BlockingHost]:
    with SandboxHost.blocking(workshop.config(pool=SIZE)) as opened:
        assert eventually(lambda: pool_of(opened).waiting == SIZE)
        yield opened


def pool_of(host: BlockingHost) -> Pool:
    backend: Any = host._core._launcher._backend
    pool: Pool = backend._pool
    return pool


def blanks(host: BlockingHost) -> set[int]:
    pool = pool_of(host)
    assert eventually(lambda: pool.waiting == SIZE)
    return {blank.child.pid for blank in pool._waiting}


def pid(host: BlockingHost, name: str = "sample") -> int:
    return host._core.get(name).receipt.pid


def told(receipt: Receipt) -> Any:
    """Return a receipt without the numbers of this one process."""
    text = json.dumps([str(receipt.layers), str(receipt.limits), str(receipt.guarantees)])
    text = re.sub(r"\[[0-9]{6,}\]|-[0-9]+'|user [0-9]+ outside, [0-9]+ inside", "", text)
    return re.sub(r"scratch/[^ ']+|sandbox-[a-z]+-[0-9]+", "", text)


def test_it_is_attested_like_one_that_was_just_forked(
    host: BlockingHost, workshop: Workshop
) -> None:
    waiting = blanks(host)
    bundle = workshop.write()
    assert host.load(bundle).call("echo", 1) == 1
    assert pid(host) in waiting
    pooled = host._core.get("sample").receipt
    other = workshop.config(state_dir=workshop.root / "other")
    with SandboxHost.blocking(other) as fresh:
        fresh.load(bundle)
        receipt = fresh._core.get("sample").receipt
    assert [(r.layer, r.status) for r in pooled.layers] == [
        (r.layer, r.status) for r in receipt.layers
    ]
    assert told(pooled) == told(receipt)


def test_what_is_taken_is_replaced_and_all_end_with_the_host(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config(pool=SIZE)) as host:
        first = blanks(host)
        host.load(workshop.write())
        second = blanks(host)
        assert len(first & second) == SIZE - 1
        assert pid(host) in first - second
    assert not [number for number in first | second if psutil.pid_exists(number)]


def test_one_that_was_killed_is_replaced_and_never_handed_out(
    host: BlockingHost, workshop: Workshop
) -> None:
    dead = blanks(host)
    for number in dead:
        os.kill(number, signal.SIGKILL)
    assert host.load(workshop.write()).call("echo", 1) == 1
    assert pid(host) not in dead
    assert eventually(lambda: not blanks(host) & dead)


def test_a_nursery_that_ended_costs_no_start(host: BlockingHost, workshop: Workshop) -> None:
    dead = blanks(host)
    backend: Any = host._core._launcher._backend
    os.kill(backend._nursery.pid, signal.SIGKILL)
    assert host.load(workshop.write()).call("echo", 1) == 1
    assert eventually(lambda: not blanks(host) & dead)


def test_a_blank_process_knows_of_nothing(host: BlockingHost, workshop: Workshop) -> None:
    host.load(workshop.write())
    for number in blanks(host):
        environ = Path(f"/proc/{number}/environ").read_bytes()
        assert b"sample" not in environ
        mounts = Path(f"/proc/{number}/mountinfo").read_text()
        assert "/bundles/" not in mounts
        assert "/data/" not in mounts
        kinds = {os.readlink(f"/proc/{number}/fd/{fd}").partition(":")[0] for fd in range(7)}
        assert kinds <= {"/dev/null", "pipe", "socket"}
        assert len(os.listdir(f"/proc/{number}/fd")) == 7


def test_without_the_network_it_has_no_socket_to_the_host(
    host: BlockingHost, workshop: Workshop
) -> None:
    source = """
        import stat

        @operation
        def sockets():
            found = []
            for number in range(20):
                with contextlib.suppress(OSError):
                    if stat.S_ISSOCK(os.fstat(number).st_mode):
                        found.append(number)
            return found
    """
    waiting = blanks(host)
    plugin = host.load(workshop.write("import contextlib\n" + textwrap.dedent(source)))
    assert pid(host) in waiting
    assert plugin.call("sockets") == []


def test_a_grant_of_a_path_is_there(workshop: Workshop) -> None:
    """It changes the root: what was prepared may not do for it, and is not taken then."""
    granted = workshop.root / "granted"
    granted.mkdir()
    (granted / "file").write_text("seen")
    permissions = {"read": [str(granted)]}
    config = workshop.config(pool=SIZE, grants={"sample": permissions})
    source = f"@operation\ndef look():\n    return open({str(granted / 'file')!r}).read()\n"
    with SandboxHost.blocking(config) as host:
        plugin = host.load(workshop.write(source, permissions=permissions))
        assert plugin.call("look") == "seen"


@pytest.mark.parametrize(("number", "word"), [("EAGAIN", "TasksMax="), ("ENOMEM", "MemoryMax=")])
def test_a_fork_that_fails_is_told_with_its_cause(
    workshop: Workshop, number: str, word: str
) -> None:
    bundle = workshop.write()
    with SandboxHost.blocking(workshop.config()) as host:
        (serve,) = workshop.state_dir.glob("run/*/sdk/plugin_sdk/nursery/serve.py")
        failing = (
            f"\ndef _fail(*_): raise OSError(errno.{number}, os.strerror(errno.{number}))"
            "\nNursery._spawn = _fail\n"
        )
        serve.write_text(serve.read_text() + failing)
        compileall.compile_file(serve, quiet=2, force=True)
        with pytest.raises(ConfinementError) as caught:
            host.load(bundle)
        assert caught.value.layer == "process"
        assert os.strerror(getattr(__import__("errno"), number)) in caught.value.message
        assert word in caught.value.remedy
        backend: Any = host._core._launcher._backend
        pool = Pool(1, backend._make_blank)
        try:
            assert eventually(lambda: pool.fault is not None)
            assert pool.fault is not None
            assert word in pool.fault.remedy
        finally:
            pool.close()


def test_attacks_on_one_in_short_form(workshop: Workshop) -> None:
    config = workshop.config(pool=1)
    with open_arena(config) as arena:
        names = sorted(ATTACKS)[::SHORT_FORM]
        met = {name: arena.attempt(name) for name in names}
        in_force, without = arena.receipt.active, given_up(arena.receipt)
        judged = [
            judge(name, ATTACKS[name], arena.controls[name], met[name], in_force, without)
            for name in names
        ]
    assert len(judged) >= 5
    assert {one.verdict for one in judged} <= {Verdict.HELD, Verdict.NO_CONTROL, Verdict.ACCEPTED}
    assert [one.verdict for one in judged].count(Verdict.HELD) >= len(judged) // 2


def test_it_has_no_use_where_each_has_an_interpreter_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pool"):
        HostConfig(state_dir=tmp_path, pool=1, start="exec")
    for size in (-1, 257, True):
        with pytest.raises(ConfigError, match="pool"):
            HostConfig(state_dir=tmp_path, pool=size)


def test_it_ends_with_a_host_that_is_killed(workshop: Workshop) -> None:
    code = (
        "import sys, time\n"
        "from sandbox_host import HostConfig, SandboxHost\n"
        "with SandboxHost.blocking(HostConfig(state_dir=sys.argv[1], pool=2)) as host:\n"
        "    pool = host._core._launcher._backend._pool\n"
        "    while pool.waiting < 2: time.sleep(0.01)\n"
        "    print(*(blank.child.pid for blank in pool._waiting), flush=True)\n"
        "    time.sleep(1000)\n"
    )
    command = [sys.executable, "-c", code, str(workshop.state_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        numbers = [int(number) for number in process.stdout.readline().split()]
        assert len(numbers) == SIZE
        process.kill()
    assert eventually(lambda: not [number for number in numbers if psutil.pid_exists(number)])
