"""The nouns of the house: plain immutable values that the rooms hand to each other.

Nothing here reads a file, a clock or a process. Units are in the names.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

PLUGIN_API_VERSION: Final = "1.0.0"
"""Version of the interface between host and plugin; plugin.json calls it ``core_framework``."""

MIB: Final = 1024 * 1024


def identity_of(name: str) -> str:
    """Return the snake-case identity of a plugin name: ``MyPlugin`` and ``my_plugin`` are one."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return snake.lower()


INSTANCE_MARK: Final = "@"
"""Between a plugin's identity and the name of one of its instances; in no name of either."""


def plugin_of(identity: str) -> tuple[str, str]:
    """Return the plugin of an identity, and its instance; "" for the plugin itself."""
    plugin, _, instance = identity.partition(INSTANCE_MARK)
    return plugin, instance


class Layer(enum.StrEnum):
    """A layer of confinement, by the name the operator, the receipt and `doctor` use.

    In the order in which they are applied. No name is also that of a `Guarantee`.
    """

    PARENT_DEATH = "parent-death"
    ENVIRONMENT = "environment"
    CGROUP = "cgroup"
    USER_NAMESPACE = "user-namespace"
    PID_NAMESPACE = "pid-namespace"
    NETWORK_NAMESPACE = "network-namespace"
    IPC_NAMESPACE = "ipc-namespace"
    UTS_NAMESPACE = "uts-namespace"
    CGROUP_NAMESPACE = "cgroup-namespace"
    OWN_ROOT = "own-root"
    OWN_UID = "own-uid"
    RLIMITS = "rlimits"
    INHERITED_DESCRIPTORS = "inherited-descriptors"
    CAPABILITIES = "capabilities"
    NO_NEW_PRIVS = "no-new-privs"
    LANDLOCK = "landlock"
    SECCOMP = "seccomp"
    WATCHDOG = "watchdog"


FIXED_LAYERS: Final = frozenset(
    {
        *(Layer.PARENT_DEATH, Layer.ENVIRONMENT, Layer.INHERITED_DESCRIPTORS),
        *(Layer.CAPABILITIES, Layer.NO_NEW_PRIVS, Layer.WATCHDOG),
    }
)
"""Layers that no configuration switches off: every system has them, and no plugin needs less."""


class LayerStatus(enum.StrEnum):
    """What a layer is worth right now, on this machine, for this plugin."""

    ACTIVE = "active"
    DEGRADED = "degraded"
    UNAVAILABLE = "unavailable"
    DISABLED = "disabled"


class Guarantee(enum.StrEnum):
    """What holds for a confined plugin, whichever layers bring it about.

    The words are promises: `sandbox_host.guarantees` says which layers keep each of them.
    """

    FILES = "files"
    NETWORK = "network"
    PROCESSES = "processes"
    PROGRAMS = "programs"
    KERNEL_SURFACE = "kernel-surface"
    SECRETS = "secrets"
    LIFETIME = "lifetime"
    MEMORY = "memory"
    CPU = "cpu"
    TASKS = "tasks"
    DESCRIPTORS = "descriptors"
    DISK = "disk"


@dataclass(frozen=True, slots=True)
class GuaranteeReport:
    """One guarantee's standing.

    Attributes:
        status: `DEGRADED` means that it is kept, with the restriction that ``detail`` names.
        detail: the layers that keep it, or which ones could.
    """

    guarantee: Guarantee
    status: LayerStatus
    detail: str


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer's standing.

    Attributes:
        detail: for an active layer what was read back; otherwise the reason.
        remedy: what the operator can do about a missing layer.
    """

    layer: Layer
    status: LayerStatus
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Enforced:
    """One limit or permission, and the mechanism that enforces it now.

    Attributes:
        name: the field of `Limits` or `Permissions`.
        value: what is in force, with its unit.
        mechanism: what enforces it, as it was read back.
    """

    name: str
    value: str
    mechanism: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What confines one plugin now. Every word is read back from the kernel, none is planned.

    Attributes:
        pid: as the host sees it; a plugin in a namespace of its own has another number inside.
    """

    plugin: str
    pid: int
    layers: tuple[LayerReport, ...]
    guarantees: tuple[GuaranteeReport, ...] = ()
    limits: tuple[Enforced, ...] = ()
    permissions: tuple[Enforced, ...] = ()

    @property
    def active(self) -> tuple[Layer, ...]:
        """The layers that are in force."""
        return tuple(r.layer for r in self.layers if r.status is LayerStatus.ACTIVE)


