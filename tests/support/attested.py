"""What the kernel and the child say of a process that is as planned, for tests to change."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox_host.backends.linux.attest import Attested
from sandbox_host.backends.linux.cgroup_group import GroupUsage
from sandbox_host.backends.linux.compile import LIMIT_NAMES, Compiled, Ids, compile_plan
from sandbox_host.backends.linux.evidence import Evidence
from sandbox_host.backends.linux.mounts import Mount
from sandbox_host.backends.linux.probe import Machine
from sandbox_host.backends.linux.procfs import MountLine
from sandbox_host.model import Layer

PID, HOST, NURSERY = 4_321, 100, 200
MACHINE = Machine("x86_64", 7, "", seccomp=True, seccomp_reason="")
ENVIRONMENT: tuple[str, ...] = ("HOME", "LANG")
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
NONE, ALL = "0" * 16, "000001ffffffffff"
ROOT_HOST, ORDINARY_HOST = "root", "ordinary"
OWN_UID = "61184"


@dataclass
class FakeGroup:
    """A control group, as far as it is looked at."""

    values: dict[str, int] = field(default_factory=lambda: {"memory_bytes": 100, "tasks": 9})
    gone: bool = False
    used: GroupUsage | None = field(default_factory=lambda: GroupUsage(0.1, 1_000, 1))
    paths: tuple[Path, ...] = (Path("/sys/fs/cgroup/sandbox-sample"),)
    weight_file: str = "cgroup v1, cpu.shares"

    def is_member(self, membership: str) -> bool:
        """As `Group`."""
        return membership == "0::/sandbox-sample"

    def usage(self) -> GroupUsage | None:
        """As `Group`."""
        return self.used

    def limits(self) -> dict[str, int]:
        """As `Group`."""
        if self.gone:
            raise FileNotFoundError(2, "No such file or directory")
        return self.values


class Case:
    """What the kernel and the child say, good until a test changes it."""

    def __init__(self, plan: Any, places: Any, host: str) -> None:
        self.plan = plan
        root = host == ROOT_HOST
        self.ids = Ids(
            host=HOST,
            pid=PID,
            own_pid=True,
            uid=1 if root else None,
            nested_user=not root,
            proc=True,
        )
        self.compiled: Compiled = compile_plan(plan, places, MACHINE, self.ids)
        self.group: FakeGroup | None = FakeGroup()
        self.environment = ENVIRONMENT
        outside = OWN_UID if root else "1000"
        own = "0" if root else "1000"
        self.report: dict[str, Any] = {
            "environment": sorted(ENVIRONMENT),
            "descriptors": [0, 1, 2, *self.compiled.order["keep"]],
            "parent_death_signal": 9,
            "user": [1] * 6,
            "securebits": 0b1110_1111,
            "hostname": "plugin",
            "pid": 1,
            "session": 1,
            "probes": {
                **dict.fromkeys(("open-canary", "stat-canary"), "ENOENT"),
                **dict.fromkeys(("write-root", "change-program"), "EROFS"),
                **dict.fromkeys(("list-root", "make-link"), "EACCES"),
                **dict.fromkeys(("socket", "fork", "execute", "signal-host"), "EPERM"),
                "start-thread": "RuntimeError",
                **dict.fromkeys(("change-owner", "writable-and-executable"), "EPERM"),
                "become-dumpable": "EPERM",
            },
        }
        shared = dict.fromkeys(("user", "pid", "net", "ipc", "uts", "cgroup", "mnt"), 1)
        nursery = {**shared, "user": 20, "pid": 21}
        mine = {**{name: 30 + n for n, name in enumerate(shared)}, "user": 20 if root else 30}
        self.evidence = Evidence(
            status={
                "PPid": str(NURSERY),
                "Threads": "1",
                "Umask": "0077",
                "NSpid": f"{PID}\t7\t1",
                "NSsid": f"{PID}\t7\t1",
                "Uid": "\t".join([outside] * 4),
                "Groups": "",
                "NoNewPrivs": "1",
                "Seccomp": "2",
                "Seccomp_filters": "3",
                **dict.fromkeys(CAPABILITIES, NONE),
            },
            own_status={
                "Uid": "\t".join([own] * 4),
                "Seccomp_filters": "2",
                "CapEff": ALL if root else NONE,
            },
            limits={
                LIMIT_NAMES[number]: (str(value), str(value))
                for number, value in self.compiled.order["rlimits"]
            },
            descriptors=6,
            namespaces=mine,
            own_namespaces=shared,
            nursery_namespaces=nursery,
            mounts=tuple(line_of(m) for m in (Mount("tmpfs", "/", 15), *self.compiled.mounts)),
            nursery_mount_points=("/", "/proc", "/dev"),
            sources={m.path: m.source for m in self.compiled.mounts if m.kind == "bind"},
            canary="ENOENT",
            membership="0::/sandbox-sample",
            nursery_pid=NURSERY,
        )

    def attested(self) -> Attested:
        """Return it."""
        parts = (self.plan, self.ids, self.compiled, self.evidence, self.report, self.environment)
        return Attested(*parts, self.group)  # type: ignore[arg-type]  # as far as it is looked at


def line_of(mount: Mount, more: frozenset[str] = frozenset({"relatime"})) -> MountLine:
    """Return how the kernel tells of a planned mount, which it may have given more options."""
    kind = {"bind": "ext4", "hidden": "tmpfs"}.get(mount.kind, mount.kind)
    data = f"rw,{mount.data}" if mount.kind in {"proc", "tmpfs"} else "rw"
    return MountLine(mount.path, mount.words | more, kind, data)


def with_layers(plan: Any, layers: tuple[Layer, ...]) -> Any:
    """Return a copy of a plan, with other layers."""
    changed = copy.copy(plan)
    object.__setattr__(changed, "layers", layers)
    return changed
