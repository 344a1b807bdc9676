"""What an operator granted and the plugin will not have all the same: told in the log at load."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox_host.catalog.environment import read_fault, write_fault
from sandbox_host.model import Layer
from sandbox_host.network.unix import listening_fault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox_host.admission.plan import SandboxPlan


def shortfalls(plan: SandboxPlan) -> tuple[str, ...]:
    """Return a note for each granted path and variable that the plugin cannot make use of.

    And one where a server would take the plugin for the host's own user.
    """
    paths = (*_unreadable_grants(plan), *_unwritable_grants(plan))
    return (*paths, *_deaf_sockets(plan), *unset_variables(plan))


def _unreadable_grants(plan: SandboxPlan) -> list[str]:
    """Return which granted paths the plugin could not read, because it has a user of its own.

    In a root of its own it reaches a path whatever the modes of the directories above.
    """
    if Layer.OWN_UID not in plan.layers:
        return []
    notes = []
    for path in map(Path, plan.permissions.read):
        above = () if Layer.OWN_ROOT in plan.layers else path.parents
        for needed in (path, *above):
            if fault := read_fault(needed):
                notes.append(
                    f"it is granted {path}, and cannot read it with a user id of its own: for "
                    f"{needed}, {fault}; to open it: chmod o+rX {needed}"
                )
                break
    return notes


def _unwritable_grants(plan: SandboxPlan) -> list[str]:
    """Return which granted paths the plugin cannot write to, because of their modes or mounts.

    A plugin with a user of its own writes where everybody may; another one where the host may. A
    file that it makes belongs to that user.
    """
    notes = []
    for path in map(Path, plan.permissions.write):
        if Layer.OWN_UID in plan.layers:
            if fault := write_fault(path):
                notes.append(
                    f"it is granted to write to {path}, and cannot with a user id of its own: "
                    f"{fault}; to open it: chmod o+w{'x' if path.is_dir() else ''} {path}"
                )
        elif path.exists() and not os.access(path, os.W_OK):
            notes.append(f"it is granted to write to {path}, where this host itself may not write")
    return notes


def _deaf_sockets(plan: SandboxPlan) -> list[str]:
    """Return at which granted Unix sockets the plugin would not be heard, and as whom it is."""
    notes = []
    for path in plan.permissions.unix:
        if fault := listening_fault(path):
            notes.append(
                f"it is granted the Unix socket {path}, and {fault}: a server that starts makes "
                "another socket, so that the plugin has to be loaded after it"
            )
        if Layer.OWN_UID not in plan.layers:
            notes.append(
                f"it connects to {path} as this host's own user: what the server lets that user "
                "do by its name, it lets the plugin do"
            )
        elif fault := write_fault(Path(path)):
            notes.append(
                f"it is granted the Unix socket {path}, and cannot connect with a user id of its "
                f"own: {fault}; to open it: chmod o+w {path}, or the server's own setting"
            )
    return notes


def unset_variables(plan: SandboxPlan, source: Mapping[str, str] | None = None) -> list[str]:
    """Return which granted variables the host's environment does not have.

    Args:
        plan: the plugin's.
        source: the host's environment; that of this process by default.
    """
    there = os.environ if source is None else source
    return [
        f"it is granted the environment variable {name}, which is not set in the host: it sees none"
        for name in plan.permissions.env
        if name not in there
    ]
