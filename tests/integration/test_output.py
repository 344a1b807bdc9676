"""What a plugin prints is a log, in whatever amount, and can never touch the protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_host import BlockingHost, Cause, SandboxHost
from sandbox_host.errors import PluginEndedError
from tests.support.host import Load, Workshop

pytestmark = pytest.mark.needs("landlock", "seccomp")

MEGABYTES_10 = 10_000_000
SOAK = pytest.mark.soak


def logged(path: Path) -> bytes:
    older = path.with_name(path.name + ".1")
    return (older.read_bytes() if older.exists() else b"") + path.read_bytes()


@pytest.mark.parametrize("size", [MEGABYTES_10 // 5, pytest.param(MEGABYTES_10, marks=SOAK)])
def test_megabytes_during_import_and_during_a_call(
    host: BlockingHost, load: Load, size: int
) -> None:
    plugin = load(f"""
        print("i" * {size})

        @operation
        def spam():
            print("c" * {size})
            return "done"
    """)
    assert plugin.call("spam") == "done"
    assert plugin.call("echo", 1) == 1
    host.unload("sample")
    text = logged(plugin.log_path)
    assert text.count(b"i" * size) == 1
    assert text.count(b"c" * size) == 1


def test_log_is_bounded(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config(log_bytes="1 MB")) as host:
        plugin = host.load(workshop.write(f"print('x' * {MEGABYTES_10})"))
        assert plugin.call("echo", 1) == 1
    assert len(logged(plugin.log_path)) <= 2_200_000


def test_binary_junk_on_both_streams(host: BlockingHost, load: Load) -> None:
    plugin = load(r"""
        @operation
        def junk():
            frame = b"\x00\x00\x00\x03\x00\x00\x00\x00\x92\x07\x01"
            for descriptor in (1, 2):
                os.write(descriptor, bytes(range(256)) * 100 + frame)
            sys.stdout.buffer.write(b"\xff\xfe\x00" + b"\x1b[2J")
            print("\udc80 \U0001F600")
            return "sent"
    """)
    assert plugin.call("junk") == "sent"
    assert plugin.call("echo", [1, b"x"]) == [1, b"x"]
    host.unload("sample")
    text = logged(plugin.log_path)
    assert text.count(bytes(range(256)) * 100) == 2
    assert "\x1b" not in "".join(plugin.log_tail())


def test_text_of_a_call_is_in_the_log_when_the_plugin_was_unloaded(
    host: BlockingHost, load: Load
) -> None:
    plugin = load("""
        def cleanup():
            print("goodbye")
            return True

        @operation
        def talk():
            print("to stdout")
            print("to stderr", file=sys.stderr)
            context().log.warning("through %s", "the logger")
    """)
    plugin.call("talk")
    host.unload("sample")
    tail = plugin.log_tail()
    assert {"to stdout", "to stderr", "WARNING through the logger", "goodbye"} <= set(tail)


@pytest.mark.parametrize("closed", ["sys.stdout.close()", "os.close(1)", "sys.stdout = None"])
def test_plugin_may_lose_its_output(shared_load: Load, closed: str) -> None:
    plugin = shared_load(f"""
        @operation
        def lose():
            {closed}
            return "lost"
    """)
    assert plugin.call("lose") == "lost"
    assert plugin.call("echo", 1) == 1


GARBAGE = r"""
    import stat

    def protocol_descriptors():
        found = []
        for descriptor in range(3, 512):
            try:
                mode = os.fstat(descriptor).st_mode
            except OSError:
                continue
            if stat.S_ISFIFO(mode):
                found.append(descriptor)
        return found

    @operation
    def write_garbage(data):
        for descriptor in protocol_descriptors():
            try:
                os.write(descriptor, data)
            except OSError:
                pass
        time.sleep(30)

    @operation
    def close_all():
        for descriptor in protocol_descriptors():
            os.close(descriptor)
        time.sleep(30)

    @operation
    def leave(status):
        os._exit(status)

    @operation
    def crash(number):
        if number == signal.SIGSEGV:
            ctypes.string_at(0)
        os.abort()

    @operation
    def terminate():
        os.kill(os.getpid(), signal.SIGTERM)
        return "still here"
"""

_HEADER = {
    "zeros": bytes(64),
    "ones": b"\xff" * 64,
    "huge payload": b"\x00\x00\x00\x03\xff\xff\xff\xff",
    "huge header": b"\x7f\xff\xff\xff\x00\x00\x00\x00",
    "answer to nothing": b"\x00\x00\x00\x03\x00\x00\x00\x00\x92\x07\x63",
    "message of the host": b"\x00\x00\x00\x02\x00\x00\x00\x00\x91\x0c",
    "unknown message": b"\x00\x00\x00\x02\x00\x00\x00\x00\x91\x63",
    "result that is no msgpack": b"\x00\x00\x00\x03\x00\x00\x00\x01\x92\x07\x01\xc1",
}


@pytest.mark.parametrize("data", _HEADER.values(), ids=list(_HEADER))
def test_garbage_in_the_protocol_ends_only_that_plugin(shared_load: Load, data: bytes) -> None:
    neighbour = shared_load(name="neighbour")
    plugin = shared_load(GARBAGE)
    with pytest.raises(PluginEndedError) as caught:
        plugin.call("write_garbage", data)
    assert caught.value.cause == Cause.PROTOCOL_VIOLATION
    assert plugin._process.ended.wait(10)
    assert plugin.cause is Cause.PROTOCOL_VIOLATION
    assert neighbour.call("echo", 1) == 1
    assert shared_load(GARBAGE).call("echo", 2) == 2


def test_closing_the_protocol_and_staying_is_a_violation(shared_load: Load) -> None:
    plugin = shared_load(GARBAGE)
    with pytest.raises(PluginEndedError):
        plugin.call("close_all")
    assert plugin._process.ended.wait(10)
    assert plugin.cause is Cause.PROTOCOL_VIOLATION


@pytest.mark.parametrize("status", [0, 3])
def test_leaving_by_itself(shared_load: Load, status: int) -> None:
    plugin = shared_load(GARBAGE)
    with pytest.raises(PluginEndedError, match=f"exit status {status}") as caught:
        plugin.call("leave", status)
    assert caught.value.cause == Cause.EXITED
    assert plugin.cause is Cause.EXITED


@pytest.mark.parametrize(
    ("number", "cause"),
    [(11, Cause.CRASHED), (6, Cause.CRASHED)],
)
def test_ending_by_a_signal(shared_load: Load, number: int, cause: Cause) -> None:
    plugin = shared_load(GARBAGE)
    with pytest.raises(PluginEndedError) as caught:
        plugin.call("crash", number)
    assert caught.value.cause == cause
    assert " in crash." in str(caught.value)
    assert plugin.cause is cause


@pytest.mark.needs("pid-namespace")
def test_a_signal_to_oneself_ends_nothing(shared_load: Load) -> None:
    """Process 1 of a pid namespace is spared its own signals (pid_namespaces(7))."""
    assert shared_load(GARBAGE).call("terminate") == "still here"
