"""What surrounds a host and may refuse it a layer: a container's profile, a systemd unit's options.

The kernel does not say who refused a call. Which call it was tells what to look at.
"""

from __future__ import annotations

import enum
import os
from typing import Final

_CONTAINERS_LEAVE: Final = ("/.dockerenv", "/run/.containerenv")
_IN_A_POD: Final = "KUBERNETES_SERVICE_HOST"
_IN_A_UNIT: Final = "INVOCATION_ID"

CONTAINER_CALLS: Final = (
    *("unshare", "setns", "clone", "mount", "umount2", "pivot_root", "mount_setattr"),
    "sethostname",
)
"""What a container's seccomp profile has to allow beside its engine's default, and why is in
docs/operations.md. The kernel asks for a capability all the same: one in the user namespace that
was made by the first of them."""

_LEFT_ALONE: Final = ("capset", "openat2")
"""Calls that engines' default profiles allow."""

# What a reason names, and the options of a unit that are known to refuse it (systemd.exec(5)).
_OPTIONS: Final = (
    (("sethostname",), "ProtectHostname= and SystemCallFilter="),
    (("openat2",), "RestrictSUIDSGID=, which DynamicUser= brings along"),
    (("unshare", "setns", "clone"), "RestrictNamespaces= and SystemCallFilter="),
    (("mount", "pivot_root", "capset", "SIGSYS"), "SystemCallFilter="),
)
_ANY_OPTION: Final = "RestrictNamespaces=, RestrictSUIDSGID=, ProtectHostname=, SystemCallFilter="


class Surroundings(enum.StrEnum):
    """What a host is known to run in."""

    CONTAINER = "container"
    UNIT = "unit"
    UNKNOWN = "unknown"


def surroundings() -> Surroundings:
    """Return what this process runs in, as far as that can be seen."""
    if _IN_A_UNIT in os.environ:  # first: a machine's files may have been a container's image
        return Surroundings.UNIT
    if _IN_A_POD in os.environ or any(map(os.path.exists, _CONTAINERS_LEAVE)):
        return Surroundings.CONTAINER
    return Surroundings.UNKNOWN


def remedy(reason: str, around: Surroundings) -> str:
    """Return what to do where a layer is refused.

    Args:
        reason: the call that failed, and how.
        around: what the host runs in.
    """
    options = next(
        (text for names, text in _OPTIONS if any(name in reason for name in names)), _ANY_OPTION
    )
    unit = f"take {options} out of the unit; `sandbox-host unit` prints one that lacks nothing"
    calls = ", ".join((*CONTAINER_CALLS, *(name for name in _LEFT_ALONE if name in reason)))
    container = f"allow {calls} in its seccomp profile, and mount in its AppArmor profile"
    if around is Surroundings.UNIT:
        return f"In systemd, {unit}."
    if around is Surroundings.CONTAINER:
        return f"In a container, {container}."
    return f"In a container, {container}; in systemd, {unit}."
