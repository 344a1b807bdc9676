"""Puts the mechanisms in order, then tries them: the last trusted code before the plugin.

The order is fixed, because each step needs what later steps take away. Places are kept for the
layers that a later version adds; the numbers are theirs as well.

 1. die with the host (set here, and again after the last change of credentials, which clears it)
 2. namespaces                        (not in this version)
 3. a process of one's own in them    (not in this version)
 4. a root of one's own               (not in this version)
 5. a session of one's own            (the host starts the child in one)
 6. resource limits
 7. descriptors, capabilities, no_new_privs
 8. Landlock, then seccomp, last
 9. read back, and one live probe per layer
"""

from __future__ import annotations

import errno
import os

from plugin_sdk.child import lockdown_linux as kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ALLOWED = "allowed"


class ConfineError(Exception):
    """A step of the lock-down was refused by the kernel.

    Attributes:
        code: the layer, by the name the host uses.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def apply_plan(plan: dict[str, Any], host_pid: int) -> dict[str, Any]:
    """Apply the compiled plan to this process and report what was read back.

    Args:
        plan: plain data from the host, trusted.
        host_pid: the parent known at spawn time.

    Raises:
        ConfineError: a layer could not be applied; the caller reports it and ends.
    """
    report: dict[str, Any] = {"environment": sorted(os.environ)}
    landlock, seccomp = plan["landlock"], plan["seccomp"]
    _step("parent-death", lambda: kernel.die_with(host_pid))  # 1
    _step("rlimits", lambda: kernel.set_rlimits(plan["rlimits"]))  # 6
    report["descriptors"] = _step("descriptors", lambda: kernel.close_others(plan["keep"]))  # 7
    _step("capabilities", kernel.drop_capabilities)
    _step("no-new-privs", kernel.forbid_new_privileges)
    _step("parent-death", lambda: kernel.die_with(host_pid))
    os.umask(0o077)
    report["parent_death_signal"] = kernel.parent_death_signal()
    if landlock is not None:  # 8
        _step(
            "landlock",
            lambda: kernel.restrict_with_landlock(
                landlock["fs"], landlock["net"], landlock["scoped"], landlock["rules"]
            ),
        )
    if seccomp is not None:
        _step("seccomp", lambda: kernel.load_filter(seccomp))
    report["probes"] = _probe(plan["canary"], host_pid)  # 9
    return report


def _step(layer: str, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except (OSError, ValueError) as error:
        text = f"the layer {layer} could not be applied: {error}"
        raise ConfineError(layer, text) from error


def _probe(canary: str, host_pid: int) -> dict[str, str]:
    """Try one forbidden thing per layer and return what each met."""
    return {
        "open-canary": _attempt(lambda: os.close(os.open(canary, os.O_RDONLY))),
        "socket": _attempt(_make_socket),
        "fork": _attempt(_fork),
        "signal-host": _attempt(lambda: os.kill(host_pid, 0)),
        "change-mode": _attempt(lambda: os.chmod(canary, 0o600)),
    }


def _attempt(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return ALLOWED


def _make_socket() -> None:
    import _socket  # the C part alone; importing `socket` would cost more than the start

    _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM).close()


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)
