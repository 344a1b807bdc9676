"""What a process that was locked down tries, and what it must meet there: one table for both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sandbox_host.model import Layer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.model import Permissions

PASSED: Final = "allowed"

NETWORK_PROBES: Final = ("connect", "fast-open", "datagram-socket", "unix-socket")
"""What a plugin tries that has connections: to make one of its own."""

UNIX_PROBES: Final = ("unix-datagram-socket", "unix-bind", "unix-listen", "unix-message")
"""What a plugin tries that connects to Unix sockets: all but that."""

# By the layer that is to stop it. With an own root the canary is not there; with Landlock alone it
# is, and cannot be opened. The root itself is there either way, readable by everybody, and in no
# rule: it tells Landlock from an own root.
_BY_LAYER: Final[Mapping[Layer, Mapping[str, frozenset[str]]]] = {
    Layer.OWN_ROOT: {
        "open-canary": frozenset({"ENOENT"}),
        "stat-canary": frozenset({"ENOENT"}),
        "write-root": frozenset({"EROFS", "EACCES"}),
        # ENOENT: there is no /proc.
        "change-program": frozenset({"EROFS", "ENOENT"}),
    },
    Layer.LANDLOCK: {
        "open-canary": frozenset({"EACCES", "ENOENT"}),
        "list-root": frozenset({"EACCES"}),
        "make-link": frozenset({"EACCES"}),
    },
    Layer.SECCOMP: dict.fromkeys(
        (
            *("socket", "fork", "execute", "signal-host", "change-owner", "become-dumpable"),
            "writable-and-executable",
        ),
        frozenset({"EPERM"}),
    ),
}

# Where it may start processes: its interpreter runs, and Landlock has the last word on any other
# file, also on one whose mount would let it be executed. There is no other process to signal, and
# none may continue what the host has stopped.
_WITH_PROCESSES: Final = {
    "fork": frozenset({PASSED}),
    "execute": frozenset({"EACCES"}),
    "signal-host": frozenset({"ESRCH"}),
    "start-interpreter": frozenset({PASSED}),
    "execute-own-file": frozenset({"EACCES"}),
    "execute-library": frozenset({"EACCES"}),
    "resume-self": frozenset({"EPERM"}),
}


def probes_of(plan: SandboxPlan) -> list[str]:
    """Return what the child is to try."""
    names = (
        name
        for layer in _BY_LAYER
        if layer in plan.layers
        for name in expected(layer, plan.permissions)
    )
    return list(dict.fromkeys(names))


def expected(layer: Layer, permissions: Permissions) -> dict[str, frozenset[str]]:
    """Return what each probe of a layer may meet: names of errors, or `PASSED`."""
    found = dict(_BY_LAYER[layer])
    if layer is not Layer.SECCOMP:
        return found
    denied = frozenset({"EPERM"})
    if permissions.native_code:
        found["writable-and-executable"] = frozenset({PASSED})
    if permissions.network:
        # It may make a TCP socket, for the host to put a connection in its place; no more.
        found |= {"socket": frozenset({PASSED}), **dict.fromkeys(NETWORK_PROBES, denied)}
    if permissions.unix:
        found |= {"unix-socket": frozenset({PASSED}), **dict.fromkeys(UNIX_PROBES, denied)}
    if permissions.subprocess:
        found |= _WITH_PROCESSES
    if not permissions.threads:
        found["start-thread"] = frozenset({"RuntimeError"})
    return found
