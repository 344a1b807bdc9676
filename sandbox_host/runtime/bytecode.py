"""Byte code for large plugins: compiled once, in a process of its own, for that plugin alone.

Compiling takes ten times as long as loading what was compiled, and a plugin's process can write
nothing where it could keep it. So the host has it done before the first start: by a process that
is confined as the plugin will be, with nothing granted, that imports nothing of the plugin, and
that ends when it has said what came out. The host keeps that as bytes (`bytecode_store`) and lays
it into the private copy, where the import system of the plugin's process takes it for its own
cache. It is keyed by the bundle's digest, the source's digest and the interpreter, whose magic
number is in each file: what is compiled for another is not loaded.

Whatever goes wrong here costs time, not the plugin: it starts without, and compiles for itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import select
import time
from importlib.util import MAGIC_NUMBER
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import RemoteProtocolError
from plugin_sdk.wire.limits import READ_BYTES
from plugin_sdk.wire.messages import Load, Publish
from sandbox_host.admission.plan import without_permissions
from sandbox_host.backends.base import Places
from sandbox_host.bundle import stage
from sandbox_host.bundle.contents import digest_of
from sandbox_host.bundle.names import MAX_COMPONENT_BYTES
from sandbox_host.errors import SandboxHostError
from sandbox_host.runtime.bytecode_store import MAX_ENTRY_BYTES, BytecodeStore
from sandbox_host.runtime.receipt import check_kept, with_watchdog
from sandbox_host.runtime.workspace import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from plugin_sdk.wire.message import Message
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.base import Backend, Child
    from sandbox_host.bundle.verify import VerifiedBundle
    from sandbox_host.runtime.workspace import Workspace

_log = logging.getLogger("sandbox_host")

WORTH_BYTES: Final = 256 * 1024
"""Sources below this compile faster than a process starts that could do it."""

_DIRECTORY: Final = "bytecode"
_RESULT: Final = re.compile(r"([0-9]{1,6})\.([a-z][a-z0-9.-]{0,40}[a-z0-9])", re.ASCII)
_DYING_SECONDS: Final = 2.0


class Bytecode:
    """Has plugins compiled, for one host.

    Args:
        backend: confines the process that compiles.
        workspace: where its files and what it made go.
        python: the interpreter that plugins run on.
        timeout: seconds that the process may take, from its start to its end.
    """

    def __init__(
        self, backend: Backend, workspace: Workspace, python: Path, timeout: float
    ) -> None:
        self._backend = backend
        self._workspace = workspace
        self._python = python
        self._timeout = timeout
        self._store = BytecodeStore(workspace.state_dir / _DIRECTORY)

    def of(self, plan: SandboxPlan, bundle: VerifiedBundle) -> Mapping[str, bytes]:
        """Return a bundle's byte code by the path that it has in the private copy.

        The first time it is compiled, which takes as long as that takes; what could not be, then
        or ever, is not among it. Empty where the sources are few.
        """
        sources = {path: data for path, data in bundle.files.items() if path.endswith(".py")}
        if sum(map(len, sources.values())) < WORTH_BYTES:
            return {}
        try:
            interpreter = _identity_of(self._python)
            known = self._store.get(bundle.root_digest, interpreter)
            if known is None:
                known = self._compiled(plan, bundle, list(sources))
                self._store.put(bundle.root_digest, interpreter, known)
        except (OSError, SandboxHostError) as error:
            _log.info("%s starts without byte code kept for it: %s", plan.identity, error)
            return {}
        return _placed(sources, known)

    def _compiled(
        self, plan: SandboxPlan, bundle: VerifiedBundle, paths: list[str]
    ) -> dict[str, bytes]:
        """Return byte code by ``<SHA-256 of its source>.<tag>``, as the store keeps it.

        Raises:
            SandboxHostError: no process could be started that is confined as planned.
        """
        until = time.monotonic() + self._timeout
        bare = without_permissions(plan)
        with contextlib.ExitStack() as undo:
            places = self._places(bare.identity, bundle, undo)
            child, attested = self._backend.start(bare, places, self._timeout)
            undo.callback(_end, child)
            check_kept(with_watchdog(attested, bare.limits, self._timeout), bare)
            order = {"package_dir": str(places.package_dir), "compile": paths}
            child.connection.send(Load(payload=codec.pack(order)))
            made = _results(child, paths, until)
        return {
            f"{digest_of(bundle.files[path])}.{tag}": data for (path, tag), data in made.items()
        }

    def _places(self, identity: str, bundle: VerifiedBundle, undo: contextlib.ExitStack) -> Places:
        """Return places of which none outlives the process, the data directory included."""
        package_dir = stage.stage(bundle, self._workspace.bundles)
        undo.callback(stage.remove, package_dir)
        own = [self._workspace.scratch_dir(identity) for _ in range(2)]
        for path in own:
            undo.callback(remove_tree, path)
        return Places(
            python=self._python,
            sdk_dir=self._workspace.sdk_dir,
            package_dir=package_dir,
            data_dir=own[0],
            scratch_dir=own[1],
            canary=self._workspace.canary,
        )


def _identity_of(python: Path) -> str:
    """Return what is another when the interpreter is.

    Raises:
        OSError: it cannot be looked at.
    """
    status = python.stat()
    # Our own magic number says nothing of another interpreter; its own is in what it compiles.
    told = f"{os.path.realpath(python)}\0{status.st_size}\0{status.st_mtime_ns}\0"
    return hashlib.sha256(os.fsencode(told) + MAGIC_NUMBER).hexdigest()[:16]


def _results(child: Child, paths: list[str], until: float) -> dict[tuple[str, str], bytes]:
    """Return what came back, by path and tag.

    A process that dies of a source, or is late, has said something before; that counts.
    """
    made: dict[tuple[str, str], bytes] = {}
    try:
        for message in _messages(child, until):
            if not isinstance(message, Publish):
                break
            match = _RESULT.fullmatch(message.event_type)
            if match is None or int(match[1]) >= len(paths):
                break
            made[paths[int(match[1])], match[2]] = message.payload
    except (OSError, RemoteProtocolError) as error:
        _log.info("the process that compiles a plugin broke off: %s", error)
    return made


def _messages(child: Child, until: float) -> Iterator[Message]:
    """Send what is queued; yield what comes until the process ends, is late or says too much."""
    data = child.connection.data_to_send()
    room = 2 * MAX_ENTRY_BYTES
    poller = select.poll()
    for end in (child.receive_fd, *child.log_fds):
        poller.register(end, select.POLLIN)
    poller.register(child.send_fd, select.POLLOUT)
    while (left := until - time.monotonic()) > 0 and room > 0:
        for end, _ in poller.poll(left * 1_000):
            if end == child.send_fd:
                data = data[os.write(end, data) :]
                if not data:
                    poller.unregister(end)
                continue
            chunk = os.read(end, READ_BYTES)  # what it prints is read too, lest it wait for that
            if end == child.receive_fd and chunk:
                room -= len(chunk)
                child.connection.receive_data(chunk)
                yield from child.connection.events_received()
            elif not chunk:
                poller.unregister(end)
                if end == child.receive_fd:
                    return


def _placed(sources: Mapping[str, bytes], known: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return byte code by the path at which the import system looks for it."""
    by_digest = {name.partition(".")[0]: (name.partition(".")[2], known[name]) for name in known}
    placed: dict[str, bytes] = {}
    for path, source in sources.items():
        tag, data = by_digest.get(digest_of(source), ("", b""))
        here = PurePosixPath(path)
        name = f"{here.stem}.{tag}.pyc"
        if tag and len(name.encode()) <= MAX_COMPONENT_BYTES:
            placed[str(here.parent / "__pycache__" / name)] = data
    return placed


def _end(child: Child) -> None:
    child.kill()
    if child.wait(_DYING_SECONDS) is not None:
        child.close()
