"""One plugin that ends in every way, and the dossier that each of them leaves.

No pytest in here: an ordinary user runs it too, see `tests.support.dossier_examples`.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from sandbox_host import BlockingHost, BlockingPlugin, HostConfig, SandboxHost
from sandbox_host.errors import PluginError, StartError
from sandbox_host.model import MIB, Cause
from sandbox_host.observe.dossier import Dossier
from sandbox_host.observe.dossiers import DossierStore
from sandbox_host.runtime import disk, mortal, warden
from sandbox_host.runtime.causes import Ending
from tests.support.host import Workshop
from tests.support.traces import PATIENCE_SECONDS, eventually

NAME = "reporter"
SOURCE = """
import stat
held = []

def work():
    time.sleep(600)

@operation
def grow():
    while len(held) < 31:
        held.append(bytearray(b"x") * (2 << 20))
        time.sleep(0.01)
    time.sleep(600)

@operation
def spin():
    while True:
        pass

@operation
def await_reading():
    while True:
        try:
            context().progress(1, 12)
            time.sleep(600)
        except BaseException as error:
            print("not yet:", type(error).__name__)

@operation
def start_threads():
    for _ in range(12):
        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.03)
    time.sleep(600)

@operation
def fill():
    with open(context().data_dir + "/readings", "wb") as file:
        file.write(os.urandom(4 << 20))
    print("stored all readings")
    time.sleep(600)

@operation
def download():
    import socket
    with socket.create_connection(("127.0.0.1", context().config["port"])) as made:
        while made.recv(65536):
            pass

@operation
def talk_nonsense():
    for descriptor in range(3, 64):
        try:
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode) and os.write(descriptor, b"nonsense"):
                break
        except OSError:
            pass
    time.sleep(600)

@operation
def call_x32():
    print("getpid, as x32 calls it")
    ctypes.CDLL(None).syscall(0x4000_0000 + 39)

@operation
def health_check():
    print("how am I?")
    context().progress(1, 2)
    while True:
        time.sleep(600)

@operation
def crash():
    ctypes.string_at(8)

@operation
def leave():
    print("nothing to report, good night")
    os._exit(3)

if context().config.get("broken"):
    raise RuntimeError("the first station does not answer")
