"""The permission ``subprocess``: refused without a grant; with it, processes of the plugin's own.

What they may do is what the plugin may; what they use is on its account; they end with it.
`tests.support.plugin_processes` has the plugin.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import BlockingHost, BlockingPlugin, Cause, SandboxHost
from sandbox_host.backends.linux import procfs
from sandbox_host.backends.linux.compile import TASKS_HEADROOM
from sandbox_host.errors import AdmissionError, BudgetExceededError
from sandbox_host.guarantees import standing
from sandbox_host.model import Guarantee, Layer, LayerStatus, Limits
from tests.support import ordinary_user, plugin_processes
from tests.support.host import Workshop, nothing_left_in
from tests.support.plugin_processes import GRANTS, PERMISSIONS, SOURCE
from tests.support.traces import eventually, processes_of, still_there

NEEDED = ("seccomp", "landlock", "own-root", "pid-namespace", "cgroup")
pytestmark = pytest.mark.needs(*NEEDED)

LOADER = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}
TRUE = "/bin/true"
LATE = 60.0

Start = Callable[..., BlockingPlugin]


@pytest.fixture(scope="module")
def shared_granting(shared_workshop: Workshop) -> Iterator[BlockingHost]:
    with SandboxHost.blocking(shared_workshop.config(grants=GRANTS)) as host:
        yield host


@pytest.fixture
def granting(shared_workshop: Workshop, shared_granting: BlockingHost) -> Iterator[BlockingHost]:
    """A host that grants the permission."""
    with nothing_left_in(shared_granting, shared_workshop):
        yield shared_granting


@pytest.fixture
def start(shared_workshop: Workshop, granting: BlockingHost) -> Start:
    """Return a function that loads the plugin with limits."""

    def load(**limits: Any) -> BlockingPlugin:
        return granting.load(shared_workshop.write(SOURCE, permissions=PERMISSIONS, limits=limits))

    return load


def members(plugin: BlockingPlugin) -> list[int]:
    """Return the plugin's process and all that it has started, as the host numbers them."""
    found = processes_of(plugin.receipt.pid)
    return [plugin.receipt.pid, *sorted(found)]


# -- admission ------------------------------------------------------------------------------------


def test_what_is_not_granted_is_refused(workshop: Workshop, host: BlockingHost) -> None:
    with pytest.raises(AdmissionError) as caught:
        host.load(workshop.write(SOURCE, permissions=PERMISSIONS))
    assert str(caught.value) == (
        "Plugin sample is not admitted: plugin.json: permissions.subprocess: starting processes is "
        "not granted. To grant it, write in the host's TOML under "
        '[grants."sample"]: subprocess = true.'
    )


@pytest.mark.parametrize("layer", NEEDED)
def test_what_nothing_would_count_or_confine_is_refused(workshop: Workshop, layer: str) -> None:
    everything = [*Guarantee, layer]
    config = workshop.config(grants=GRANTS, disable_layers=[layer], accept_missing=everything)
    with SandboxHost.blocking(config) as host:
        with pytest.raises(AdmissionError, match="to start processes") as caught:
            host.load(workshop.write(SOURCE, permissions=PERMISSIONS))
        assert layer in str(caught.value)


@pytest.mark.skipif(bool(ordinary_user.why_not()), reason=ordinary_user.why_not())
def test_host_of_an_ordinary_user_without_a_group_refuses_it() -> None:
    with ordinary_user.readable_copy() as root:
        told = ordinary_user.run_module(plugin_processes.__name__, root, timeout=50)
    assert told.startswith("AdmissionError: ")
    assert "cgroup is missing" in told


def test_receipt_says_what_is_less(start: Start) -> None:
    receipt = start().receipt
    (entry,) = (one for one in receipt.permissions if one.name == "subprocess")
    assert entry.value == "forks, and its own interpreter"
    assert "tried: allowed" in entry.mechanism
    assert "Landlock, tried: EACCES, EACCES" in entry.mechanism
    assert receipt.guarantees == standing(receipt.active, starts_processes=True)
    kept = {one.guarantee: one for one in receipt.guarantees}
    assert kept[Guarantee.PROGRAMS].status is LayerStatus.DEGRADED
    assert "its own interpreter only" in kept[Guarantee.PROGRAMS].detail
    assert Layer.CGROUP in kept[Guarantee.CPU].detail


