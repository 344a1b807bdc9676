"""The arena: a host with a hostile plugin and its neighbour, and everything that can be attacked.

The plugin is a real one: the collection's own bytes, signed with a throw-away key, verified,
admitted, confined and called like any other. It gets small limits, whatever the operator's are, so
that exceeding them is quick and harms nobody.
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
import signal
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.bundle.contents import Contents
from sandbox_host.config import JOURNAL_NAME, TRUST_STORE_NAME
from sandbox_host.errors import ConfigError, OperationError, PluginError, SandboxHostError
from sandbox_host.model import MIB, Limits, State
from sandbox_host.runtime.blocking import BlockingPlugin
from sandbox_host.runtime.throwaway import ThrowawayHost
from sandbox_host.runtime.workspace import remove_tree
from sandbox_host.selftest import targets
from sandbox_host.selftest.collection.information_leaks import SECRET
from sandbox_host.selftest.collection.registry import ATTACKS, MODULES
from sandbox_host.selftest.control import COLLECTION, run_controls
from sandbox_host.selftest.report import Aftermath

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox_host.backends.base import Backend
    from sandbox_host.config import HostConfig
    from sandbox_host.model import Receipt
    from sandbox_host.runtime.process import PluginProcess
    from sandbox_host.selftest.report import Control

for _module in MODULES:
    importlib.import_module(f"sandbox_host.selftest.collection.{_module}")

LIMITS: Final = Limits(
    memory_bytes=128 * MIB,
    cpu_seconds=1.0,
    wall_seconds=30.0,
    descriptors=128,
    threads=16,
    file_bytes=8 * MIB,
    scratch_bytes=16 * MIB,
)
"""Of the attacked plugin."""

ENDED: Final = "ended:"
"""The outcome of an attack that the host ended; the cause follows."""

_ATTEMPT_SECONDS: Final = 20.0
_DYING_SECONDS: Final = 5.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGIO)

_MAIN: Final = f"""
import os
import plugin_sdk
import {targets.MARKER}
from plugin_sdk import context, operation
from . import {", ".join(MODULES)}
from .registry import outcome_of

@operation
def attempt(name, target):
    own = {{
        "own": context().scratch_dir,
        "data": context().data_dir,
        "own_code": os.path.dirname(__file__),
        "sdk": os.path.dirname(os.path.dirname(plugin_sdk.__file__)),
        "environment": os.path.dirname({targets.MARKER}.__file__),
    }}
    return outcome_of(name, {{**target, **own}})
"""
_NEIGHBOUR: Final = """
from plugin_sdk import context, operation

with open(context().data_dir + "/private.txt", "w") as file:
    file.write("private")

@operation
def echo(value):
    return value
