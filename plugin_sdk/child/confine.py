"""Puts the mechanisms in order: the last trusted code before the plugin.

The order is fixed, because each step needs what later steps take away. What a plan does not name
is not done; nothing is decided here.

 1. die with the parent (set here, and again after the last change of credentials, which clears it)
 2. the control group; namespaces, and a host name that tells nothing
 3. (a process of one's own in them: the nursery has forked it as pid 1 of its pid namespace)
 4. a root of one's own, then a user namespace below the one that owns it
 5. a session of one's own
 6. an environment of one's own, resource limits
 7. descriptors, user id, capabilities, no_new_privs
 8. Landlock, then seccomp, last
 9. read back, and one live probe per layer

What is the same for every plugin of a host may be done while the rest is not known yet, in a
process that has been given nothing of a plugin: `prepare` has of 2 all but the group and its
namespace, and of 4 the mounts that every plugin has. A plan for such a process names the rest.
"""

from __future__ import annotations

import os

from plugin_sdk.lockdown.cgroups import join_groups
from plugin_sdk.lockdown.descriptors import close_others, open_descriptors
from plugin_sdk.lockdown.identity import become
from plugin_sdk.lockdown.landlock import restrict_with_landlock
from plugin_sdk.lockdown.limits import set_rlimits
from plugin_sdk.lockdown.namespaces import nest, set_hostname, unshare
from plugin_sdk.lockdown.parent import die_with, parent_death_signal
from plugin_sdk.lockdown.privileges import (
    drop_bounding_set,
    drop_capabilities,
    forbid_new_privileges,
    securebits,
)
from plugin_sdk.lockdown.probes import try_all
from plugin_sdk.lockdown.root import begin_root, make_root
from plugin_sdk.lockdown.seccomp import load_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class ConfineError(Exception):
    """A step of the lock-down was refused by the kernel.

    Attributes:
        code: the layer, by the name the host uses.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def prepare(preparation: dict[str, Any], parent: int) -> None:
    """Do what is the same for every plugin, in a process that knows of none.

    Args:
        preparation: plain data from the host, trusted.
        parent: what getppid returned when this process was made.

    Raises:
        ConfineError: a layer could not be applied.
    """
    _step("parent-death", lambda: die_with(parent))
    _enter_namespaces(preparation["namespaces"], preparation["hostname"])
    if preparation["root"] is not None:
        _step("own-root", lambda: begin_root(preparation["root"]))


def _enter_namespaces(namespaces: list[tuple[str, int]], hostname: str) -> None:
    for layer, flag in namespaces:
        _step(layer, lambda flag=flag: unshare(flag))  # type: ignore[misc]  # bound now
    if hostname:
        _step("uts-namespace", lambda: set_hostname(hostname))


def apply_plan(plan: dict[str, Any], parent: int) -> dict[str, Any]:
    """Apply the compiled plan to this process and report what was read back.

    Args:
        plan: plain data from the host, trusted.
        parent: what getppid returned when this process was made.

    Raises:
        ConfineError: a layer could not be applied; the caller reports it and ends.
    """
    landlock = plan["landlock"]
    _step("parent-death", lambda: die_with(parent))  # 1
    process = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    left_out = _step("cgroup", lambda: join_groups(plan["groups"]))  # 2
    _enter_namespaces(plan["namespaces"], plan["hostname"])
    if plan["root"] is not None:  # 4
        _step("own-root", lambda: make_root(plan["root"]))
    else:
        os.chdir(plan["cwd"])
    if plan["nested_user"]:
        _step("user-namespace", lambda: nest(process))
    _step("session", os.setsid)  # 5
    _set_environment(plan["environment"])  # 6
    os.umask(0o077)
    _step("rlimits", lambda: set_rlimits(plan["rlimits"]))
    _step("inherited-descriptors", lambda: close_others(plan["keep"]))  # 7
    _step("capabilities", drop_bounding_set)
    if plan["uid"] is not None:
        _step("own-uid", lambda: become(plan["uid"]))
    _step("capabilities", drop_capabilities)
    _step("no-new-privs", forbid_new_privileges)
    _step("parent-death", lambda: die_with(parent))
    if landlock is not None:  # 8
        rights = landlock["fs"], landlock["net"], landlock["scoped"]
        _step("landlock", lambda: restrict_with_landlock(*rights, landlock["rules"]))
    if plan["seccomp"] is not None:
        _step("seccomp", lambda: load_filter(plan["seccomp"]))
    return {  # 9
        "environment": sorted(os.environ),
        "descriptors": open_descriptors(),
        "parent_death_signal": parent_death_signal(),
        "user": [*os.getresuid(), *os.getresgid(), *os.getgroups()],
        "securebits": securebits(),
        "hostname": os.uname().nodename,
        "left_out": left_out,
        "pid": os.getpid(),
        "session": os.getsid(0),
        "probes": try_all(plan["probes"], plan["canary"], plan["host_pid"]),
    }


def _step(layer: str, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except (OSError, ValueError) as error:
        text = f"the layer {layer} could not be applied: {error}"
        raise ConfineError(layer, text) from error


def _set_environment(variables: dict[str, str]) -> None:
    # The nursery's own is nearly the same: what is changed costs, and a page each.
    for name in [name for name in os.environ if name not in variables]:
        del os.environ[name]
    for name, value in variables.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
