"""What is the same for every plugin of a host, done before it is known for which one. Pure data.

A process that has done it has seen nothing of a plugin, and is as trusted as its nursery. What it
has mounted stands in a root that it has not entered yet. A plan fits it if what is left of that
plan can be done afterwards with the same result; what is in force is attested all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.backends.linux.compile import HOSTNAME, NAMESPACES
from sandbox_host.backends.linux.mounts import (
    SKELETON,
    Mount,
    Shared,
    entry_of,
    identified,
    links_for,
    shared_mounts,
)
from sandbox_host.model import Layer

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from sandbox_host.backends.linux.compile import Compiled

_EARLY: Final = {
    layer: flag for layer, flag in NAMESPACES.items() if layer is not Layer.CGROUP_NAMESPACE
}
"""The root of a control group namespace is the group that its maker is in, a plugin's own."""


@dataclass(frozen=True, slots=True)
class SharedPlaces:
    """Where things are that every plugin of a host has; see `Shared`."""

    python: Path
    sdk_dir: Path
    plugin_environment: Path | None


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is done in advance.

    Attributes:
        order: plain data for `plugin_sdk.child.confine.prepare`.
        mounts: those that it makes.
    """

    order: dict[str, Any]
    mounts: tuple[Mount, ...]


def preparation_for(
    shared: Shared, layers: Collection[Layer], at: Path, *, with_proc: bool
) -> Preparation:
    """Return what can be done in advance for plugins that have these layers.

    Args:
        shared: where things are that they all have.
        layers: that the machine offers.
        at: an empty directory of the host's own, to build a root on.
        with_proc: /proc can be mounted.

    Raises:
        OSError: something of that is not there.
    """
    mounts: tuple[Mount, ...] = ()
    root = None
    if Layer.OWN_ROOT in layers:
        mounts = identified(shared_mounts(shared, with_proc=with_proc))
        root = {
            "at": str(at),
            "size": SKELETON,
            "links": [list(pair) for pair in links_for(shared, mounts)],
            "mounts": [entry_of(mount) for mount in mounts],
        }
    order = {
        "namespaces": [[layer, flag] for layer, flag in _EARLY.items() if layer in layers],
        "hostname": HOSTNAME if Layer.UTS_NAMESPACE in layers else "",
        "root": root,
    }
    return Preparation(order, mounts)


def rest_of(compiled: Compiled, preparation: Preparation) -> dict[str, Any] | None:
    """Return what is left of a plan's order, or None where the plan does not fit."""
    order, done = compiled.order, preparation.order
    early = [pair for pair in order["namespaces"] if pair[0] in _EARLY]
    if (early, order["hostname"]) != (done["namespaces"], done["hostname"]):
        return None
    rest = {**order, "hostname": ""}
    rest["namespaces"] = [pair for pair in order["namespaces"] if pair not in early]
    if (order["root"] is None) != (done["root"] is None):
        return None
    if order["root"] is not None:
        left = _left(compiled.mounts, preparation.mounts)
        if left is None or order["root"]["links"] != done["root"]["links"]:
            return None
        rest["root"] = {
            "at": done["root"]["at"],
            "begun": True,
            "mounts": [entry_of(mount) for mount in left],
            "cwd": order["root"]["cwd"],
        }
    return rest


def _left(planned: tuple[Mount, ...], made: tuple[Mount, ...]) -> list[Mount] | None:
    """Return the mounts that are not made yet, unless one that is should be another or above one.

    A mount hides what was mounted below its path before.
    """
    done = set(made)
    if not done <= set(planned):
        return None
    left = [mount for mount in planned if mount not in done]
    below = tuple(f"{mount.path}/" for mount in left)
    return None if any(f"{mount.path}/".startswith(below) for mount in made) else left
