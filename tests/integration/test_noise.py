"""Eight plugins misbehave, in turn and all at once; a ninth answers within its deadlines."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from sandbox_host import BlockingHost, BlockingPlugin, SandboxHost
from sandbox_host.errors import BudgetExceededError, PluginEndedError, PluginError
from sandbox_host.model import MIB
from tests.support.host import Workshop
from tests.support.traces import eventually

pytestmark = pytest.mark.needs("landlock", "seccomp")

DEADLINE = 5.0
"""What the ninth is given for a call that takes a tenth of a millisecond."""

NUISANCES = """
def at(name):
    return os.path.join(context().data_dir, name)

def open_files():
    held = []
    while True:
        try:
            held.append(open("/dev/null"))
        except OSError:
            held.clear()

def start_threads():
    while True:
        try:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        except RuntimeError:
            pass

def fork():
    while True:
        try:
            os.fork()
        except OSError:
            pass

def write_bytes():
    number = 0
    while True:
        number += 1
        with open(at(f"large-{number}"), "wb") as file:
            file.write(bytes(1 << 20))

def write_files():
    number = 0
    while True:
        number += 1
        os.close(os.open(at(f"small-{number}"), os.O_CREAT))

def flood_log():
    line = "x" * 8_000
    while True:
        print(line)

def flood_messages():
    while True:
        context().publish("data_processed", "noise")

def hog_memory():
    held = []
    while True:
        held.append(bytearray(b"x") * (1 << 20))

@operation
def misbehave(how):
    # Whoever asks it to stop is not heard: it must be ended.
    while True:
        try:
            globals()[how]()
        except BaseException:
            pass
"""
HOW = (
    *("open_files", "start_threads", "fork", "write_bytes"),
    *("write_files", "flood_log", "flood_messages", "hog_memory"),
)
LIMITS = {
    "memory": 64 * MIB,
    "cpu_time": 1.0,
    "wall_time": 1.5,
    "descriptors": 64,
    "threads": 16,
    "data": "16 MiB",
    "data_files": 500,
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("noise"))


@pytest.fixture(scope="module")
def host(workshop: Workshop) -> Iterator[BlockingHost]:
    with SandboxHost.blocking(workshop.config()) as opened:
        opened.load(workshop.write(name="ninth"))
        yield opened


class Ninth:
    """Calls the ninth plugin all the while, and remembers what became of it."""

    def __init__(self, plugin: BlockingPlugin) -> None:
        self._plugin = plugin
        self._done = threading.Event()
        self.times: list[float] = []
        self.faults: list[PluginError] = []
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        while not self._done.is_set():
            began = time.monotonic()
            try:
                assert self._plugin.call("echo", "hello", deadline=DEADLINE) == "hello"
            except PluginError as error:
                self.faults.append(error)
            self.times.append(time.monotonic() - began)
            self._done.wait(0.01)

    def __enter__(self) -> Ninth:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def misbehave(
    host: BlockingHost, workshop: Workshop, how: str, name: str, **limits: Any
) -> PluginError:
    """Load a plugin, have it misbehave until it is ended, and return what its caller was told."""
    permissions = {"publish": ["data_processed"]}
    bundle = workshop.write(
        NUISANCES,
        name=name,
        limits={**LIMITS, **limits},
        permissions=permissions,
        events=["data_processed"],
    )
    plugin = host.load(bundle)
    with pytest.raises((BudgetExceededError, PluginEndedError)) as caught:
        plugin.call("misbehave", how)
    assert plugin._process.ended.wait(20)
    assert plugin.cause in {"memory", "cpu", "deadline", "threads", "disk", "forbidden-syscall"}
    host.unload(name)
    return caught.value


@pytest.mark.parametrize("how", HOW)
def test_one(host: BlockingHost, workshop: Workshop, how: str) -> None:
    with Ninth(host.plugin("ninth")) as ninth:
        misbehave(host, workshop, how, f"{how}_alone")
    assert ninth.faults == []
    assert len(ninth.times) > 3


@pytest.mark.parametrize(
    "longer",
    [{}, pytest.param({"cpu_time": 6.0, "wall_time": 8.0}, marks=pytest.mark.soak)],
    ids=["briefly", "for long"],
)
def test_all_at_once(host: BlockingHost, workshop: Workshop, longer: dict[str, float]) -> None:
    before = psutil.Process().memory_info().rss
    with Ninth(host.plugin("ninth")) as ninth, ThreadPoolExecutor(len(HOW)) as pool:
        told = list(pool.map(lambda how: misbehave(host, workshop, how, how, **longer), HOW))
    assert ninth.faults == []
    assert len(ninth.times) > 10
    assert all(error.plugin in HOW for error in told)
    assert host.plugin("ninth").call("echo", 1) == 1
    # Of everything that eight plugins wrote, sent and printed, nothing stays with the host.
    assert psutil.Process().memory_info().rss - before < 64 * MIB


WORK = """
@operation
def work(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass

@operation
def echo(value):
    return value
"""


@pytest.mark.needs("cgroup")
def test_long_work_leaves_its_share_of_the_cpu_to_others(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = host.load(workshop.write(WORK))
        group = plugin._process._child.group  # type: ignore[attr-defined]  # a LinuxChild
        if group is None or "cpu_weight" not in group.limits():
            pytest.skip("no control group with the controller cpu")
        call = plugin.start("work", 60)
        assert eventually(lambda: group.limits()["cpu_weight"] == 10)
        call.cancel()
        assert eventually(call.done)
        assert plugin.call("echo", 1) == 1
        assert group.limits()["cpu_weight"] == 100
