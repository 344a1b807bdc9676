"""Linux, in order: nursery, child, control group, lock-down, attestation. No mechanism is here."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.messages import Confine
from plugin_sdk.wire.versions import OURS
from sandbox_host.backends.linux import probe
from sandbox_host.backends.linux.attest import Attested, attest
from sandbox_host.backends.linux.cgroup import Cgroup, Cgroups, Lacking, find_cgroups
from sandbox_host.backends.linux.compile import (
    MEMORY_HEADROOM,
    TASKS_HEADROOM,
    Ids,
    compile_plan,
)
from sandbox_host.backends.linux.descriptors import raise_soft_limit
from sandbox_host.backends.linux.environment import base_environment
from sandbox_host.backends.linux.evidence import gather
from sandbox_host.backends.linux.lockdown_talk import exchange as _exchange
from sandbox_host.backends.linux.lockdown_talk import report_of as _report
from sandbox_host.backends.linux.nursery import Ground, Nursery
from sandbox_host.backends.linux.pool import Blank, Pool
from sandbox_host.backends.linux.preparation import (
    Preparation,
    SharedPlaces,
    preparation_for,
)
from sandbox_host.backends.linux.process import LinuxChild, spawn
from sandbox_host.backends.linux.receipt import write_receipt
from sandbox_host.backends.linux.shortage import no_process
from sandbox_host.backends.linux.uids import UidLeases, take_back
from sandbox_host.backends.linux.work import EndedError, ForkError, MisfitError, Work
from sandbox_host.errors import AttestationError, ConfinementError
from sandbox_host.model import Layer, LayerReport, LayerStatus, Receipt

if TYPE_CHECKING:
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.base import Child, Options, Places
    from sandbox_host.backends.linux.mounts import Shared

_DYING_SECONDS: Final = 2.0

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
        raise_soft_limit()
        self._options = options
        self._ground = Ground(python, sdk_dir, base_environment(), options.disabled, options.uids)
        self._shared = SharedPlaces(python, sdk_dir, options.plugin_environment)
        self._machine = probe.probe()
        self._uids = UidLeases(options.uids)
        self._lock = threading.Lock()
        self._nursery: Nursery | None = None
        self._cgroups: Cgroups | Lacking | None = None
        self._tried: probe.Tried | None = None
        self._offered: tuple[LayerReport, ...] | None = None
        self._preparation: Preparation | None = None
        self._prepared_for: tuple[Path, Path, Path | None] | None = None
        self._numbers = itertools.count(1)
        self._closed = False
        self._pool = Pool(options.pool, self._make_blank) if options.pool else None

    def offers(self) -> tuple[LayerReport, ...]:
        """Return what this machine offers, layer by layer; the first time, by trying.

        Raises:
            ConfinementError: nothing can be tried, because no process can be started.
        """
        with self._lock:
            return self._offers()

    def _offers(self) -> tuple[LayerReport, ...]:
        if self._offered is None:
            self._offered = probe.offers(self._machine, self._try(), self._options.disabled)
        return self._offered

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
            if signal.SIGSYS.name in text:
                remedy = (
                    "A system call filter ends it. Where that is SystemCallFilter= of a systemd "
                    "unit, take it out; with SystemCallErrorNumber=EPERM beside it, `sandbox-host "
                    "doctor` shows what it takes away."
                )
            raise ConfinementError(text, layer="process", remedy=remedy) from error

    def start(self, plan: SandboxPlan, places: Places, timeout: float) -> tuple[Child, Receipt]:
        """Start a confined, attested child that has imported nothing of the plugin.

        Raises:
            AttestationError: what is in force is not what was planned; the child was killed.
            ConfinementError: a layer could not be applied, or the child did not come up in
                ``timeout`` seconds; it was killed.
        """
        until = time.monotonic() + timeout
        while self._pool is not None and self._pool.waiting and _left(until) > 0:
            found = self._assign_to_blank(plan, places)
            if found is None:
                break
            try:
                return self._lock_down(*found, until, blank=True)
            except EndedError:
                continue
        return self._lock_down(*self._fork(plan, places, until), until)

    def _lock_down(
        self, work: Work, child: LinuxChild, until: float, *, blank: bool = False
    ) -> tuple[Child, Receipt]:
        """Have a child carry out its order, and look at what came of it.

        Raises:
            EndedError: it was blank, and ended before it could; it is put away.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(_abandon, child)
            _give_order(work, child)
            answer = _exchange(child, until)
            # Where the pipe has ended and not the time, the process is about to be told of.
            if answer is None and blank and child.wait(min(_left(until), _DYING_SECONDS)):
                raise EndedError
            report = _report(work.plan, child, answer)
            if work.group is not None:
                work.group.entered(report.get("left_out", ()))
            receipt = self._attest(work, child, report)
            undo.pop_all()
        return child, receipt

    def _assign_to_blank(self, plan: SandboxPlan, places: Places) -> tuple[Work, LinuxChild] | None:
        """Return a blank child for a plan; None where there is none, or none that it fits."""
        nursery = self._take_nursery(alone=False)
        preparation = self._preparation_for(places, plan)
        if not nursery.own_pid:
            return None  # a plan has the number of its process in it
        work = Work(plan, places, nursery, preparation)
        with contextlib.ExitStack() as taken:
            self._assign(work, taken)
            blank = self._take_blank(work) if work.fits else None
            if blank is None:
                return None
            child = blank.child
            if not plan.permissions.network:
                child.refuse_network()
            child.on_close.append(taken.pop_all().close)
        return work, child

    def _take_blank(self, work: Work) -> Blank | None:
        pool = self._pool
        while pool is not None and (blank := pool.take()) is not None:
            if blank.nursery is work.nursery and blank.preparation is work.preparation:
                return blank
            blank.put_away()
        return None

    def _make_blank(self) -> Blank:
        """Fork a child for the pool.

        Raises:
            ConfinementError: it could not be forked.
        """
        nursery = self._take_nursery(alone=False)
        try:
            preparation = self._preparation_for(self._shared, None)
            child = spawn(
                nursery,
                network=True,
                preparation=_order_of(preparation),
                max_payload_bytes=self._options.max_payload_bytes,
            )
        except (OSError, PayloadError) as error:
            raise no_process("A process for the pool", error) from error
        return Blank(child, nursery, preparation)

    def _fork(self, plan: SandboxPlan, places: Places, until: float) -> tuple[Work, LinuxChild]:
        """Fork a child from the nursery, or from the next one where it has ended just now."""
        alone = self._options.start == "exec"
        preparation = self._preparation_for(places, plan)
        nursery = self._take_nursery(alone=alone)
        try:
            return self._fork_from(Work(plan, places, nursery, preparation), until)
        except (ForkError, MisfitError) as error:
            if alone:
                nursery.close()
            if isinstance(error, ForkError) and (alone or nursery.alive):
                raise no_process(f"The process for {plan.identity}", error.cause) from error.cause
        nursery = self._take_nursery(alone=alone)
        try:
            return self._fork_from(Work(plan, places, nursery, None), until)
        except ForkError as error:
            raise no_process(f"The process for {plan.identity}", error.cause) from error.cause

    def _fork_from(self, work: Work, until: float) -> tuple[Work, LinuxChild]:
        """Have a child forked, and decide meanwhile what it is to do.

        Raises:
            ForkError: it could not be forked.
            MisfitError: it has prepared itself for other plans than this.
        """
        fault: list[BaseException] = []
        nursery, preparation = work.nursery, work.preparation
        with contextlib.ExitStack() as taken:

            def assign() -> None:
                try:
                    self._assign(work, taken)
                except BaseException as error:  # noqa: BLE001 - raised once there is a child to end
                    fault.append(error)

            try:
                child = spawn(
                    nursery,
                    _left(until),
                    network=bool(work.plan.permissions.network),
                    preparation=_order_of(preparation),
                    max_payload_bytes=self._options.max_payload_bytes,
                    meanwhile=assign if nursery.own_pid else bool,
                )
            except (OSError, PayloadError) as error:
                raise ForkError(error) from error
            if self._options.start == "exec":
                child.on_close.append(nursery.close)
            try:
                if not nursery.own_pid:
                    self._assign(work, taken, child.pid)
                if fault:
                    raise fault[0]
                if not work.fits:
                    self._preparation = None
                    raise MisfitError
            except BaseException:
                _abandon(child)
                raise
            child.on_close.append(taken.pop_all().close)
        return work, child

    def _take_nursery(self, *, alone: bool) -> Nursery:
        with self._lock:
            self._try()
            if not alone:
                return self._shared_nursery()
        return self._boot(with_trial=False)

    def _preparation_for(self, shared: Shared, plan: SandboxPlan | None) -> Preparation | None:
        """Return what a child can do in advance, or None where the plan will hardly fit it.

        A grant of a path changes the root in ways that are known only when it was looked at.
        """
        may = plan.permissions if plan is not None else None
        if may is not None and (may.read or may.write or may.unix or may.subprocess):
            return None
        key = (shared.python, shared.sdk_dir, shared.plugin_environment)
        with self._lock:
            if self._preparation is None or self._prepared_for != key:
                layers = {r.layer for r in self._offers() if r.status is LayerStatus.ACTIVE}
                at = self._ground.sdk_dir.parent / "root"
                at.mkdir(mode=0o700, exist_ok=True)
                with_proc = not self._try().reasons.get("proc", "no")
                self._prepared_for = key
                self._preparation = preparation_for(shared, layers, at, with_proc=with_proc)
            return self._preparation

    def _assign(self, work: Work, taken: contextlib.ExitStack, pid: int = 0) -> None:
        """Decide everything that a child is to do, and take what it takes.

        Args:
            work: is completed.
            taken: gives it back.
            pid: of the child, where that matters.
        """
        nursery, plan = work.nursery, work.plan
        work.group = self._make_group(plan, taken)
        uid = self._lease_uid(plan, work.places, taken)
        tried = self._tried
        work.ids = Ids(
            host=os.getpid(),
            pid=pid,
            own_pid=nursery.own_pid,
            uid=self._inside(uid, nursery),
            nested_user=Layer.USER_NAMESPACE in plan.layers and nursery.nests,
            proc=tried is not None and not tried.reasons.get("proc", "no"),
        )
        work.decided(compile_plan(plan, work.places, self._machine, work.ids))

    def _make_group(self, plan: SandboxPlan, taken: contextlib.ExitStack) -> Cgroup | None:
        cgroups = self._cgroups
        if Layer.CGROUP not in plan.layers or cgroups is None or isinstance(cgroups, Lacking):
            return None
        limits = plan.limits
        memory = limits.memory_bytes + limits.scratch_bytes + MEMORY_HEADROOM
        try:
            group = cgroups.create(
                f"{plan.identity}-{next(self._numbers)}",
                memory,
                limits.threads + TASKS_HEADROOM,
                limits.cpu_weight,
                processes=plan.permissions.subprocess,
            )
        except OSError as error:
            raise _no_group(plan, error) from error
        taken.callback(group.remove)
        if plan.permissions.subprocess and group.usage() is None:
            text = (
                f"{plan.identity} may start processes, and nothing tells how much CPU time and "
                "memory they use together: its control group does not."
            )
            remedy = "Use control groups of version 2, or mount the controller cpuacct as well."
            raise ConfinementError(text, layer=Layer.CGROUP, remedy=remedy)
        return group

    def _lease_uid(
        self, plan: SandboxPlan, places: Places, taken: contextlib.ExitStack
    ) -> int | None:
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
        taken.callback(self._uids.give_back, uid)
        return uid

    def _inside(self, uid: int | None, nursery: Nursery) -> int | None:
        """Return the number that a user id outside has inside; the nursery's map says which."""
        if uid is None or not nursery.user_namespace:
            return uid
        return uid - self._options.uids[0] + 1

    def _attest(self, work: Work, child: LinuxChild, report: dict[str, Any]) -> Receipt:
        plan, nursery, compiled = work.plan, work.nursery, work.compiled
        try:
            evidence = gather(
                child.pid,
                nursery.pid,
                str(work.places.canary),
                [mount.path for mount in compiled.mounts if mount.kind == "bind"],
            )
        except (OSError, ValueError) as error:
            text = (
                f"Attestation of {plan.identity}: the kernel's account of pid {child.pid} cannot "
                f"be read: {error}."
            )
            raise AttestationError(text) from error
        variables = sorted(compiled.order["environment"])
        it = Attested(plan, work.ids, compiled, evidence, report, variables, work.group)
        layers = attest(it)
        others = tuple(r for r in self.offers() if r.status is not LayerStatus.ACTIVE)
        return write_receipt(it, child.pid, layers, others)

    def close(self) -> None:
        """End the nursery, and remove what was made for control groups."""
        if self._pool is not None:
            self._pool.close()
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


def _order_of(preparation: Preparation | None) -> dict[str, Any] | None:
    return preparation.order if preparation is not None else None


def _give_order(work: Work, child: LinuxChild) -> None:
    plan = work.plan
    child.group, child.starts_processes = work.group, plan.permissions.subprocess
    if work.group is not None and not work.order["groups"]:
        try:
            work.group.add(child.pid)
        except OSError as error:
            raise _no_group(plan, error) from error
    work.ids = replace(work.ids, pid=child.pid)
    child.connection.send(Confine(*OURS, payload=codec.pack(work.order)))


def _no_group(plan: SandboxPlan, error: OSError) -> ConfinementError:
    text = f"The control group for {plan.identity} could not be made: {error}."
    return ConfinementError(text, layer=Layer.CGROUP)
