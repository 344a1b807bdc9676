"""The child as a real process, with a lock-down that does nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from plugin_sdk.child.__main__ import EXIT_OUT_OF_MEMORY
from plugin_sdk.child.running import INTERRUPTED
from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.messages import (
    Call,
    Confine,
    Confined,
    Failed,
    Failure,
    Load,
    Log,
    Publish,
    Ready,
    Result,
    Stop,
    Stopped,
)
from plugin_sdk.wire.versions import OURS
from tests.support.child_session import HOOKS, HostEnd, order_payload, pipes, write_package

ROOT = Path(__file__).parents[3]
BOOT = """
import sys, types
sys.path[:0] = sys.argv[1].split(":")
fake = types.ModuleType("plugin_sdk.child.confine")
class ConfineError(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code
def apply_plan(plan, parent):
    if plan.get("fail"):
        raise ConfineError("landlock", "no such layer")
    return {"parent": parent, "modules": sorted(sys.modules), "argv": sys.argv}
fake.ConfineError, fake.apply_plan = ConfineError, apply_plan
sys.modules["plugin_sdk.child.confine"] = fake
from plugin_sdk.child.__main__ import main, prepare_streams
prepare_streams()  # as its nursery does
main(*map(int, sys.argv[2:]))
"""

Process = subprocess.CompletedProcess[bytes]

# Modules that would each cost more than the whole of the child's own code.
EXPENSIVE = {
    *("asyncio", "ctypes", "dataclasses", "enum", "functools", "inspect", "json", "logging"),
    *("pathlib", "re", "signal", "socket", "subprocess", "threading", "traceback", "typing"),
}


class Child:
    """The process as the host sees it."""

    def __init__(self, host: HostEnd, process: Future[Process], write_end: int, trace: int) -> None:
        self.host = host
        self.trace = trace
        self._process = process
        self._write_end = write_end

    def ended(self) -> Process:
        """Wait for the end; there must be nothing more on the wire."""
        ended = self._process.result(30)
        os.close(self._write_end)
        assert self.host.receive() is None
        return ended


@contextmanager
def started() -> Iterator[Child]:
    """Start a child; close the host's end afterwards, which ends it."""
    paths = f"{ROOT}:{sysconfig.get_path('purelib')}"
    with pipes(3) as (down, up, trace), ThreadPoolExecutor(1) as pool:
        numbers = [str(end) for end in (down[0], up[1], trace[1])]
        command = [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", BOOT, paths, *numbers, "7"]
        process = pool.submit(
            subprocess.run,
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=(down[0], up[1], trace[1]),
            check=False,
            timeout=50,
        )
        try:
            yield Child(HostEnd(up[0], down[1]), process, up[1], trace[0])
        finally:
            if not process.done():
                os.close(down[1])


def confine(host: HostEnd) -> dict[str, object]:
    host.send(Confine(*OURS, payload=pack({})))
    confined = host.receive()
    assert isinstance(confined, Confined)
    assert (confined.oldest, confined.newest) == OURS
    report: dict[str, object] = unpack(confined.payload)
    return report


def test_a_whole_life(tmp_path: Path) -> None:
    package = write_package(
        tmp_path,
        {
            "__init__.py": HOOKS
            + """
import os, sys, threading, time
from plugin_sdk import context, operation

print("imported", sys.argv)
threading.Thread(target=time.sleep, args=(3600,)).start()

def cleanup():
    print("cleaned \\ud800 up")
    context().log.warning("leaving")
    return True

@operation
def double(x):
    print("doubling", x)
    context().publish("data_processed", x)
    return 2 * x
"""
        },
    )
    with started() as child:
        host = child.host
        assert confine(host)["parent"] == 7
        order = order_payload(package, publish=["data_processed"])
        host.send(Load(payload=pack(order)))
        ready = host.receive()
        assert isinstance(ready, Ready)
        assert unpack(ready.payload)["metadata"] == {"name": "sample"}
        assert host.call("double", 4)[0] == Publish("data_processed", payload=pack(4))
        assert host.receive() == Result(1, payload=pack(8))
        host.send(Stop())
        assert host.receive() == Log(30, "sample", payload=pack("leaving"))
        stopped = host.receive()
        assert isinstance(stopped, Stopped)
        assert unpack(stopped.payload) == {"ok": True, "error": None}
        # A thread that sleeps for an hour does not keep the process.
        ended = child.ended()
    assert ended.returncode == 0
    assert ended.stdout.decode() == "imported ['sample']\ndoubling 4\ncleaned \\ud800 up\n"
    assert ended.stderr == b""


def test_before_the_lock_down_nothing_expensive_is_imported() -> None:
    with started() as child:
        host = child.host
        modules = confine(host)["modules"]
    assert isinstance(modules, list)
    assert EXPENSIVE.isdisjoint(modules)
    # The loader and all that follows come after the plan is applied.
    assert "plugin_sdk.child.loader" not in modules


def test_a_plugin_that_uses_the_sdk_pays_for_nothing_expensive(tmp_path: Path) -> None:
    source = (
        HOOKS + "import sys\nfrom plugin_sdk import *\nget_metadata = lambda: {'m': [*sys.modules]}"
    )
    package = write_package(tmp_path, {"__init__.py": source})
    with started() as child:
        host = child.host
        confine(host)
        host.send(Load(payload=pack(order_payload(package))))
        ready = host.receive()
        assert isinstance(ready, Ready)
        assert EXPENSIVE.isdisjoint(unpack(ready.payload)["metadata"]["m"])


@pytest.mark.parametrize(
    ("versions", "plan", "code", "told"),
    [
        (OURS, {"fail": True}, "landlock", "no such layer"),
        ((98, 99), {}, "protocol-version", "versions 98 to 99 of the protocol, the plugin's"),
    ],
    ids=["layer", "version"],
)
def test_a_lock_down_that_fails_ends_the_process(
    versions: tuple[int, int], plan: dict[str, object], code: str, told: str
) -> None:
    with started() as child:
        host = child.host
        host.send(Confine(*versions, payload=pack(plan)))
        failed = host.receive()
        assert isinstance(failed, Failed)
        assert failed.code == code
        payload = unpack(failed.payload)
        assert told in payload["message"]
        assert payload.get("versions", list(OURS)) == list(OURS)
        assert child.ended().returncode == 70


@pytest.mark.parametrize(
    ("source", "code", "type_name", "cause"),
    [
        ("print('x' * 100_000)\n1 / 0", "import", "ZeroDivisionError", "exception"),
        ("import os; raise MemoryError", "import", "MemoryError", "memory"),
        ("", "interface", None, None),
        (
            HOOKS
            + "from plugin_sdk import Model\nclass M(Model):\n  predict = property(lambda s: 1 / 0)"
            "\nm = M()",
            "interface",
            "ZeroDivisionError",
            "exception",
        ),
    ],
    ids=["raises", "memory", "no hooks", "hostile property"],
)
def test_a_plugin_that_cannot_be_loaded_is_told(
    tmp_path: Path, source: str, code: str, type_name: str | None, cause: str | None
) -> None:
    package = write_package(tmp_path, {"__init__.py": source})
    with started() as child:
        host = child.host
        confine(host)
        host.send(Load(payload=pack(order_payload(package))))
        failed = host.receive()
        assert isinstance(failed, Failed)
        told = unpack(failed.payload)
        assert failed.code == code
        assert told["message"]
        assert (told.get("type"), told.get("cause")) == (type_name, cause)
        if type_name == "ZeroDivisionError":
            assert told["place"].startswith("__init__.py:")
        assert child.ended().returncode == 73


def test_the_end_of_the_host_ends_the_process() -> None:
    with started() as child:
        host = child.host
        confine(host)
        os.close(host.send_fd)
        ended = child.ended()
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_nonsense_from_the_host_ends_the_process_with_a_word() -> None:
    with started() as child:
        host = child.host
        confine(host)
        os.write(host.send_fd, b"\xff" * 8)
        ended = child.ended()
    assert ended.returncode == 71
    assert b"the host broke the protocol" in ended.stderr


def test_a_late_operation_is_interrupted_and_the_plugin_goes_on(tmp_path: Path) -> None:
    source = (
        HOOKS
        + """
import os
from plugin_sdk import operation

@operation
def pid():
    return os.getpid()

@operation
def spin():
    while True:
        try:
            while True:
                pass
        except Exception:
            continue
"""
    )
    package = write_package(tmp_path, {"__init__.py": "", "main.py": source})
    with started() as child:
        host = child.host
        confine(host)
        host.send(Load(payload=pack(order_payload(package))))
        assert isinstance(host.receive(), Ready)
        pid = host.call("pid")[1]
        # Nothing runs, or nothing is late: the signal means nothing.
        os.kill(pid, signal.SIGUSR2)
        assert host.call("pid")[1] == pid
        with ThreadPoolExecutor(1) as pool:
            deadline = time.monotonic_ns() + 50_000_000
            spinning = pool.submit(host.call_raw, "spin", pack([[], {}]), deadline)
            until = time.monotonic() + 20
            while not spinning.done() and time.monotonic() < until:
                os.kill(pid, signal.SIGUSR2)
                time.sleep(0.01)
            failure, told = spinning.result(1)
        assert isinstance(failure, Failure)
        assert failure.code == INTERRUPTED
        assert told["place"].endswith("in spin")
        assert host.call("pid")[1] == pid


@pytest.mark.parametrize("size", [16, 1 << 10, 1 << 16, 1 << 24])
def test_a_plugin_that_keeps_all_memory_is_told_and_goes_on(tmp_path: Path, size: int) -> None:
    source = (
        HOOKS
        + f"""
import resource
from plugin_sdk import operation

hoard = []

def init_plugin():
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    limit = used + (48 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return True

@operation
def hog():
    while True:
        hoard.append(bytearray({size}))

@operation
def release():
    hoard.clear()
    return True
"""
    )
    package = write_package(tmp_path, {"__init__.py": "", "main.py": source})
    with started() as child:
        host = child.host
        confine(host)
        host.send(Load(payload=pack(order_payload(package))))
        assert isinstance(host.receive(), Ready)
        for _ in range(2):
            try:
                failure, told = host.call("hog")
            except AssertionError:
                # With the smallest pieces the C library may have kept the last of it: then the
                # process ends with the status that stands for this, and the host tells the same.
                assert size == 16
                assert child._process.result(30).returncode == EXIT_OUT_OF_MEMORY
                return
            assert isinstance(failure, Failure)
            assert (failure.code, told["type"]) == ("memory", "MemoryError")
            assert told["place"].startswith("main.py:")
            assert host.call("release")[1] is True


def test_the_host_can_ask_where_the_plugin_stands(tmp_path: Path) -> None:
    source = (
        HOOKS
        + """
import os, re
from plugin_sdk import operation

@operation
def pid():
    return os.getpid()

@operation
def spin():
    re.fullmatch("(a+)+b", "a" * 40)
"""
    )
    package = write_package(tmp_path, {"__init__.py": "", "main.py": source})
    with started() as child:
        host = child.host
        confine(host)
        host.send(Load(payload=pack(order_payload(package))))
        assert isinstance(host.receive(), Ready)
        pid = host.call("pid")[1]
        host.send(Call(2, "spin", 0, payload=pack([[], {}])))
        os.set_blocking(child.trace, False)
        until, dump = time.monotonic() + 20, b""
        while b"in spin" not in dump and time.monotonic() < until:
            os.kill(pid, signal.SIGUSR1)
            time.sleep(0.05)
            try:
                dump += os.read(child.trace, 65536)
            except BlockingIOError:
                continue
        os.kill(pid, signal.SIGKILL)
        assert child.ended().returncode == -signal.SIGKILL
    assert b'main.py", line ' in dump
    assert b"in spin" in dump
