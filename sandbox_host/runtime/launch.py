"""From a directory to a plugin that is ready: verify, admit, stage, confine, attest, import.

Each step refuses with an error of its own, and undoes what the steps before it made.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.limits import REPORT
from plugin_sdk.wire.messages import Ready
from plugin_sdk.wire.nursery import CHILD_DESK
from sandbox_host.admission.instances import instance_identity
from sandbox_host.admission.plan import admit
from sandbox_host.admission.policy import Policy
from sandbox_host.backends.base import Places
from sandbox_host.bundle import stage
from sandbox_host.bundle.source import read_bundle
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.verify import verify
from sandbox_host.catalog.environment import interpreter_fault
from sandbox_host.catalog.switches import Switches
from sandbox_host.errors import (
    AttestationError,
    ConfigError,
    ConfinementError,
    DataInUseError,
    HistoryError,
    RefusedError,
    StartError,
    TrustStoreError,
)
from sandbox_host.model import Layer, LayerStatus
from sandbox_host.network import meter
from sandbox_host.reading import sentence
from sandbox_host.runtime import answers
from sandbox_host.runtime.bytecode import Bytecode
from sandbox_host.runtime.granted import shortfalls
from sandbox_host.runtime.interface import check_ready
from sandbox_host.runtime.process import PluginProcess
from sandbox_host.runtime.receipt import check_kept, with_watchdog
from sandbox_host.runtime.workspace import remove_tree
from sandbox_host.scan.verdict import ScanEvidence, findings_refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from plugin_sdk.wire.message import Message
    from sandbox_host.admission.history import Downgrade
    from sandbox_host.admission.instances import Instance
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.base import Backend, Child
    from sandbox_host.bundle.verify import VerifiedBundle
    from sandbox_host.config import HostConfig
    from sandbox_host.model import Receipt
    from sandbox_host.observe.journal import Journal
    from sandbox_host.runtime.admissions import Admissions
    from sandbox_host.runtime.audience import Listener
    from sandbox_host.runtime.keeper import Keeper
    from sandbox_host.runtime.workspace import Workspace

_log = logging.getLogger("sandbox_host")

_DYING_SECONDS: Final = 2.0


class Launcher:
    """Starts plugins for one host.

    Args:
        config: the operator's decisions.
        backend: confines them.
        workspace: where their files go.
        keeper: looks after them.
        journal: where each admission, refusal and start is written down.
        admissions: what was admitted before.
        services: returns the names of those that the application offers now.
        trial: plugins tell at their end what they used and were refused.
    """

    def __init__(
        self,
        config: HostConfig,
        backend: Backend,
        workspace: Workspace,
        keeper: Keeper,
        journal: Journal,
        admissions: Admissions,
        *,
        services: Callable[[], frozenset[str]] = frozenset,
        trial: bool = False,
    ) -> None:
        self._config = config
        self._policy = Policy.from_config(config)
        self._backend = backend
        self._workspace = workspace
        self._keeper = keeper
        self._journal = journal
        self._admissions = admissions
        python, timeout = config.python or base_python(), config.start_timeout_seconds
        self._bytecode = Bytecode(backend, workspace, python, timeout)
        self._services = services
        self._trial = trial

    def reconfigure(self, config: HostConfig) -> None:
        """Admit and start what comes from now on by another configuration."""
        self._config, self._policy = config, Policy.from_config(config)

    def admit(
        self,
        directory: Path,
        downgrades: Collection[Downgrade] = (),
        verified: Callable[[str, str], object] | None = None,
        instance: Instance | None = None,
    ) -> tuple[SandboxPlan, VerifiedBundle]:
        """Read, verify and admit the plugin in a directory; nothing of it is executed.

        Args:
            directory: where it is, or its archive.
            downgrades: what the operator lets in although history speaks against it.
            instance: which of several it is to be; None for the plugin itself.
            verified: is told which plugin it is, and its root digest, once that is certain.

        Raises:
            RefusedError: it was not admitted, or is held until the operator approves of it.
            ConfigError: what was disabled is not known.
            TrustStoreError: the trust store cannot be used, or is older than one used before.
            HistoryError: what was admitted before cannot be read or written.
            ConfinementError: a guarantee is missing, or a layer switched off, and nobody accepted
                that.
        """
        with self._refusals_told(directory):
            plan, bundle, remember = self._judged(directory, downgrades, instance, verified)
            remember()
            self._tell_admitted(plan)
            return plan, bundle

    def consider(
        self, directory: Path, downgrades: Collection[Downgrade], instance: Instance | None
    ) -> tuple[SandboxPlan, VerifiedBundle, Callable[[], None]]:
        """Admit as `admit` does what may prove to be no good, and is remembered only then.

        Until the last of what is returned is called, the version before it is none that came back:
        it may be loaded again, and is where the new one is not taken.

        Raises:
            RefusedError, TrustStoreError, HistoryError, ConfinementError: as `admit`; and so does
                what is returned last, where something else was admitted meanwhile.
        """
        with self._refusals_told(directory):
            plan, bundle, remember = self._judged(directory, downgrades, instance)
            self._tell_admitted(plan)
            return plan, bundle, remember

    def look(self, directory: Path, downgrades: Collection[Downgrade] = ()) -> VerifiedBundle:
        """Read and verify the plugin in a directory, and remember nothing of it.

        Whoever admits it verifies it again.

        Raises:
            RefusedError: it cannot be verified, or history speaks against it.
            TrustStoreError, HistoryError: as `admit`.
        """
        with self._refusals_told(directory):
            bundle, trust, now = self._verified(directory)
            self._admissions.check(bundle, trust, now, downgrades)
            return bundle

    @contextlib.contextmanager
    def _refusals_told(self, directory: Path) -> Iterator[None]:
        try:
            yield
        except (RefusedError, ConfinementError, TrustStoreError, HistoryError) as error:
            self._journal.append("refused", detail=f"{directory}: [{error.code}] {error.message}")
            raise

    def _verified(self, directory: Path) -> tuple[VerifiedBundle, TrustStore, datetime]:
        contents = read_bundle(directory)
        trust = TrustStore.load(self._config.trust_store)
        now = datetime.now(UTC)  # once, for all that is judged by the time
        return verify(contents, trust, now), trust, now

    def _judged(
        self,
        directory: Path,
        downgrades: Collection[Downgrade],
        instance: Instance | None,
        verified: Callable[[str, str], object] | None = None,
    ) -> tuple[SandboxPlan, VerifiedBundle, Callable[[], None]]:
        bundle, trust, now = self._verified(directory)
        # Before anybody is told of a start: one that is disabled stays as it is.
        Switches(self._config.state_dir).check(bundle.manifest.identity)
        if verified is not None:
            verified(instance_identity(bundle.manifest, instance), bundle.root_digest)
        self._admissions.check(bundle, trust, now, downgrades)
        plan = self._plan(bundle, self._scanned(bundle), instance)
        self._admissions.consider(bundle, trust, now, downgrades)
        return plan, bundle, lambda: self._admissions.admit(bundle, trust, now, downgrades)

    def _scanned(self, bundle: VerifiedBundle) -> ScanEvidence | None:
        """Have the sources scanned where findings may refuse the plugin, and refuse it if so."""
        policy = self._config.refuse_findings
        if policy == "none":
            return None
        # Here, because what reads the sources is a plugin as well, and started by this module.
        from sandbox_host.runtime.scanner import scan_files

        identity = bundle.manifest.identity
        findings = scan_files(bundle.files, bundle.manifest.permissions, self._config)
        evidence = ScanEvidence.of(bundle.root_digest, findings, policy)
        self._journal.append("scanned", identity, f"root {bundle.root_digest}: {evidence}")
        if refusal := findings_refusal(findings, policy, identity):
            raise refusal
        return evidence

    def _plan(
        self, bundle: VerifiedBundle, scan: ScanEvidence | None, instance: Instance | None
    ) -> SandboxPlan:
        offers = self._backend.offers()
        offered = {offer.layer for offer in offers if offer.status is LayerStatus.ACTIVE}
        policy = replace(self._policy, services=self._services())
        return admit(
            bundle, policy, frozenset(offered | {Layer.WATCHDOG}), scan=scan, instance=instance
        )

    def _tell_admitted(self, plan: SandboxPlan) -> None:
        self._journal.append(
            "admitted", plan.identity, f"root {plan.root_digest}, key {plan.key_id}"
        )
        for layer in plan.disabled:
            self._journal.append("layer_disabled", plan.identity, layer)
        for guarantee in plan.accepted_missing:
            self._journal.append("guarantee_missing", plan.identity, guarantee)
        # What was switched off, is missing or kept with a restriction is among the notes.
        for note in (*plan.notes, *shortfalls(plan)):
            _log.warning("%s: %s", plan.identity, note)

    def start(
        self,
        plan: SandboxPlan,
        bundle: VerifiedBundle,
        listener: Listener,
        *,
        beside: bool = False,
    ) -> PluginProcess:
        """Return the plugin's process: confined, attested and watched, with nothing imported.

        Args:
            plan: what it gets.
            bundle: its verified bytes.
            listener: is told what it says unasked, and of its end.
            beside: another version of it runs in this host, and shares its data directory.

        Raises:
            ConfinementError: a layer could not be applied.
            AttestationError: what is in force is not what was planned.
            ConfigError: a directory or log cannot be written, or the plugin's user could not read
                the interpreter's library.
            DataInUseError: another host with the same state directory has the plugin loaded.
        """
        identity = plan.identity
        if Layer.OWN_UID in plan.layers:
            self._check_interpreter()
        with contextlib.ExitStack() as undo:
            self._lock_data(plan, undo, shared=beside)
            bytecode = self._bytecode.of(plan, bundle)
            package_dir = stage.stage(bundle, self._workspace.bundles, bytecode)
            undo.callback(stage.remove, package_dir)
            places = self._places(identity, package_dir, Path(bundle.origin))
            undo.callback(remove_tree, places.scratch_dir)
            try:
                timeout = self._config.start_timeout_seconds
                child, attested = self._start_child(plan, places, timeout)
                undo.callback(_end_child, child)
                counted = bool(plan.permissions.network) and meter.is_available()
                pace = self._config.sweep_seconds
                receipt = with_watchdog(attested, plan.limits, pace, counted=counted)
                check_kept(receipt, plan)
            except (ConfinementError, AttestationError) as error:
                _log.error("%s", error)
                self._journal.append("start_failed", identity, f"[{error.code}] {error.message}")
                raise
            process = PluginProcess(
                plan,
                places,
                child,
                receipt,
                keeper=self._keeper,
                config=self._config,
                log_path=self._workspace.log_path(identity),
                listener=listener,
            )
            undo.pop_all()
        return process

    def _lock_data(self, plan: SandboxPlan, undo: contextlib.ExitStack, *, shared: bool) -> None:
        """Hold the data directory until the process is gone; the host then gives it back."""
        locks = self._workspace.locks
        try:
            if shared:
                locks.share(plan.identity)
            else:
                locks.take(plan.identity, plan.limits)
        except DataInUseError as error:
            self._journal.append("start_failed", plan.identity, f"[{error.code}] {error.message}")
            raise
        undo.callback(locks.give_back, plan.identity)

    def _start_child(
        self, plan: SandboxPlan, places: Places, timeout: float
    ) -> tuple[Child, Receipt]:
        try:
            return self._backend.start(plan, places, timeout)
        except OSError as error:
            text = f"The process for {plan.identity} could not be started: {error}."
            remedy = "Something it needs was removed or changed meanwhile; load it again."
            raise ConfinementError(text, layer="process", remedy=remedy) from error

    def _check_interpreter(self) -> None:
        python = self._config.python or base_python()
        if fault := interpreter_fault(Path(os.path.realpath(python))):
            text = f"The interpreter {python} {fault}."
            raise ConfigError(text, remedy="Or name another with HostConfig(python=…).")

    def _places(self, identity: str, package_dir: Path, source: Path) -> Places:
        directory = self._config.plugin_directory
        from_config = self._config.python
        return Places(
            python=from_config or base_python(),
            sdk_dir=self._workspace.sdk_dir,
            package_dir=package_dir,
            data_dir=self._workspace.data_dir(identity),
            scratch_dir=self._workspace.scratch_dir(identity),
            canary=self._workspace.canary,
            plugin_environment=_real(self._config.plugin_environment),
            private=self._config.private_paths,
            code=(source, *([directory] if directory is not None else [])),
        )

    def become_ready(self, process: PluginProcess) -> None:
        """Have the plugin imported and initialised, and check what it says it is.

        Raises:
            PluginError: it did not become ready.
        """
        plan, places = process.plan, process.places
        environment = places.plugin_environment
        order = {
            "identity": plan.manifest.identity,  # it is imported by that name
            "package_dir": str(places.package_dir),
            "sys_path": [str(environment)] if environment else [],
            "config": dict(plan.config),
            "data_dir": str(places.data_dir),
            "scratch_dir": str(places.scratch_dir),
            "events": list(plan.manifest.events),
            "publish": list(plan.permissions.publish),
            "services": list(plan.permissions.services),
            "concurrency": plan.manifest.concurrency,
            "desk": CHILD_DESK if plan.permissions.network else -1,
            "granted": _told_grants(plan),
            "trial": self._trial,
            "arena": process.has_arena,
            "payload_bytes": process.max_payload_bytes,
        }
        answer = process.load(order, self._config.start_timeout_seconds)
        payload = _start_payload(plan.identity, answer)
        if not isinstance(answer, Ready):
            start_error = _start_error(plan, payload)
            if start_error.denial is not None:
                process.reported(start_error.denial)
            raise start_error
        interface = check_ready(plan.manifest, payload)
        for warning in interface.warnings:
            _log.warning("%s: %s", plan.identity, warning)
        if payload.get("arena") is True:
            process.lend()
        process.ready(interface)


def _end_child(child: Child) -> None:
    child.kill()
    if child.wait(_DYING_SECONDS) is not None:
        child.close()


def _start_payload(identity: str, answer: Message) -> Any:
    try:
        return codec.unpack(answer.payload, REPORT)  # a description, not a channel for data
    except PayloadError as error:
        text = f"{identity} described itself in a way that is not understood: {error}."
        raise StartError(text, plugin=identity) from None


def _told_grants(plan: SandboxPlan) -> dict[str, Any]:
    """Return the permissions in force, for the plugin's own explanations of what it is refused."""
    granted = asdict(plan.permissions)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in granted.items() if v}


def _start_error(plan: SandboxPlan, payload: Any) -> StartError:
    identity, told = plan.identity, payload if isinstance(payload, dict) else {}
    message = answers.clean(told.get("message"), 1_000) or "no reason given"
    place = answers.clean(told.get("place"), 300)
    traceback_text = answers.clean(told.get("traceback"), 16_000, keep="\n\t")
    denial = answers.denial_of(told, plan.permissions)
    hint = answers.hint(answers.clean(told.get("type"), 200), message, traceback_text)
    return StartError(
        f"{identity} did not start{f' ({place})' if place else ''}: {sentence(message)}",
        plugin=identity,
        remedy=answers.advice_on(denial) if denial else hint,
        traceback_text=traceback_text,
        denial=denial,
    )


def _real(path: Path | None) -> Path | None:
    return None if path is None else path.resolve()


def base_python() -> Path:
    """Return the interpreter behind this process, outside any virtual environment."""
    base = getattr(sys, "_base_executable", "") or sys.executable
    return Path(os.path.realpath(base))