@dataclass(frozen=True, slots=True)
class Limits:
    """Budgets of one plugin.

    Attributes:
        memory_bytes: resident memory of the plugin's process, without pages of files.
        cpu_seconds: CPU time of one operation.
        cpu_total_seconds: CPU time of the process's whole life; the kernel's backstop.
        wall_seconds: the deadline of a call that names none.
        descriptors: open file descriptors.
        threads: threads of the process; of all of them, where it may start more.
        file_bytes: the size of any one file.
        scratch_bytes: the scratch directory in total, which is memory where it is a file system
            of the plugin's own.
        data_bytes: the data directory in total, as allocated on disk.
        data_files: names in the data directory, directories included.
        store_bytes: keys and values in its store.
        cpu_seconds_per_minute: CPU time in any 60 seconds, of operations and between them.
        cpu_weight: share of the CPU beside other plugins, from 1 to 10,000, where they compete
            for it; one of twice the weight gets twice the time.
        messages_per_second: messages that answer nothing, such as events, in the long run.
        message_bytes_per_second: the payloads of those.
        log_bytes_per_second: what it prints, in the long run.
        network_bytes_per_minute: what passes through its connections in any 60 seconds, both ways.
    """

    memory_bytes: int = 512 * MIB
    cpu_seconds: float = 60.0
    cpu_total_seconds: int = 86_400
    wall_seconds: float = 60.0
    descriptors: int = 1_000
    threads: int = 64
    file_bytes: int = 256 * MIB
    scratch_bytes: int = 64 * MIB
    data_bytes: int = 1024 * MIB
    data_files: int = 20_000
    store_bytes: int = 16 * MIB
    cpu_seconds_per_minute: float = 120.0
    cpu_weight: int = 100
    messages_per_second: int = 2_000
    message_bytes_per_second: int = MIB
    log_bytes_per_second: int = MIB
    network_bytes_per_minute: int = 1024 * MIB


@dataclass(frozen=True, slots=True)
class OperationLimits:
    """Tighter budgets for one call; None leaves the plugin's own. Above those they change nothing.

    Attributes:
        cpu_seconds: CPU time of this operation.
        memory_bytes: resident memory of the plugin while it works on this.
        threads: threads of the process meanwhile.
    """

    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a plugin may do beyond computing; each is off unless requested and granted.

    Attributes:
        publish: event types it may publish, and patterns of them.
        subscribe: event types it may handle, and patterns of them.
        read: absolute paths it may read, with all that is below.
        write: absolute paths it may write, with all that is below: make, change and remove files
            and directories. To read what is there takes ``read`` as well.
        network: ``host:port`` entries it may connect to.
        unix: absolute paths of the Unix sockets it may connect to; never beside ``network``.
        env: names of the host's environment variables it may see, exact ones; their values are
            handed over when it starts.
        native_code: it may bring shared objects and make code in memory. What native code can *do*
            is held by the same layers, with this permission or without.
        services: names of the services that it may ask for: the embedding application's, and those
            of `HOST_SERVICES`.
        calls: operations of other plugins that it may call, and patterns of them, such as
            ``weather_source.read``; the other plugin has to export them.
        subprocess: it may start processes: forks of its own, and its interpreter.
        threads: it may start threads, as many as `Limits.threads` lets it.
    """

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    network: tuple[str, ...] = ()
    unix: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    native_code: bool = False
    subprocess: bool = False
    threads: bool = False


@dataclass(frozen=True, slots=True)
class Grant(Permissions):
    """One table of the operator's.

    Attributes:
        named: the permissions that it names, also those that it leaves empty or false: what is
            granted without a word is not where a table names it.
    """

    named: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Manifest:
    """plugin.json, read strictly. `sandbox_host.bundle.plugin_json` is its only reader.

    Attributes:
        name: as its author wrote it; `identity` is what the host goes by.
        concurrency: how many calls it works on at a time.
        exports: operations that other plugins may call.
        limits: the limits that plugin.json names, by `Limits` field; others take the default.
        config_schema: schema of `config`, or None.
        enabled: ``config.enabled``; False means discovered and disabled.
        notes: what the reader should be told although it is accepted.
    """

    name: str
    identity: str
    version: str
    description: str
    author: str
    license: str = ""
    capabilities: tuple[str, ...] = ()
    dependencies: tuple[str, ...] = ()
    permissions: Permissions = field(default_factory=Permissions)
    config: MappingProxyType[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    config_schema: MappingProxyType[str, Any] | None = None
    events: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    limits: MappingProxyType[str, int | float] = field(default_factory=lambda: MappingProxyType({}))
    plugin_api: str = PLUGIN_API_VERSION
    concurrency: int = 1
    enabled: bool = True
    notes: tuple[str, ...] = ()


class State(enum.StrEnum):
    """Where a plugin stands in its life; `sandbox_host.runtime.lifecycle` has the table."""

    ADMITTED = "admitted"
    CONFINING = "confining"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class Cause(enum.StrEnum):
    """Why a plugin's process ended. Told apart by what the kernel says, never guessed."""

    UNLOADED = "unloaded"
    HOST_SHUTDOWN = "host-shutdown"
    MEMORY = "memory"
    CPU = "cpu"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    UNRESPONSIVE = "unresponsive"
    THREADS = "threads"
    DISK = "disk"
    NETWORK = "network"
    PROTOCOL_VIOLATION = "protocol-violation"
    SYSCALL = "forbidden-syscall"
    CRASHED = "crashed"
    EXITED = "exited"
    KILLED = "killed-from-outside"
    START_FAILED = "start-failed"
    UNKNOWN = "unknown"


