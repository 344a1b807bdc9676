"""The host itself: blocking and thread-safe. `host` and `blocking` are its two faces."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.limits import MAX_EVENT_BYTES
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
from sandbox_host.model import Cause, Layer, LayerReport, LayerStatus, State, identity_of
from sandbox_host.observe.journal import Journal
from sandbox_host.runtime import answers
from sandbox_host.runtime.causes import Ending
from sandbox_host.runtime.interface import check_ready
from sandbox_host.runtime.keeper import IDLE_SECONDS, Keeper
from sandbox_host.runtime.lifecycle import ENDED
from sandbox_host.runtime.process import PluginProcess
from sandbox_host.runtime.workspace import Workspace, remove_tree

if TYPE_CHECKING:
    from plugin_sdk.wire.messages import Message
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.base import Backend
    from sandbox_host.broker.queues import Subscription
    from sandbox_host.bundle.verify import VerifiedBundle
    from sandbox_host.config import HostConfig
    from sandbox_host.model import Event

_log = logging.getLogger("sandbox_host")

HOST: Final = "host"
_STOPPERS: Final = 16


class HostCore:
    """Loads, confines, calls, accounts for and unloads plugins.

    Args:
        config: the operator's decisions.
        backend: another than this system's, for the host's own tests.
    """

    def __init__(self, config: HostConfig, backend: Backend | None = None) -> None:
        self.config = config
        self._backend = backend
        self._lock = threading.Lock()
        self._plugins: dict[str, PluginProcess | None] = {}
        self._opened = False

    # -- life of the host -------------------------------------------------------------------

    def open(self) -> None:
        """Make the directories, the journal and the keeper.

        Raises:
            ConfinementError: this system has no backend, or lacks a layer nobody accepted to miss.
            ConfigError: a directory cannot be used.
        """
        if self._opened:
            text = "A host is opened once; make another."
            raise UsageError(text)
        environment = self.config.plugin_environment
        if environment is not None and not environment.is_dir():
            text = f"The plugin environment {environment} is no directory."
            remedy = "Make it with `pip install --target`, or leave plugin_environment out."
            raise ConfigError(text, remedy=remedy)
        backend = self._backend or select_backend()
        self._backend = backend
        self._policy = Policy.from_config(self.config)
        self._workspace = Workspace(self.config.state_dir)
        try:
            self._journal = Journal(self.config.journal_path)
        except BaseException:
            self._workspace.close()
            raise
        self._broker = Broker(lambda: datetime.now(UTC).timestamp(), self.config.event_queue)
        self._keeper = Keeper(self.config.sweep_seconds)
        self._opened = True
        self._journal.append("host_started", detail=f"pid {os.getpid()}, backend {backend.name}")

    def close(self) -> None:
        """Unload everything, in parallel, within the stop timeout; then remove what is ours."""
        if not self._opened:
            return
        self._opened = False
        with self._lock:
            running = [p for p in self._plugins.values() if p is not None]
        timeout = self.config.stop_timeout_seconds
        if running:
            with ThreadPoolExecutor(min(_STOPPERS, len(running))) as pool:
                list(pool.map(lambda p: p.stop(timeout, Cause.HOST_SHUTDOWN), running))
        self._broker.close()
        self._keeper.close()
        self._journal.append("host_stopped")
        self._journal.close()
        self._workspace.close()

    def _check_open(self) -> None:
        if not self._opened:
            text = "The host is not open; use it in a `with` block."
            raise UsageError(text)

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
        identity = plan.identity
        self._reserve(identity)
        try:
            return self._start(plan, bundle)
        except BaseException:
            with self._lock:
                if self._plugins.get(identity) is None:
                    self._plugins.pop(identity, None)
            raise

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

    def _reserve(self, identity: str) -> None:
        """Take the name, so that two loads of one plugin cannot both start."""
        with self._lock:
            current = self._plugins.get(identity)
            if identity in self._plugins and (current is None or current.state not in ENDED):
                text = f"{identity} is loaded already."
                remedy = "Unload it first; two names of one snake-case form are one plugin."
                raise AlreadyLoadedError(text, plugin=identity, remedy=remedy)
            self._plugins[identity] = None

    def _start(self, plan: SandboxPlan, bundle: VerifiedBundle) -> PluginProcess:
        assert self._backend is not None  # noqa: S101 - open() set it
        identity = plan.identity
        places = self._places(identity, stage.stage(bundle, self._workspace.bundles))
        try:
            child, receipt = self._backend.start(plan, places, self.config.start_timeout_seconds)
        except (ConfinementError, AttestationError) as error:
            _log.error("%s", error)
            self._journal.append("start_failed", identity, f"[{error.code}] {error.message}")
            self._remove_places(places)
            raise
        except BaseException:
            self._remove_places(places)
            raise
        pace = f"every {self.config.sweep_seconds * 1e3:g} ms (idle: {IDLE_SECONDS * 1e3:g} ms)"
        watched = f"memory, CPU time, threads and deadlines, {pace}"
        watchdog = LayerReport(Layer.WATCHDOG, LayerStatus.ACTIVE, watched)
        process = PluginProcess(
            plan,
            places,
            child,
            replace(receipt, layers=(*receipt.layers, watchdog)),
            keeper=self._keeper,
            config=self.config,
            log_path=self._workspace.log_path(identity),
            on_publish=self._published,
            on_handler_error=self._handler_failed,
            on_ended=self._ended,
        )
        try:
            self._become_ready(process)
        except BaseException as error:
            text = f"{identity} did not start: {type(error).__name__}."
            process.end(Ending(Cause.START_FAILED, text), at_once=True)
            process.ended.wait(self.config.stop_timeout_seconds)
            self._journal.append("start_failed", identity, str(error)[:500])
            raise
        with self._lock:
            self._plugins[identity] = process
        layers = ", ".join(receipt.active)
        self._journal.append("started", identity, f"pid {receipt.pid}, layers {layers}")
        self._broker.publish("plugin_loaded", {"plugin": identity}, HOST)
        return process

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

    def _remove_places(self, places: Places) -> None:
        stage.remove(places.package_dir)
        remove_tree(places.scratch_dir)

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
        self._broker.register(plan.identity, interface.handles, process.deliver)

    def get(self, name: str) -> PluginProcess:
        """Return the plugin of that name, in whichever spelling; it may have ended.

        Raises:
            PluginNotFoundError: none of that name is loaded.
        """
        identity = identity_of(name)
        with self._lock:
            process = self._plugins.get(identity)
            loaded = sorted(k for k, p in self._plugins.items() if p is not None)
        if process is None:
            text = f"No plugin named {name!r} is loaded; there are: {', '.join(loaded) or 'none'}."
            raise PluginNotFoundError(text, plugin=identity, remedy="Load it first.")
        return process

    def plugins(self) -> list[PluginProcess]:
        """Return all loaded plugins, those that failed included, by name."""
        with self._lock:
            return [p for _, p in sorted(self._plugins.items()) if p is not None]

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
        return self._broker.publish(event_type, data, HOST)

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
            self._broker.publish(event_type, codec.unpack(payload, MAX_EVENT_BYTES), identity)
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
            self._broker.publish("error_occurred", data, HOST)

    def _ended(self, process: PluginProcess) -> None:
        """A process is gone, from whatever cause. Called by the keeper."""
        identity = process.identity
        self._broker.unregister(identity)
        failed = process.state is State.FAILED
        if failed:
            _log.warning("%s", process.cause_text)
        with contextlib.suppress(SandboxHostError):
            event = "ended" if failed else "unloaded"
            self._journal.append(event, identity, f"{process.cause}: {process.cause_text}")
            self._broker.publish(
                "plugin_unloaded", {"plugin": identity, "cause": str(process.cause)}, HOST
            )
        with contextlib.suppress(SandboxHostError):
            self._remove_places(process.places)


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
