"""The arena of `tests/hostile`: what is attacked, the control without a sandbox, the attack inside.

No pytest in here: an ordinary user runs it as a script as well, see `tests.support.ordinary_user`.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cryptography

from sandbox_host import BlockingHost, BlockingPlugin, SandboxHost
from tests.hostile.attacks.registry import ATTACKS, SUCCEEDED, Attack
from tests.support.host import Workshop

MODULES = ("files", "network", "processes", "kernel")
for _module in MODULES:
    importlib.import_module(f"tests.hostile.attacks.{_module}")

ATTACKS_DIRECTORY = Path(__file__).parents[1] / "hostile" / "attacks"
SECRET = "SANDBOX_TEST_SECRET"
_HIGH_DESCRIPTOR = 700
_MAIN = """
import os
from plugin_sdk import context, operation
from . import files, kernel, network, processes
from .registry import outcome_of

@operation
def attempt(name, target):
    own = {"own": context().scratch_dir, "own_code": os.path.dirname(__file__)}
    return outcome_of(name, {**target, **own})
"""
_NEIGHBOUR = """
with open(context().data_dir + "/private.txt", "w") as file:
    file.write("private")
"""


class Arena:
    """A host with a hostile plugin and its neighbour, and everything that can be attacked.

    Attributes:
        controls: per attack what it met without the sandbox, and the signal that ended its parent.
        received: signals that reached the host while attacks ran inside.
    """

    def __init__(self, host: BlockingHost, workshop: Workshop, target: dict[str, Any]) -> None:
        self._host = host
        self._target = target
        self._bundle = workshop.write(name="hostile", files=_hostile_files())
        neighbour = host.load(workshop.write(_NEIGHBOUR, name="neighbour"))
        self.neighbour = neighbour
        target["other_data"] = str(workshop.data_dir("neighbour") / "private.txt")
        target["other_code"] = str(neighbour._process.places.package_dir / "main.py")
        self.outside = _make_outside(workshop.root / "outside-inside")
        self.before = _picture(self.outside)
        self.controls = self._run_controls(workshop.root)
        self.received: list[int] = []
        self._plugin = host.load(self._bundle)

    def _run_controls(self, root: Path) -> dict[str, tuple[str, int]]:
        own = root / "control-own"
        own.mkdir()
        code = root / "control-code" / "attacks"
        shutil.copytree(ATTACKS_DIRECTORY, code, ignore=shutil.ignore_patterns("__pycache__"))
        outside = _make_outside(root / "outside-control")
        paths = {"own": str(own), "own_code": str(code), "outside": str(outside)}
        python = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)
        done = subprocess.run(
            [python, "-I", "-S", "-B", str(code / "runner.py"), str(code)],
            input=json.dumps([sorted(ATTACKS), {**self._target, **paths}]),
            pass_fds=(self._target["secret_fd"],),
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
        assert done.returncode == 0, done.stderr
        return {name: (met, ended_by) for name, (met, ended_by) in json.loads(done.stdout).items()}

    def attempt(self, name: str) -> str:
        """Make an attack inside the plugin; return its outcome."""
        if self._plugin.state != "ready":
            self._plugin = self._host.load(self._bundle)
        target = {**self._target, "outside": str(self.outside)}
        outcome = self._plugin.call("attempt", name, target, deadline=20.0)
        assert isinstance(outcome, str)
        return outcome

    @property
    def plugin(self) -> BlockingPlugin:
        """The hostile one."""
        return self._plugin

    def unchanged(self) -> bool:
        """Tell whether everything outside is as it was before the attacks inside."""
        return _picture(self.outside) == self.before


def control_fault(attack: Attack, control: tuple[str, int]) -> str:
    """Return what is wrong with the positive control, or "" where the attack works."""
    outcome, ended_by = control
    if outcome != SUCCEEDED:
        return f"without the sandbox it met {outcome}"
    if ended_by != attack.ends_parent:
        return f"without the sandbox its parent ended by signal {ended_by}"
    return ""


def control_excused(attack: Attack) -> bool:
    """Tell whether the control may fail: for this user, or on this machine."""
    return attack.optional or (attack.root and os.geteuid() != 0)


@contextmanager
def arena(root: Path) -> Iterator[Arena]:
    """Open a host and everything that is attacked; in the main thread, for its signals."""
    with ExitStack() as stack:
        os.environ[SECRET] = "secret"
        stack.callback(os.environ.pop, SECRET)
        workshop = Workshop(root)
        target = {
            **_sockets(stack, root),
            "secret_fd": _inheritable_secret(stack, root),
            "trust_store": str(workshop.trust_store),
            "journal": str(workshop.config().journal_path),
            "site_packages": str(Path(cryptography.__file__).parents[1]),
        }
        host = stack.enter_context(SandboxHost.blocking(workshop.config()))
        opened = Arena(host, workshop, target)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGIO):
                old = signal.signal(number, lambda got, _: opened.received.append(got))
                stack.callback(signal.signal, number, old)
        yield opened


def _hostile_files() -> dict[str, str | bytes]:
    names = (*(f"{name}.py" for name in MODULES), "registry.py")
    files: dict[str, str | bytes] = {n: (ATTACKS_DIRECTORY / n).read_bytes() for n in names}
    return {**files, "main.py": _MAIN}


def _make_outside(directory: Path) -> Path:
    directory.mkdir()
    for name in ("secret.txt", "victim.txt", "to_remove.txt", "to_take.txt"):
        (directory / name).write_text("secret")
    (directory / "to_remove").mkdir()
    return directory


def _picture(directory: Path) -> list[tuple[Any, ...]]:
    found = []
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        about = (status.st_mode, status.st_uid, status.st_nlink, status.st_mtime_ns)
        found.append((path.name, content, *about))
    return found


def _inheritable_secret(stack: ExitStack, root: Path) -> int:
    path = root / "held.txt"
    path.write_text("secret")
    with path.open("rb") as file:
        # High, so that inside it cannot be one of the child's own by accident.
        descriptor = fcntl.fcntl(file.fileno(), fcntl.F_DUPFD, _HIGH_DESCRIPTOR)
    stack.callback(os.close, descriptor)
    assert os.get_inheritable(descriptor)
    return descriptor


def _sockets(stack: ExitStack, root: Path) -> dict[str, Any]:
    paths = {"unix_path": str(root / "u"), "datagram_path": str(root / "d")}
    name = f"sandbox-host-test-{os.getpid()}"
    tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    for address in (paths["unix_path"], "\0" + name):
        server = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        server.bind(address)
        server.listen()
    datagrams = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    datagrams.bind(paths["datagram_path"])
    return {**paths, "abstract_name": name, "tcp_port": tcp.getsockname()[1]}