STANDARD_EVENTS: Final = frozenset(
    {
        "data_processed",
        "model_updated",
        "error_occurred",
        "plugin_loaded",
        "plugin_unloaded",
        "user_action",
    }
)
HOST_EVENTS: Final = frozenset({"plugin_loaded", "plugin_unloaded", "plugin_state"})
"""Event types that only the host may publish."""


HOST_SERVICES: Final = frozenset({"store"})
"""Services that every host has by itself, and no application offers."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. The host stamps source and time: nobody speaks for another.

    Attributes:
        source: identity of the plugin that published it, or "host".
        timestamp: seconds since the epoch, UTC.
        id: increases with every event of this host; what a durable subscription got keeps its id
            over restarts, and shares it with none.
    """

    type: str
    data: Any
    timestamp: float
    source: str
    id: int


@dataclass(frozen=True, slots=True)
class CallUsage:
    """What one call cost, as the host measured it from outside.

    Attributes:
        cpu_seconds: of the plugin's process from the moment it had nothing older to answer until
            its answer was read, its background threads included.
        wall_seconds: from sending to the answer, waiting for its turn included.
        bytes_out: of the arguments, packed.
        bytes_in: of the result or error, packed; 0 where none came.
    """

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    bytes_out: int = 0
    bytes_in: int = 0


@dataclass(frozen=True, slots=True)
class Metered:
    """The value that an operation returned, and what it cost."""

    value: Any
    usage: CallUsage


@dataclass(frozen=True, slots=True)
class OperationUsage:
    """What all answered calls of one operation have cost; see `CallUsage`."""

    calls: int
    failures: int
    cpu_seconds: float
    wall_seconds: float
    bytes_out: int
    bytes_in: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a plugin has cost so far, as the host measured it from outside.

    Attributes:
        held_back_seconds: for how long it was not read, because it sent or printed too much.
        connections: that the host made for it and handed over.
        network_bytes_sent: through those, as TCP counts payload; of a connection that has just
            ended, its last bytes come a moment later. 0 where the kernel does not tell.
        network_bytes_received: the same; the other side's end counts as one.
        operations: by operation, what its answered calls have cost.
    """

    cpu_seconds: float = 0.0
    memory_peak_bytes: int = 0
    descriptors_peak: int = 0
    threads_peak: int = 0
    calls: int = 0
    failures: int = 0
    p50_seconds: float = 0.0
    p99_seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    held_back_seconds: float = 0.0
    connections: int = 0
    network_bytes_sent: int = 0
    network_bytes_received: int = 0
    operations: MappingProxyType[str, OperationUsage] = field(
        default_factory=lambda: MappingProxyType({})
    )


@dataclass(frozen=True, slots=True)
class Denial:
    """Something that a plugin was refused, as its own process reports: advice, never evidence.

    Attributes:
        rule: the permission that it is about, by its name in plugin.json; "bundle" for the
            plugin's own files, "never" for what no permission opens.
        asked: what for, as the plugin wrote it: hostile text; "" where that is not known.
        place: the line of the plugin's code, such as "main.py:12 in predict", or "".
        request: what plugin.json would say to ask for it; "" where that would not help.
        text: all of it in the host's words, without a full stop; safe to show.
    """

    rule: str
    asked: str = ""
    place: str = ""
    request: str = ""
    text: str = ""
