"""Each budget: the right cause and error, and the host and its other plugins go on answering."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from sandbox_host import BlockingHost, BlockingPlugin, Cause, SandboxHost
from sandbox_host.errors import (
    BudgetExceededError,
    DeadlineExceededError,
    OperationError,
    PluginEndedError,
    SandboxHostError,
)
from sandbox_host.model import MIB
from tests.support.host import Workshop

pytestmark = pytest.mark.needs("landlock", "seccomp")

GREEDY = """
import re

kept = []

@operation
def hog():
    mine = []
    while True:
        mine.append(bytearray(b"x") * (1 << 20))

@operation
def grab(size):
    return len(bytearray(size))

@operation
def spin():
    while True:
        pass

@operation
def long_regex():
    re.match(r"(a+)+$", "a" * 40 + "b")

@operation
def long_power():
    return (7 ** 20_000_000) % 10

@operation
def open_files(count):
    files = []
    for _ in range(count):
        files.append(open("/dev/null"))
    return len(files)

@operation
def nap(seconds):
    time.sleep(seconds)
    return "awake"

@operation
def deaf_nap():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass

@operation
def start_threads(count):
    for _ in range(count):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

@operation
def hog_later():
    threading.Thread(target=hog, daemon=True).start()

@operation
def spin_later():
    threading.Thread(target=spin, daemon=True).start()

@operation
def leave_the_main_thread():
    hog_later_and_wait = threading.Thread(target=hog, daemon=True)
    hog_later_and_wait.start()
    ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)

@operation
def write_file(size):
    with open(context().data_dir + "/large", "wb") as file:
        file.write(bytes(size))