"""
LIMITS = {"memory": 64 * MIB, "cpu_time": 1.0, "threads": 8, "data": MIB}
LIMITS_OF_CONNECTIONS = {**LIMITS, "network_bytes_per_minute": MIB}
DEADLINES = {Cause.DEADLINE: 1.0}

CALLED = {
    Cause.MEMORY: "grow",
    Cause.CPU: "spin",
    Cause.DEADLINE: "await_reading",
    Cause.CANCELLED: "await_reading",
    Cause.THREADS: "start_threads",
    Cause.DISK: "fill",
    Cause.NETWORK: "download",
    Cause.PROTOCOL_VIOLATION: "talk_nonsense",
    Cause.SYSCALL: "call_x32",
    Cause.CRASHED: "crash",
    Cause.EXITED: "leave",
}
"""Causes that the plugin can bring about by itself, and its operation that does."""

CAUSES = (*CALLED, Cause.UNRESPONSIVE, Cause.KILLED, Cause.START_FAILED, Cause.UNKNOWN)
"""All that leave a dossier, in the order of the documentation."""

X32 = platform.machine() == "x86_64"
"""Elsewhere, there is no call from Python that the filter ends a process for."""

_PATIENCE = {"STACKS_SECONDS": 20.0, "_STACKS_CPU_SECONDS": 20.0 * mortal.CORES}
_DUMPED_SECONDS = 0.3
"""How long a plugin may take to show where it stands: a busy machine must not change that."""


def produce(root: Path) -> dict[Cause, Dossier]:
    """Return the dossier of each cause, as it is read back.

    Args:
        root: a directory for host and plugin.
    """
    workshop = Workshop(root)
    with (
        mock.patch.multiple(mortal, **_PATIENCE),
        mock.patch.object(warden, "_DUMPED_SECONDS", _DUMPED_SECONDS),
        mock.patch.object(disk, "PAUSE_SECONDS", 0.2),
        _sender(3 * MIB) as port,
        SandboxHost.blocking(_granting(workshop, port)) as host,
    ):
        bundle = workshop.write(SOURCE, name=NAME, limits=LIMITS, permissions={"threads": True})
        bundles = dict.fromkeys(CALLED, bundle)
        bundles[Cause.NETWORK] = workshop.write(
            SOURCE,
            name=NAME,
            limits=LIMITS_OF_CONNECTIONS,
            permissions={"network": [f"127.0.0.1:{port}"]},
            config={"port": port},
        )
        made = {
            cause: _called(host, workshop, bundles[cause], cause)
            for cause in CALLED
            if cause is not Cause.SYSCALL or X32
        }
        plugin = _loaded(host, bundle)
        asked = plugin.start("health_check")
        assert eventually(lambda: asked.progress[0] > 0)
        # After a minute of silence, which nobody waits for here.
        text = f"{NAME} did not answer 3 health checks in a row, and works on nothing else."
        plugin._process.end(Ending(Cause.UNRESPONSIVE, text))
        made[Cause.UNRESPONSIVE] = _dossier(workshop, plugin)
        plugin = _loaded(host, bundle)
        os.kill(plugin.receipt.pid, signal.SIGKILL)
        made[Cause.KILLED] = _dossier(workshop, plugin)
        plugin = _loaded(host, bundle)
        # No plugin brings this about: only a fault of the host's does, or of the machine's.
        plugin._process.failed(RuntimeError("pretended for this example"))
        made[Cause.UNKNOWN] = _dossier(workshop, plugin)
        made[Cause.START_FAILED] = _of_a_failed_start(host, workshop)
    return made


def _granting(workshop: Workshop, port: int) -> HostConfig:
    return workshop.config(grants={NAME: {"network": [f"127.0.0.1:{port}"]}})


@contextlib.contextmanager
def _sender(size: int) -> Iterator[int]:
    """Send so many bytes to each who connects, and then nothing; yield the port."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                made, _ = server.accept()
                made.sendall(bytes(size))
                taken.append(made)

    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for made in taken:
                made.close()


def _called(host: BlockingHost, workshop: Workshop, bundle: Path, cause: Cause) -> Dossier:
    plugin = _loaded(host, bundle)
    with contextlib.suppress(PluginError):
        call = plugin.start(CALLED[cause], deadline=DEADLINES.get(cause, 50.0))
        if cause is Cause.CANCELLED:
            # Before it is at work it would simply not be run.
            assert eventually(lambda: call.progress[0] > 0)
            call.cancel()
        call.result()
    dossier = _dossier(workshop, plugin)
    (workshop.data_dir(NAME) / "readings").unlink(missing_ok=True)  # or it is ended again
    return dossier


def _loaded(host: BlockingHost, bundle: Path) -> BlockingPlugin:
    plugin = host.load(bundle)
    plugin.call("echo", "good morning")
    return plugin


def _dossier(workshop: Workshop, plugin: BlockingPlugin) -> Dossier:
    assert plugin._process.ended.wait(PATIENCE_SECONDS)
    assert plugin.dossier is not None
    return _store(workshop).read(plugin.dossier.name)


def _of_a_failed_start(host: BlockingHost, workshop: Workshop) -> Dossier:
    bundle = workshop.write(SOURCE, name=NAME, limits=LIMITS, config={"broken": True})
    store = _store(workshop)
    before = set(store.ids())
    with contextlib.suppress(StartError):
        host.load(bundle)
    assert eventually(lambda: set(store.ids()) > before)
    (new,) = set(store.ids()) - before
    return store.read(new)


def _store(workshop: Workshop) -> DossierStore:
    return DossierStore.of(workshop.config())
