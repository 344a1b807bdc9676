"""From a plain interpreter to pid 1 of a namespace: two stages with an exec between them."""

from __future__ import annotations

import _socket  # the C part alone: the other half costs the first stage more than all the rest
import os
import sys

from plugin_sdk.lockdown.namespaces import NEWPID, NEWUSER, fork_sibling, unshare
from plugin_sdk.lockdown.parent import die_with
from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.nursery import MAX_PACKET_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


def main(arguments: list[str]) -> NoReturn:
    """Run one stage.

    Args:
        arguments: STAGE CONTROL_FD PARENT USER PID SDK_DIR; USER and PID are "1" where that
            namespace is wanted.
    """
    stage, *numbers, sdk_dir = arguments
    control_fd, parent, user, pid = map(int, numbers)
    die_with(parent)
    if stage == "outer":
        _outer(_socket.socket(fileno=control_fd), want_user=bool(user), want_pid=bool(pid))
    import socket

    from plugin_sdk.nursery.serve import serve

    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    serve(control, sdk_dir)


def _outer(control: _socket.socket, *, want_user: bool, want_pid: bool) -> NoReturn:
    """Make the namespaces, and start the second stage inside them."""
    reason = _reason(lambda: unshare(NEWUSER)) if want_user else ""
    control.send(pack({"user": reason}))
    unpack(control.recv(MAX_PACKET_BYTES))  # the host has written the maps
    child, reason = 0, ""
    if want_pid:
        try:
            child = fork_sibling(NEWPID)
        except OSError as error:
            reason = str(error)
        else:
            if child == 0:
                _exec_inner(parent=0)  # its parent is outside its pid namespace
    control.send(pack({"pid": reason, "process": child}))
    if child:
        os._exit(0)
    _exec_inner(parent=os.getppid())


def _reason(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as error:
        return str(error)
    return ""


def _exec_inner(parent: int) -> NoReturn:
    """Start this program again: memory of the first stage belongs to the namespace outside."""
    command = list(sys.orig_argv)
    place = command.index("outer")
    command[place] = "inner"
    command[place + 2] = str(parent)
    os.execv(command[0], command)  # noqa: S606 - the interpreter that runs this