"""
LIMITS = {
    "memory": 64 * MIB,
    "cpu_time": 0.3,
    "wall_time": "20 s",
    "descriptors": 64,
    "threads": 8,
    "file_size": MIB,
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("budgets"))


@pytest.fixture(scope="module")
def host(workshop: Workshop) -> Iterator[BlockingHost]:
    with SandboxHost.blocking(workshop.config()) as opened:
        opened.load(workshop.write(name="neighbour"))
        yield opened


@pytest.fixture
def greedy(workshop: Workshop, host: BlockingHost) -> Iterator[BlockingPlugin]:
    plugin = host.load(
        workshop.write(GREEDY, name="greedy", limits=LIMITS, permissions={"threads": True})
    )
    yield plugin
    host.unload("greedy")


@contextlib.contextmanager
def neighbour_answers(host: BlockingHost) -> Iterator[None]:
    """Call another plugin all the while; it must answer, and nothing may go wrong."""
    neighbour = host.plugin("neighbour")
    done, answers, faults = threading.Event(), [], []

    def ask() -> None:
        try:
            while not done.is_set() or len(answers) < 3:
                answers.append(neighbour.call("echo", "hello", deadline=10.0))
                done.wait(0.005)
        except SandboxHostError as error:
            faults.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert faults == []
    assert set(answers) == {"hello"}


def exceeded(
    host: BlockingHost, plugin: BlockingPlugin, operation: str, *args: object, **kwargs: float
) -> BudgetExceededError:
    """Call an operation that must exceed a budget, with the neighbour answering meanwhile."""
    with neighbour_answers(host), pytest.raises(BudgetExceededError) as caught:
        plugin.call(operation, *args, **kwargs)
    assert caught.value.plugin == "greedy"
    assert operation in str(caught.value)
    return caught.value


def test_memory(host: BlockingHost, greedy: BlockingPlugin) -> None:
    error = exceeded(host, greedy, "hog")
    assert (error.budget, error.limit, error.unit) == ("memory", 64 * MIB, "bytes")
    assert error.used is not None
    assert error.used > error.limit
    assert error.place.startswith("main.py:")
    assert error.place.endswith(" in hog")
    assert error.ended
    assert greedy.cause is Cause.MEMORY
    assert greedy.usage().memory_peak_bytes > 64 * MIB


def test_one_allocation_beyond_the_address_space_ends_only_the_operation(
    host: BlockingHost, greedy: BlockingPlugin
) -> None:
    error = exceeded(host, greedy, "grab", 4_096 * MIB)
    assert (error.budget, error.limit, error.ended) == ("memory", 64 * MIB, False)
    assert error.place.endswith(" in grab")
    assert greedy.call("echo", 1) == 1


@pytest.mark.parametrize("operation", ["spin", "long_regex", "long_power"])
def test_cpu_time(host: BlockingHost, greedy: BlockingPlugin, operation: str) -> None:
    error = exceeded(host, greedy, operation)
    assert (error.budget, error.limit, error.unit) == ("cpu", 0.3, "seconds")
    assert error.used is not None
    assert 0.3 < error.used < 3.0
    assert error.place.endswith(f" in {operation}")
    assert error.ended
    assert greedy.cause is Cause.CPU


def test_descriptors(host: BlockingHost, greedy: BlockingPlugin) -> None:
    error = exceeded(host, greedy, "open_files", 10_000)
    assert (error.budget, error.limit, error.unit) == ("descriptors", 64, "descriptors")
    assert error.place.endswith(" in open_files")
    assert not error.ended
    assert greedy.call("open_files", 20) == 20


def test_sleep_past_the_deadline_is_interrupted_and_the_plugin_goes_on(
    host: BlockingHost, greedy: BlockingPlugin
) -> None:
    error = exceeded(host, greedy, "nap", 30, deadline=0.2)
    assert isinstance(error, DeadlineExceededError)
    assert (error.budget, error.unit) == ("wall_time", "seconds")
    assert error.limit == pytest.approx(0.2)
    assert error.used is not None
    assert 0.2 <= error.used < 3.0
    assert error.place.endswith(" in nap")
    assert not error.ended
    assert greedy.call("nap", 0) == "awake"
    assert greedy.state == "ready"


def test_a_plugin_that_ignores_its_deadline_is_ended(
    host: BlockingHost, greedy: BlockingPlugin
) -> None:
    error = exceeded(host, greedy, "deaf_nap", deadline=0.2)
    assert isinstance(error, DeadlineExceededError)
    assert error.place.endswith(" in deaf_nap")
    assert error.ended
    assert error.used is not None
    assert 0.4 < error.used < 3.0
    assert greedy.cause is Cause.DEADLINE


def test_call_that_waits_behind_a_late_one_is_told_so(
    host: BlockingHost, greedy: BlockingPlugin
) -> None:
    errors: list[BudgetExceededError] = []

    def wait_in_line() -> None:
        with pytest.raises(DeadlineExceededError) as caught:
            greedy.call("echo", 1, deadline=0.1)
        errors.append(caught.value)

    first = threading.Thread(target=lambda: greedy.call("nap", 0.6))
    first.start()
    while greedy._process.channel.oldest() is None:
        pass
    second = threading.Thread(target=wait_in_line)
    second.start()
    first.join()
    second.join()
    assert [error.ended for error in errors] == [False]
    assert "waited for its turn" in str(errors[0])
    assert greedy.call("echo", 2) == 2


def test_threads(host: BlockingHost, greedy: BlockingPlugin) -> None:
    with neighbour_answers(host), contextlib.suppress(BudgetExceededError):
        greedy.call("start_threads", 20)
        greedy._process.ended.wait(10)
    assert greedy.cause is Cause.THREADS
    with pytest.raises(PluginEndedError, match="threads") as caught:
        greedy.call("echo")
    assert caught.value.cause == Cause.THREADS


def test_memory_between_operations(host: BlockingHost, greedy: BlockingPlugin) -> None:
    with neighbour_answers(host):
        greedy.call("hog_later")
        assert greedy._process.ended.wait(10)
    assert greedy.cause is Cause.MEMORY


def test_cpu_time_between_operations(host: BlockingHost, greedy: BlockingPlugin) -> None:
    with neighbour_answers(host):
        greedy.call("spin_later")
        assert greedy._process.ended.wait(20)
    assert greedy.cause is Cause.CPU


def test_main_thread_that_leaves_does_not_hide_the_others(
    host: BlockingHost, greedy: BlockingPlugin
) -> None:
    with neighbour_answers(host), pytest.raises((PluginEndedError, BudgetExceededError)):
        greedy.call("leave_the_main_thread")
    assert greedy._process.ended.wait(20)
    # Which of them is noticed first, is a matter of moments.
    assert greedy.cause in {Cause.PROTOCOL_VIOLATION, Cause.MEMORY, Cause.CPU}


def test_file_size_is_an_error_inside(host: BlockingHost, greedy: BlockingPlugin) -> None:
    with pytest.raises(OperationError, match=r"\[Errno 27\] File too large"):
        greedy.call("write_file", MIB + 1)
    assert greedy.call("write_file", MIB) is None


def test_spinning_import(workshop: Workshop, host: BlockingHost) -> None:
    bundle = workshop.write("while True: pass", name="stuck", limits={"cpu_time": 0.2})
    with neighbour_answers(host), pytest.raises(BudgetExceededError) as caught:
        host.load(bundle)
    assert caught.value.budget == "cpu"
    assert "main.py:" in caught.value.place
    assert "stuck" not in host.plugins


def test_sleeping_import(workshop: Workshop) -> None:
    other = Workshop(workshop.root / "patience")
    bundle = other.write("time.sleep(60)", name="sleepy")
    with SandboxHost.blocking(other.config(start_timeout_seconds=0.5)) as host:
        with pytest.raises(DeadlineExceededError):
            host.load(bundle)
        assert host.plugins == {}


def test_usage_is_measured(host: BlockingHost, greedy: BlockingPlugin) -> None:
    for _ in range(5):
        greedy.call("echo", "x" * 100)
    with pytest.raises(OperationError):
        greedy.call("write_file", 2 * MIB)
    usage = greedy.usage()
    assert (usage.calls, usage.failures) == (6, 1)
    assert usage.memory_peak_bytes > MIB
    assert usage.descriptors_peak >= 6
    assert usage.threads_peak >= 1
    assert usage.cpu_seconds > 0
    assert 0 < usage.p50_seconds <= usage.p99_seconds
    assert usage.bytes_in > 500
    assert usage.bytes_out > 500