"""


class Arena:
    """See the module. Made by `open_arena`.

    Attributes:
        controls: per attack what it met without the sandbox.
        received: signals that reached the host while attacks were made inside.
        receipt: what confines the attacked plugin.
    """

    def __init__(self, host: ThrowawayHost, root: Path, target: dict[str, Any]) -> None:
        self._host = host
        self._root = root
        self.received: list[int] = []
        self._hostile = _hostile()
        self._neighbour = host.load_contents(_contents("neighbour", {"main.py": _NEIGHBOUR}))
        self._process = host.load_contents(self._hostile)
        self._pids = [self._neighbour.receipt.pid, self._process.receipt.pid]
        self.receipt: Receipt = self._process.receipt
        self._target = {**target, **self._other(), "limits": asdict(self._process.plan.limits)}
        self.controls = self._run_controls()
        self._outside = targets.make_outside(root / "outside-inside")
        self._watched = (self._outside, root / "environment", self._process.places.sdk_dir)
        self._before = [targets.picture(path) for path in self._watched]

    def _other(self) -> dict[str, Any]:
        """Return where the neighbour and the host keep what is theirs."""
        places = self._neighbour.places
        state_dir = places.data_dir.parents[1]
        return {
            "host_pid": targets.host_number(),  # again: by now it has threads
            "neighbour_pid": self._neighbour.receipt.pid,
            "neighbours": [places.scratch_dir.name, "control-data"],
            "other_data": str(places.data_dir / "private.txt"),
            "other_code": str(places.package_dir / "main.py"),
            "journal": str(state_dir / JOURNAL_NAME),
            "trust_store": str(state_dir.parent / TRUST_STORE_NAME),
        }

    def _run_controls(self) -> dict[str, Control]:
        own = {name: self._root / f"control-{name}" for name in ("own", "data", "sdk")}
        for path in own.values():
            path.mkdir()
        own["environment"] = targets.make_environment(self._root / "control-environment")
        own["outside"] = targets.make_outside(self._root / "control-outside")
        own["own_code"] = self._root / "control-code" / "attacks"
        target = {**self._target, **{name: str(path) for name, path in own.items()}}
        keep = (target["secret_fd"], target["secret_socket"])
        return run_controls(ATTACKS, target, own["own_code"], keep)

    def attempt(self, name: str) -> str:
        """Make an attack inside the plugin; return its outcome.

        Raises:
            SandboxHostError: the plugin had ended, and cannot be started again.
        """
        if self._process.state is not State.READY:
            self._process = self._host.load_contents(self._hostile)
            self._pids.append(self._process.receipt.pid)
        target = {**self._target, "outside": str(self._outside)}
        try:
            met = BlockingPlugin(self._process).call(
                "attempt", name, target, deadline=_ATTEMPT_SECONDS
            )
        except OperationError as error:
            return error.type_name
        except PluginError as error:
            self._process.ended.wait(_DYING_SECONDS)
            cause = self._process.cause
            return f"{ENDED}{cause}" if cause else type(error).__name__
        return str(met)

    @property
    def plugin(self) -> PluginProcess:
        """The hostile one."""
        return self._process

    def aftermath(self) -> tuple[Aftermath, ...]:
        """Look at what should have been left alone."""
        changed = [
            f"{path.name}/{name}"
            for path, before in zip(self._watched, self._before, strict=True)
            for name in _differences(before, targets.picture(path))
        ]
        signals = ", ".join(signal.Signals(number).name for number in self.received)
        return (
            Aftermath("no file outside was changed", not changed, ", ".join(changed)),
            Aftermath("no signal reached the host", not signals, signals),
            Aftermath("another plugin still answers", *self._neighbour_answers()),
        )

    def _neighbour_answers(self) -> tuple[bool, str]:
        try:
            answer = BlockingPlugin(self._neighbour).call("echo", 1, deadline=_ATTEMPT_SECONDS)
        except SandboxHostError as error:
            return False, error.message
        return answer == 1, ""

    def left_behind(self) -> Aftermath:
        """Tell, when the host is closed, whether a process of a plugin is still there."""
        left = [pid for pid in self._pids if os.path.exists(f"/proc/{pid}")]
        return Aftermath("no process was left behind", not left, ", ".join(map(str, left)))


@contextmanager
def open_arena(config: HostConfig, *, backend: Backend | None = None) -> Iterator[Arena]:
    """Open a host and everything that is attacked, and remove it all afterwards.

    In the main thread, signals that attacks send to the host are caught meanwhile.

    Args:
        config: the operator's, for its interpreter and its decisions on confinement.
        backend: another than this system's, for the host's own tests.

    Raises:
        SandboxHostError: the plugin cannot be confined, or the attacks not tried without it.
    """
    with ExitStack() as stack:
        try:
            root = Path(tempfile.mkdtemp(prefix="sandbox-host-arena-")).resolve()
            stack.callback(remove_tree, root)
            target = _prepare(stack, root)
        except OSError as error:
            text = f"What is to be attacked cannot be made in {tempfile.gettempdir()}: {error}."
            remedy = "Set TMPDIR to a short path with room."
            raise ConfigError(text, remedy=remedy) from error
        decided = {
            "ceilings": LIMITS,
            "grants": {},
            "plugin_config": {},
            "plugin_environment": root / "environment",
        }
        received = _catch_signals(stack)
        hosted = config.model_copy(update=decided)
        host = stack.enter_context(ThrowawayHost(hosted, backend=backend))
        arena = Arena(host, root, target)
        arena.received = received
        yield arena


def _prepare(stack: ExitStack, root: Path) -> dict[str, Any]:
    """Make what both the attacks outside and those inside attack; return where it is."""
    secret = secrets.token_hex(16)
    os.environ[SECRET] = secret
    stack.callback(os.environ.pop, SECRET, None)
    targets.make_environment(root / "environment")
    file, unconnected = targets.leave_open(stack, root)
    return {
        **targets.facts(),
        **targets.open_sockets(stack, root),
        "secret": secret,
        "secret_fd": file,
        "secret_socket": unconnected,
    }


def _catch_signals(stack: ExitStack) -> list[int]:
    received: list[int] = []

    def receive(number: int, _frame: object) -> None:
        received.append(number)

    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            stack.callback(signal.signal, number, signal.signal(number, receive))
    return received


def _differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))


def _contents(name: str, files: dict[str, str]) -> Contents:
    about = {
        "name": name,
        "version": "1.0.0",
        "description": "A plugin of the self-test.",
        "author": "sandbox-host",
    }
    told = {**about, "dependencies": [], "capabilities": []}
    init = f"def init_plugin():\n    return True\n\ndef get_metadata():\n    return {told!r}\n"
    every = {"plugin.json": json.dumps(about), "__init__.py": init, **files}
    return Contents({path: every[path].encode() for path in sorted(every)}, None, "the self-test")


def _hostile() -> Contents:
    names = (*(f"{name}.py" for name in MODULES), "registry.py", "native.py")
    files = {name: (COLLECTION / name).read_text(encoding="utf-8") for name in names}
    return _contents("hostile", {**files, "main.py": _MAIN})
