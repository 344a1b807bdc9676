"""Linux, in order: nursery, child, control group, lock-down, attestation. No mechanism is here."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError, RemoteProtocolError
from plugin_sdk.wire.limits import READ_BYTES
from plugin_sdk.wire.message import Message
from plugin_sdk.wire.messages import Confine, Confined, Failed
from plugin_sdk.wire.versions import (
    NO_COMMON_VERSION,
    OURS,
    common_version,
    mismatch,
    read_versions,
)
from sandbox_host.backends.linux import probe
from sandbox_host.backends.linux.attest import Attested, attest
from sandbox_host.backends.linux.cgroup import Cgroup, Cgroups, Lacking, find_cgroups
from sandbox_host.backends.linux.compile import (
    MEMORY_HEADROOM,
    TASKS_HEADROOM,
    Compiled,
    Ids,
    compile_plan,
)
from sandbox_host.backends.linux.environment import base_environment
from sandbox_host.backends.linux.evidence import gather
from sandbox_host.backends.linux.nursery import Ground, Nursery
from sandbox_host.backends.linux.process import LinuxChild, spawn
from sandbox_host.backends.linux.receipt import write_receipt
from sandbox_host.backends.linux.uids import UidLeases, take_back
from sandbox_host.errors import AttestationError, ConfinementError
from sandbox_host.model import Layer, LayerReport, LayerStatus, Receipt

if TYPE_CHECKING:
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.base import Child, Options, Places

_DYING_SECONDS: Final = 2.0
_LAST_WORDS_BYTES: Final = 4_096

_known_reasons: dict[tuple[int, Path, frozenset[Layer]], dict[str, str]] = {}


class LinuxBackend:
    """Confinement on Linux. Thread-safe.

    Args:
        options: what the operator decided.
        python: the interpreter to run; never a virtual environment's.
        sdk_dir: private copy of `plugin_sdk` and `msgpack`.
    """

    name = "linux"

    def __init__(self, options: Options, python: Path, sdk_dir: Path) -> None:
        self._options = options
        self._ground = Ground(python, sdk_dir, base_environment(), options.disabled, options.uids)
        self._machine = probe.probe()
        self._uids = UidLeases(options.uids)
        self._lock = threading.Lock()
        self._nursery: Nursery | None = None
        self._cgroups: Cgroups | Lacking | None = None
        self._tried: probe.Tried | None = None
        self._closed = False

    def offers(self) -> tuple[LayerReport, ...]:
        """Return what this machine offers, layer by layer; the first time, by trying.

        Raises:
            ConfinementError: nothing can be tried, because no process can be started.
        """
        with self._lock:
            return probe.offers(self._machine, self._try(), self._options.disabled)

    def _try(self) -> probe.Tried:
        if self._tried is None:
            nursery = self._shared_nursery()
            disabled = self._options.disabled
            if self._cgroups is None and Layer.CGROUP not in disabled:
                self._cgroups = find_cgroups(self._options.cgroup)
            cgroups = self._cgroups
            lacking = cgroups if isinstance(cgroups, Lacking) else Lacking("", "")
            self._tried = probe.Tried(
                reasons=nursery.reasons,
                user_namespace=nursery.user_namespace,
                root=os.geteuid() == 0,
                has_range=nursery.has_range,
                cgroup=cgroups.detail if cgroups and not isinstance(cgroups, Lacking) else "",
                cgroup_reason=lacking.reason,
                cgroup_remedy=lacking.remedy,
            )
        return self._tried

    def _shared_nursery(self) -> Nursery:
        """Return the nursery of this host, a new one if it has ended."""
        if self._closed:
            text = "The host is closing."
            raise ConfinementError(text, layer="process")
        if self._nursery is not None and not self._nursery.alive:
            self._nursery.close()
            self._nursery = None
        if self._nursery is None:
            key = (os.geteuid(), self._ground.python, self._ground.disabled)
            self._nursery = self._boot(with_trial=key not in _known_reasons)
            # What was tried once need not be tried again for another host of this process: every
            # start is attested all the same.
            reasons = _known_reasons.setdefault(key, self._nursery.reasons)
            self._nursery.reasons = {**reasons, **self._nursery.reasons}
        return self._nursery

    def _boot(self, *, with_trial: bool) -> Nursery:
        try:
            return Nursery(self._ground, with_trial=with_trial)
        except OSError as error:
            text = f"The nursery, which starts the plugins, could not be started: {error}."
            remedy = f"Check that {self._ground.python} runs, and that processes can be made."
            raise ConfinementError(text, layer="process", remedy=remedy) from error

    def start(self, plan: SandboxPlan, places: Places, timeout: float) -> tuple[Child, Receipt]:
        """Start a confined, attested child that has imported nothing of the plugin.

        Raises:
            AttestationError: what is in force is not what was planned; the child was killed.
            ConfinementError: a layer could not be applied, or the child did not come up in
                ``timeout`` seconds; it was killed.
        """
        until = time.monotonic() + timeout
        with contextlib.ExitStack() as undo:
            child, nursery = self._spawn(plan, undo, until)
            cgroup = self._put_into_group(plan, child)
            uid = self._lease_uid(plan, places, child)
            ids = Ids(
                host=os.getpid(),
                pid=child.pid,
                own_pid=nursery.own_pid,
                uid=self._inside(uid, nursery),
                nested_user=Layer.USER_NAMESPACE in plan.layers and nursery.nests,
                proc=self._tried is not None and not self._tried.reasons.get("proc", "no"),
            )
            compiled = compile_plan(plan, places, self._machine, ids)
            child.connection.send(Confine(*OURS, payload=codec.pack(compiled.order)))
            report = _report(plan, child, _exchange(child, until))
            receipt = self._attest(plan, places, child, nursery, ids, compiled, report, cgroup)
            undo.pop_all()
        return child, receipt

    def _spawn(
        self, plan: SandboxPlan, undo: contextlib.ExitStack, until: float
    ) -> tuple[LinuxChild, Nursery]:
        alone = self._options.start == "exec"
        try:
            child, nursery = self._fork(plan, until, alone=alone)
        except (OSError, PayloadError) as error:
            text = f"The process for {plan.identity} could not be started: {error}."
            raise ConfinementError(text, layer="process") from error
        if alone:
            child.on_close.append(nursery.close)
        undo.callback(_abandon, child)
        return child, nursery

    def _fork(self, plan: SandboxPlan, until: float, *, alone: bool) -> tuple[LinuxChild, Nursery]:
        """Fork a child from the nursery, or from the next one where it has ended just now."""
        nursery = self._take_nursery(alone=alone)
        network = bool(plan.permissions.network)
        try:
            return spawn(nursery, _left(until), network=network), nursery
        except (OSError, PayloadError):
            if alone:
                nursery.close()
            if alone or nursery.alive:
                raise
        nursery = self._take_nursery(alone=alone)
        return spawn(nursery, _left(until), network=network), nursery

    def _take_nursery(self, *, alone: bool) -> Nursery:
        with self._lock:
            self._try()
            if not alone:
                return self._shared_nursery()
        return self._boot(with_trial=False)

    def _put_into_group(self, plan: SandboxPlan, child: LinuxChild) -> Cgroup | None:
        cgroups = self._cgroups
        if Layer.CGROUP not in plan.layers or cgroups is None or isinstance(cgroups, Lacking):
            return None
        limits = plan.limits
        memory = limits.memory_bytes + limits.scratch_bytes + MEMORY_HEADROOM
        try:
            group = cgroups.create(
                f"{plan.identity}-{child.pid}",
                memory,
                limits.threads + TASKS_HEADROOM,
                limits.cpu_weight,
                processes=plan.permissions.subprocess,
            )
            child.on_close.append(group.remove)
            group.add(child.pid)
        except OSError as error:
            text = f"The control group for {plan.identity} could not be made: {error}."
            raise ConfinementError(text, layer=Layer.CGROUP) from error
        child.group, child.starts_processes = group, plan.permissions.subprocess
        if plan.permissions.subprocess and group.usage() is None:
            text = (
                f"{plan.identity} may start processes, and nothing tells how much CPU time and "
                "memory they use together: its control group does not."
            )
            remedy = "Use control groups of version 2, or mount the controller cpuacct as well."
            raise ConfinementError(text, layer=Layer.CGROUP, remedy=remedy)
        return group

    def _lease_uid(self, plan: SandboxPlan, places: Places, child: LinuxChild) -> int | None:
        own = Layer.OWN_UID in plan.layers
        try:
            uid = self._uids.take(places.data_dir) if own else None
            if uid is None and os.geteuid() == 0:
                take_back(places.data_dir)
        except OSError as error:
            gets = "no user id of its own" if own else "no data directory of the host's user"
            text = f"{plan.identity} gets {gets}: {error}."
            raise ConfinementError(text, layer=Layer.OWN_UID) from error
        if uid is None:
            return None
        child.on_close.append(lambda: self._uids.give_back(uid))
        return uid

    def _inside(self, uid: int | None, nursery: Nursery) -> int | None:
        """Return the number that a user id outside has inside; the nursery's map says which."""
        if uid is None or not nursery.user_namespace:
            return uid
        return uid - self._options.uids[0] + 1

    def _attest(
        self,
        plan: SandboxPlan,
        places: Places,
        child: LinuxChild,
        nursery: Nursery,
        ids: Ids,
        compiled: Compiled,
        report: dict[str, Any],
        cgroup: Cgroup | None,
    ) -> Receipt:
        try:
            evidence = gather(
                child.pid,
                nursery.pid,
                str(places.canary),
                [mount.path for mount in compiled.mounts if mount.kind == "bind"],
            )
        except (OSError, ValueError) as error:
            text = (
                f"Attestation of {plan.identity}: the kernel's account of pid {child.pid} cannot "
                f"be read: {error}."
            )
            raise AttestationError(text) from error
        variables = sorted(compiled.order["environment"])
        it = Attested(plan, ids, compiled, evidence, report, variables, cgroup)
        layers = attest(it)
        others = tuple(r for r in self.offers() if r.status is not LayerStatus.ACTIVE)
        return write_receipt(it, child.pid, layers, others)

    def close(self) -> None:
        """End the nursery, and remove what was made for control groups."""
        with self._lock:
            self._closed = True
            if self._nursery is not None:
                self._nursery.close()
            if self._cgroups is not None and not isinstance(self._cgroups, Lacking):
                self._cgroups.close()


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())