# -- what works -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "arguments", "answer"),
    [
        ("fork", (), [b"hello", 7]),
        ("return_in_a_copy", (), "the plugin"),
        ("run", ("print(6 * 7)",), [0, "42\n", ""]),
        ("posix_spawn", (), 5),
        ("kill_what_runs", (), -signal.SIGKILL),
        ("process", ("fork",), ["by pipe", "by queue", 0]),
        ("process", ("spawn",), ["by pipe", "by queue", 0]),
        ("pool", ("fork",), [1, 4, 9]),
        ("executor", ("fork",), [1, 4, 9]),
        ("executor", ("spawn",), [1, 4, 9]),
        ("shared_value", (), 3),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_granted(start: Start, operation: str, arguments: tuple[Any, ...], answer: Any) -> None:
    plugin = start()
    assert plugin.call(operation, *arguments, deadline=LATE) == answer
    assert plugin.call("echo", 1) == 1
    assert plugin.cause is None
    assert len(members(plugin)) <= 2  # spawning leaves one that sees to what has a name


def test_threads_are_another_permission(workshop: Workshop, granting: BlockingHost) -> None:
    plugin = granting.load(workshop.write(SOURCE, permissions={"subprocess": True}))
    assert plugin.call("run", "print(1)", deadline=LATE) == [0, "1\n", ""]
    assert plugin.call("process", "fork", deadline=LATE) == ["by pipe", "by queue", 0]
    with pytest.raises(Exception, match="can't start new thread"):
        plugin.call("pool", "fork", deadline=LATE)


def test_only_the_plugin_itself_speaks_to_the_host(
    workshop: Workshop, granting: BlockingHost
) -> None:
    permissions = PERMISSIONS | {"publish": ["model_updated"]}
    plugin = granting.load(workshop.write(SOURCE, permissions=permissions))
    assert plugin.call("publish_in_a_copy") == errno.EPIPE
    assert plugin.call("echo", 1) == 1


def test_only_the_plugin_itself_asks_for_connections(workshop: Workshop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        permissions = PERMISSIONS | {"network": [f"127.0.0.1:{port}"]}
        with SandboxHost.blocking(workshop.config(grants={"sample": permissions})) as host:
            plugin = host.load(workshop.write(SOURCE, permissions=permissions))
            assert plugin.call("connect", port, copy=True, deadline=LATE) == errno.EPERM
            assert plugin.call("connect", port, deadline=LATE) == port


def test_output_of_children_is_in_the_log(start: Start, granting: BlockingHost) -> None:
    plugin = start()
    assert plugin.call("spawn_without_pipes", "print('said by a child')", deadline=LATE) == 0
    assert eventually(lambda: "said by a child" in "\n".join(plugin._process.log_tail(50)))


def test_child_that_crashes_is_a_child_that_crashed(start: Start) -> None:
    plugin = start()
    code = "import ctypes; ctypes.string_at(1)"
    status, _, _ = plugin.call("run", code, deadline=LATE)
    assert status == -signal.SIGSEGV
    assert plugin.call("echo", 1) == 1
    assert not [name for name in plugin.call("scratch") if "core" in name]


def test_orphans_are_collected(start: Start) -> None:
    """More of them than it may have tasks, and none of them takes what the plugin waits for."""
    assert start(threads=20).call("orphans", 40, deadline=LATE) == 3


# -- other programs -------------------------------------------------------------------------------


class TestPrograms:
    """Its interpreter is the one program that it executes, however it comes by another."""

    def test_they_run_without_the_sandbox(self, tmp_path: Path) -> None:
        copy = Path(shutil.copy(TRUE, tmp_path))
        assert subprocess.run([copy], check=False).returncode == 0
        assert subprocess.run([LOADER[os.uname().machine], copy], check=False).returncode == 0

    def test_one_that_it_may_read(self, workshop: Workshop, tmp_path: Path) -> None:
        directory = tmp_path / "granted"
        directory.mkdir(mode=0o755)
        tmp_path.chmod(0o755)
        program = shutil.copy(TRUE, directory)
        permissions = PERMISSIONS | {"read": [str(directory)]}
        config = workshop.config(grants={"sample": permissions})
        with SandboxHost.blocking(config) as host:
            plugin = host.load(workshop.write(SOURCE, permissions=permissions))
            assert plugin.call("execute", program, deadline=LATE) == errno.EACCES
            loader = LOADER[os.uname().machine]
            # It is executed, and may not map the file as code: 127 is its word for that.
            assert plugin.call("execute", loader, program, deadline=LATE) == 127
            written = plugin.call("execute_what_it_wrote", program, deadline=LATE)
            assert written == errno.EACCES
            assert plugin.call("execute_what_it_wrote", program, loader, deadline=LATE) == 127

    def test_shell_and_scripts_and_libraries_and_memory(self, start: Start) -> None:
        plugin = start()
        assert plugin.call("execute", "/bin/sh", deadline=LATE) == errno.ENOENT
        assert plugin.call("execute_what_it_wrote", deadline=LATE) == errno.EACCES
        library = os.path.realpath("/lib64/libc.so.6")
        if os.path.exists(library):
            assert plugin.call("execute", library, deadline=LATE) == errno.EACCES
        assert plugin.call("execute_memory", deadline=LATE) == errno.EPERM


# -- budgets --------------------------------------------------------------------------------------


def ended(plugin: BlockingPlugin) -> Cause | None:
    """Return its cause, once it has ended with all that it started."""
    assert plugin._process.ended.wait(20)
    return plugin.cause


class TestBudgets:
    """They hold for all processes together."""

    def test_fork_bomb(self, start: Start) -> None:
        plugin = start(threads=10)
        with pytest.raises(BudgetExceededError) as caught:
            plugin.call("bomb", deadline=LATE)
        assert caught.value.budget == "threads"
        assert ended(plugin) is Cause.THREADS
        assert plugin.usage().threads_peak <= 10 + TASKS_HEADROOM

    def test_memory_of_a_child(self, start: Start) -> None:
        plugin = start(memory="100 MiB")
        with pytest.raises(BudgetExceededError) as caught:
            plugin.call("hog", deadline=LATE)
        assert caught.value.budget == "memory"
        assert ended(plugin) is Cause.MEMORY

    def test_memory_that_they_share_counts_once(self, start: Start) -> None:
        plugin = start(memory="150 MiB")
        source = (
            "import os, time; kept = os.urandom(60 << 20)\n"
            "for _ in range(8):\n"
            "    if os.fork() == 0: time.sleep(0.3); os._exit(0)\n"
            "for _ in range(8): os.wait()"
        )
        assert plugin.call("run", source, deadline=LATE) == [0, "", ""]
        assert plugin.call("echo", 1) == 1

    def test_cpu_time_of_children(self, start: Start) -> None:
        plugin = start(cpu_time=0.5)
        with pytest.raises(BudgetExceededError) as caught:
            plugin.call("spin_in_children", 2, deadline=LATE)
        assert caught.value.budget == "cpu"
        assert ended(plugin) is Cause.CPU
        assert 0.5 <= plugin.usage().cpu_seconds < 1.5

    def test_cpu_time_of_what_outlives_its_operation(self, start: Start) -> None:
        plugin = start(cpu_time=0.3)
        plugin.call("leave_spinning", deadline=LATE)
        assert ended(plugin) is Cause.CPU
        assert "background" in plugin._process.cause_text

    def test_cpu_time_of_its_whole_life(self, workshop: Workshop) -> None:
        """RLIMIT_CPU is one process's, and none of these comes near it."""
        config = workshop.config(grants=GRANTS, ceilings=Limits(cpu_total_seconds=1))
        with SandboxHost.blocking(config) as host:
            plugin = host.load(workshop.write(SOURCE, permissions=PERMISSIONS))
            with pytest.raises(BudgetExceededError) as caught:
                plugin.call("short_lives", 100, 0.2, deadline=LATE)
            assert caught.value.budget == "cpu_total"
            assert ended(plugin) is Cause.CPU
            assert plugin.usage().cpu_seconds < 3.0

    def test_disk_that_a_child_holds_without_a_name(self, start: Start) -> None:
        plugin = start(data="2 MiB")
        plugin.call("write_in_a_daemon", 8 << 20, deadline=LATE)
        assert ended(plugin) is Cause.DISK


# -- stopping and ending --------------------------------------------------------------------------


def states(pids: list[int]) -> set[str]:
    """Return the states of the processes, as proc_pid_stat(5) has them."""
    return {procfs.parse_stat(procfs.read(pid, "stat")).state for pid in pids}


def test_all_of_them_are_stopped_and_go_on(start: Start) -> None:
    plugin = start(cpu_time=60)
    for _ in range(3):
        plugin.call("leave_spinning", deadline=LATE)
    everyone = members(plugin)
    assert len(everyone) == 4
    plugin._process.suspend()
    try:
        assert states(everyone) == {"T"}
    finally:
        plugin._process.resume()
    assert eventually(lambda: "T" not in states(everyone))
    assert plugin.call("echo", 1) == 1


class TestSignals:
    """None of its own tells the host of a cause that is not the true one."""

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGXCPU])
    def test_from_a_child_to_the_plugin(self, start: Start, number: int) -> None:
        plugin = start()
        assert plugin.call("signal_from_child", 1, number) == errno.EPERM
        # By the number of one of its threads, which seccomp cannot tell from another process's: the
        # kernel keeps process 1 from it.
        assert plugin.call("signal_threads_of_the_plugin", number) == [0]
        assert plugin.call("echo", 1) == 1
        assert plugin.cause is None

    @pytest.mark.parametrize("pid", [0, -1], ids=["its group", "everybody"])
    def test_to_everybody(self, start: Start, pid: int) -> None:
        plugin = start()
        # -1 is everybody but the sender and process 1: here, nobody.
        met = -signal.SIGKILL if pid == 0 else errno.ESRCH
        assert plugin.call("signal_from_child", pid, signal.SIGKILL) == met
        assert plugin.call("echo", 1) == 1
        assert plugin.cause is None

    def test_nobody_is_continued(self, start: Start) -> None:
        plugin = start()
        for pid in (1, 0, -1):
            assert plugin.call("signal_from_child", pid, signal.SIGCONT) == errno.EPERM


