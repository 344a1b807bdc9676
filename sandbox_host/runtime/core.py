"""The host itself: blocking and thread-safe. `host` and `blocking` are its two faces."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.limits import EVENT
from plugin_sdk.wire.messages import Ready
from sandbox_host.admission.plan import admit
from sandbox_host.admission.policy import Policy
from sandbox_host.backends.base import Places
from sandbox_host.backends.select import select_backend
from sandbox_host.broker.broker import Broker
from sandbox_host.broker.topics import may_publish
from sandbox_host.bundle import stage
from sandbox_host.bundle.reader import read_directory
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.verify import verify
from sandbox_host.errors import (
    AlreadyLoadedError,
    AttestationError,
    ConfigError,
    ConfinementError,
    PluginError,
    PluginNotFoundError,
    RefusedError,
    SandboxHostError,
    StartError,
    UsageError,
)
from sandbox_host.model import Cause, Event, Layer, LayerReport, LayerStatus, State, identity_of
from sandbox_host.observe.journal import Journal
from sandbox_host.runtime import answers
from sandbox_host.runtime.causes import Ending
from sandbox_host.runtime.interface import check_ready
from sandbox_host.runtime.keeper import IDLE_SECONDS, Keeper
from sandbox_host.runtime.lifecycle import ENDED
from sandbox_host.runtime.process import PluginProcess
from sandbox_host.runtime.workspace import Workspace, remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plugin_sdk.wire.messages import Message
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.base import Backend, Child
    from sandbox_host.broker.queues import Subscription
    from sandbox_host.bundle.verify import VerifiedBundle
    from sandbox_host.config import HostConfig

_log = logging.getLogger("sandbox_host")

HOST: Final = "host"

_STOPPERS: Final = 16
_PAUSE_SECONDS: Final = 0.01
_DYING_SECONDS: Final = 2.0

_open_hosts: weakref.WeakSet[HostCore] = weakref.WeakSet()


def _forget_hosts() -> None:
    for host in list(_open_hosts):
        host.forget()


# A fork copies the memory, not the threads: the copy must not stop the original's plugins.
os.register_at_fork(after_in_child=_forget_hosts)


class HostCore:
    """Loads, confines, calls, accounts for and unloads plugins.

    Args:
        config: the operator's decisions.
        backend: another than this system's, for the host's own tests.
    """

    def __init__(self, config: HostConfig, backend: Backend | None = None) -> None:
        self.config = config
        self._backend = backend
        self._lock = threading.RLock()
        self._plugins: dict[str, PluginProcess] = {}
        self._starting: set[str] = set()
        self._opened = False
        self._accepting = False
        self._copied = False

    # -- life of the host -------------------------------------------------------------------

    def open(self) -> None:
        """Make the directories, the journal and the keeper.

        Raises:
            ConfinementError: this system has no backend.
            ConfigError: a directory cannot be used.
            JournalError: the journal cannot be written.
        """
        if self._opened:
            text = "A host is opened once; make another."
            raise UsageError(text)
        environment = self.config.plugin_environment
        if environment is not None and not environment.is_dir():
            text = f"The plugin environment {environment} is no directory."
            remedy = "Make it with `pip install --target`, or leave plugin_environment out."
            raise ConfigError(text, remedy=remedy)
        self._backend = self._backend or select_backend()
        self._policy = Policy.from_config(self.config)
        with contextlib.ExitStack() as made:
            self._workspace = Workspace(self.config.state_dir)
            made.callback(self._workspace.close)
            self._journal = Journal(self.config.journal_path)
            made.callback(self._journal.close)
            self._journal.append("host_started", detail=f"pid {os.getpid()}")
            self._broker = Broker(lambda: datetime.now(UTC).timestamp(), self.config.event_queue)
            made.callback(self._broker.close)
            self._keeper = Keeper(self.config.sweep_seconds)
            made.callback(self._keeper.close)
            self._closing_steps = made.pop_all()
        self._opened = self._accepting = True
        _open_hosts.add(self)

    def close(self) -> None:
        """Unload everything, in parallel, within the stop timeout; then remove what is ours.

        All of it is done whatever fails on the way. In a forked copy of the process nothing is:
        plugins and directories belong to the original.
        """
        if not self._opened:
            return
        self._opened = self._accepting = False
        if self._copied:
            return
        with self._closing_steps:
            self._stop_all()
            with contextlib.suppress(SandboxHostError):
                self._journal.append("host_stopped")

    def _stop_all(self) -> None:
        timeout = self.config.stop_timeout_seconds
        until = time.monotonic() + self.config.start_timeout_seconds + timeout
        while True:
            with self._lock:
                starting, running = self._starting, list(self._plugins.values())
            alive = [process for process in running if not process.ended.is_set()]
            if alive:
                with ThreadPoolExecutor(min(_STOPPERS, len(alive))) as pool:
                    list(pool.map(lambda p: p.stop(timeout, Cause.HOST_SHUTDOWN), alive))
            elif not starting or time.monotonic() > until:
                return
            else:
                time.sleep(_PAUSE_SECONDS)  # a load is between verification and its process

    def _check_open(self) -> None:
        if self._copied:
            text = "This host belongs to the process that this one was forked from."
            raise UsageError(text, remedy="Make a host of its own after the fork.")
        if not self._accepting:
            text = "The host is not open; use it in a `with` block."
            raise UsageError(text)

    def forget(self) -> None:
        """Belong to nobody: this is a forked copy, and threads and children are the original's."""
        self._copied = True
        for process in self._plugins.values():
            process.copied = True

    # -- plugins ----------------------------------------------------------------------------

    def load(self, path: str | os.PathLike[str]) -> PluginProcess:
        """Verify, admit, confine, attest and start the plugin in a directory.

        Raises:
            RefusedError: it was not admitted; nothing of it was executed.
            TrustStoreError: the trust store cannot be used; nothing was executed.
            ConfinementError: a layer of confinement is missing; nothing was executed.
            AttestationError: it was not confined as planned; nothing was executed.
            PluginError: it was admitted, and did not become ready.
        """
        self._check_open()
        directory = Path(path)
        try:
            bundle = self._verify(directory)
            plan = self._admit(bundle)
        except (RefusedError, ConfinementError) as error:
            self._journal.append("refused", detail=f"{directory}: [{error.code}] {error.message}")
            raise
        with self._reserved(plan.identity):
            process = self._start(plan, bundle)
            try:
                self._become_ready(process)
                layers = ", ".join(process.receipt.active)
                detail = f"pid {process.receipt.pid}, layers {layers}"
                self._journal.append("started", plan.identity, detail)
            except BaseException as error:
                self._give_up(process, error)
                raise
        self._tell("plugin_loaded", {"plugin": plan.identity})
        return process

    def _verify(self, directory: Path) -> VerifiedBundle:
        contents = read_directory(directory)
        trust = TrustStore.load(self.config.trust_store)
        return verify(contents, trust, datetime.now(UTC))

    def _admit(self, bundle: VerifiedBundle) -> SandboxPlan:
        assert self._backend is not None  # noqa: S101 - open() set it
        offers = self._backend.offers()
        offered = {offer.layer for offer in offers if offer.status is LayerStatus.ACTIVE}
        plan = admit(bundle, self._policy, frozenset(offered | {Layer.WATCHDOG}), frozenset(Layer))
        self._journal.append(
            "admitted", plan.identity, f"root {plan.root_digest}, key {plan.key_id}"
        )
        for layer in plan.accepted_missing:
            _log.warning("%s runs without %s, as the operator accepted", plan.identity, layer)
            self._journal.append("layer_missing", plan.identity, layer)
        for note in plan.notes:
            _log.warning("%s: %s", plan.identity, note)
        return plan

    @contextlib.contextmanager
    def _reserved(self, identity: str) -> Iterator[None]:
        """Hold the name while it is loaded, so that two loads of one plugin cannot both start."""
        with self._lock:
            self._check_open()
            current = self._plugins.get(identity)
            if identity in self._starting or (current and current.state not in ENDED):
                text = f"{identity} is loaded already."
                remedy = "Unload it first; two names of one snake-case form are one plugin."
                raise AlreadyLoadedError(text, plugin=identity, remedy=remedy)
            self._starting.add(identity)
        try:
            yield
        finally:
            with self._lock:
                self._starting.discard(identity)

    def _start(self, plan: SandboxPlan, bundle: VerifiedBundle) -> PluginProcess:
        """Return the plugin's process, confined, attested and watched; nothing imported yet."""
        assert self._backend is not None  # noqa: S101 - open() set it
        identity = plan.identity
        with contextlib.ExitStack() as undo:
            package_dir = stage.stage(bundle, self._workspace.bundles)
            undo.callback(stage.remove, package_dir)
            places = self._places(identity, package_dir)
            undo.callback(remove_tree, places.scratch_dir)
            try:
                timeout = self.config.start_timeout_seconds
                child, receipt = self._backend.start(plan, places, timeout)
            except (ConfinementError, AttestationError) as error:
                _log.error("%s", error)
                self._journal.append("start_failed", identity, f"[{error.code}] {error.message}")
                raise
            undo.callback(_end_child, child)
            process = PluginProcess(
                plan,
                places,
                child,
                replace(receipt, layers=(*receipt.layers, self._watchdog())),
                keeper=self._keeper,
                config=self.config,
                log_path=self._workspace.log_path(identity),
                on_publish=self._published,
                on_handler_error=self._handler_failed,
                on_ended=self._ended,
            )
            undo.pop_all()
        with self._lock:
            self._plugins[identity] = process
        return process

    def _watchdog(self) -> LayerReport:
        pace, idle = self.config.sweep_seconds * 1e3, IDLE_SECONDS * 1e3
        watched = "memory, CPU time, threads and deadlines"
        detail = f"{watched}, every {pace:g} ms (idle: {idle:g} ms)"
        return LayerReport(Layer.WATCHDOG, LayerStatus.ACTIVE, detail)

    def _give_up(self, process: PluginProcess, error: BaseException) -> None:
        """End a plugin that did not become ready, and forget it."""
        identity = process.identity
        text = f"{identity} did not start: {type(error).__name__}."
        process.end(Ending(Cause.START_FAILED, text), at_once=True)
        process.ended.wait(self.config.stop_timeout_seconds)
        with self._lock:
            if self._plugins.get(identity) is process:
                del self._plugins[identity]
        with contextlib.suppress(SandboxHostError):
            self._journal.append("start_failed", identity, str(error)[:500])

    def _places(self, identity: str, package_dir: Path) -> Places:
        from_config = self.config.python
        return Places(
            python=from_config or _base_python(),
            sdk_dir=self._workspace.sdk_dir,
            package_dir=package_dir,
            data_dir=self._workspace.data_dir(identity),
            scratch_dir=self._workspace.scratch_dir(identity),
            canary=self._workspace.canary,
            plugin_environment=self.config.plugin_environment,
        )

    def _become_ready(self, process: PluginProcess) -> None:
        plan, places = process.plan, process.places
        environment = places.plugin_environment
        order = {
            "identity": plan.identity,
            "package_dir": str(places.package_dir),
            "sys_path": [str(environment)] if environment else [],
            "config": dict(plan.config),
            "data_dir": str(places.data_dir),
            "scratch_dir": str(places.scratch_dir),
            "events": list(plan.manifest.events),
            "publish": list(plan.permissions.publish),
        }
        answer = process.load(order, self.config.start_timeout_seconds)
        payload = _start_payload(plan.identity, answer)
        if not isinstance(answer, Ready):
            raise _start_error(plan.identity, payload)
        interface = check_ready(plan.manifest, payload)
        for warning in interface.warnings:
            _log.warning("%s: %s", plan.identity, warning)
        process.ready(interface)
        self._broker.register(interface.handles, process.deliver)
        if process.ended.is_set():  # it unregistered before it was registered
            self._broker.unregister(process.deliver)

    def get(self, name: str) -> PluginProcess:
        """Return the plugin of that name, in whichever spelling; it may have ended.

        Raises:
            PluginNotFoundError: none of that name is loaded.
        """
        identity = identity_of(name)
        with self._lock:
            process = self._plugins.get(identity)
            loaded = ", ".join(sorted(self._plugins)) or "none"
        if process is None:
            text = f"No plugin named {name!r} is loaded; there are: {loaded}."
            raise PluginNotFoundError(text, plugin=identity, remedy="Load it first.")
        return process

    def plugins(self) -> list[PluginProcess]:
        """Return all loaded plugins, those that failed included, by name."""
        with self._lock:
            return [process for _, process in sorted(self._plugins.items())]

    def unload(self, name: str) -> None:
        """Let the plugin finish, clean up and leave; end it at the stop timeout.

        Raises:
            PluginNotFoundError: none of that name is loaded.
        """
        self._check_open()
        process = self.get(name)
        process.stop(self.config.stop_timeout_seconds, Cause.UNLOADED)
        with self._lock:
            if self._plugins.get(process.identity) is process:
                del self._plugins[process.identity]

    # -- events -----------------------------------------------------------------------------

    def publish(self, event_type: str, data: Any) -> Event:
        """Publish an event of the application's.

        Raises:
            UsageError: the type is malformed, or the data cannot be carried.
        """
        self._check_open()
        try:
            packed = codec.pack(data, EVENT)
        except PayloadError as error:
            text = f"The data of the event {event_type} cannot be carried: {error}."
            raise UsageError(text) from None
        event = self._broker.publish(event_type, packed, HOST)
        return Event(event_type, data, event.timestamp, event.source, event.id)

    def _tell(self, event_type: str, data: dict[str, str]) -> None:
        """Publish an event of the host's own; its data is small and plain."""
        self._broker.publish(event_type, codec.pack(data, EVENT), HOST)

    def subscribe(self, types: tuple[str, ...]) -> Subscription:
        """Return a subscription to these event types, or to all.

        Raises:
            UsageError: a type is malformed.
        """
        self._check_open()
        return self._broker.subscribe(types)

    def _published(self, process: PluginProcess, event_type: str, payload: bytes) -> None:
        identity = process.identity
        if not may_publish(event_type, process.plan.permissions.publish):
            # The SDK refuses this inside; a plugin that gets here went around it.
            shown = answers.clean(event_type, 100)
            text = f"{identity} broke the protocol: it published {shown!r} without the permission."
            process.end(Ending(Cause.PROTOCOL_VIOLATION, text))
            return
        try:
            codec.unpack(payload, EVENT)  # only to know that whoever takes it can
            self._broker.publish(event_type, payload, identity)
        except (PayloadError, UsageError) as error:
            text = f"{identity} broke the protocol: {answers.clean(str(error), 300)}."
            process.end(Ending(Cause.PROTOCOL_VIOLATION, text))

    def _handler_failed(self, process: PluginProcess, event_type: str, report: Any) -> None:
        errors = report.get("errors") if isinstance(report, dict) else None
        first = errors[0] if isinstance(errors, list) and errors else {}
        told = first if isinstance(first, dict) else {}
        message = answers.clean(told.get("message"), 300)
        _log.warning("%s: a handler of %s failed: %s", process.identity, event_type, message)
        if event_type != "error_occurred":
            data = {"plugin": process.identity, "event": event_type, "message": message}
            self._tell("error_occurred", data)

    def _ended(self, process: PluginProcess) -> None:
        """A process is gone, from whatever cause. Called by the keeper."""
        identity = process.identity
        self._broker.unregister(process.deliver)
        failed = process.state is State.FAILED
        if failed:
            _log.warning("%s", process.cause_text)
        # One that cannot be done must not keep the others from being done.
        with contextlib.suppress(SandboxHostError):
            stage.remove(process.places.package_dir)
        remove_tree(process.places.scratch_dir)
        if process.interface is not None:
            self._tell("plugin_unloaded", {"plugin": identity, "cause": str(process.cause)})
        try:
            event = "ended" if failed else "unloaded"
            self._journal.append(event, identity, f"{process.cause}: {process.cause_text}")
        except SandboxHostError as error:
            _log.error("%s", error)


def _end_child(child: Child) -> None:
    child.kill()
    if child.wait(_DYING_SECONDS) is not None:
        child.close()


def _start_payload(identity: str, answer: Message) -> Any:
    try:
        return codec.unpack(answer.payload)
    except PayloadError as error:
        text = f"{identity} described itself in a way that is not understood: {error}."
        raise StartError(text, plugin=identity) from None


def _start_error(identity: str, payload: Any) -> PluginError:
    told = payload if isinstance(payload, dict) else {}
    message = answers.clean(told.get("message"), 1_000) or "no reason given"
    place = answers.clean(told.get("place"), 300)
    return StartError(
        f"{identity} did not start{f' ({place})' if place else ''}: {message}",
        plugin=identity,
        traceback_text=answers.clean(told.get("traceback"), 16_000, keep="\n\t"),
    )


def _base_python() -> Path:
    """Return the interpreter behind this process, outside any virtual environment."""
    base = getattr(sys, "_base_executable", "") or sys.executable
    return Path(os.path.realpath(base))