def _abandon(child: LinuxChild) -> None:
    child.kill()
    child.wait(_DYING_SECONDS)
    child.close()


def _exchange(child: LinuxChild, until: float) -> Message | None:
    """Write what is queued and return the first answer; None at end of stream or deadline."""
    data = child.connection.data_to_send()
    poller = select.poll()
    poller.register(child.receive_fd, select.POLLIN)
    poller.register(child.send_fd, select.POLLOUT if data else 0)
    while (left := until - time.monotonic()) > 0:
        for end, _ in poller.poll(left * 1000):
            if end == child.send_fd:
                try:
                    data = data[os.write(end, data) :]
                except BrokenPipeError:
                    return None
                poller.modify(end, select.POLLOUT if data else 0)
            elif chunk := os.read(end, READ_BYTES):
                child.connection.receive_data(chunk)
                if messages := child.connection.events_received():
                    return messages[0]
            else:
                return None
    return None


def _report(plan: SandboxPlan, child: LinuxChild, answer: Message | None) -> dict[str, Any]:
    try:
        if isinstance(answer, Confined):
            _check_versions(plan, (answer.oldest, answer.newest))
            report: dict[str, Any] = codec.unpack(answer.payload)
            return report
        if isinstance(answer, Failed):
            error = codec.unpack(answer.payload)
            if answer.code == NO_COMMON_VERSION:
                _check_versions(plan, read_versions(error.get("versions")))
            text = f"{plan.identity} was not started: {error.get('message', 'no reason given')}."
            remedy = "Run `sandbox-host doctor` to see what this machine offers."
            raise ConfinementError(text, layer=answer.code, remedy=remedy)
    except (PayloadError, RemoteProtocolError, AttributeError) as error:
        text = f"The child of {plan.identity} answered its lock-down with nonsense: {error}."
        raise AttestationError(text) from error
    text = (
        f"The child of {plan.identity} did not report its lock-down"
        f"{_last_words(child)}{_held(child)}. "
        "It was killed before it imported anything."
    )
    raise ConfinementError(text, layer="process")


def _check_versions(plan: SandboxPlan, theirs: tuple[int, int] | None) -> None:
    if theirs is None or common_version(OURS, theirs) is not None:
        return
    text = f"{plan.identity} was not started: {mismatch(OURS, theirs)}."
    remedy = "Use the host and the plugin's runtime of one release."
    raise ConfinementError(text, layer=NO_COMMON_VERSION, remedy=remedy)


def _held(child: LinuxChild) -> str:
    at_limit = child.group is not None and child.group.at_memory_limit()
    return "; its control group has no memory left for it" if at_limit else ""


def _last_words(child: LinuxChild) -> str:
    """Return what the trusted child said on its standard error, for the operator."""
    try:
        words = os.read(child.log_fds[1], _LAST_WORDS_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    return f"; it said: {words}" if words else ""