def test_daemon_ends_with_the_plugin(start: Start, granting: BlockingHost) -> None:
    plugin = start()
    plugin.call("leave_sleeping", deadline=LATE)
    everyone = members(plugin)
    assert len(everyone) == 2
    granting.unload("sample")
    assert plugin.cause is Cause.UNLOADED
    assert still_there(everyone) == set()


def test_daemon_ends_with_the_host(workshop: Workshop) -> None:
    bundle = workshop.write(SOURCE, permissions=PERMISSIONS)
    arguments = (str(workshop.trust_store), str(workshop.state_dir), str(bundle))
    with subprocess.Popen(
        [sys.executable, "-m", plugin_processes.__name__, *arguments],
        cwd=ordinary_user.REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as host:
        try:
            assert host.stdout is not None
            plugin = int(host.stdout.readline())
            started = processes_of(host.pid)
            assert len(processes_of(plugin)) == 1
        finally:
            host.kill()
        host.wait(timeout=20)
        assert still_there(started) == set()


def test_nothing_is_left(start: Start, granting: BlockingHost) -> None:
    plugin = start()
    plugin.call("executor", "spawn", deadline=LATE)
    child = plugin._process._child
    groups = child.group.paths  # type: ignore[attr-defined]
    assert all(path.is_dir() for path in groups)
    granting.unload("sample")
    assert not any(path.exists() for path in groups)
