"""From a plain interpreter to pid 1 of a namespace: two stages with an exec between them."""

from __future__ import annotations

import _socket  # the C part alone: the other half costs the first stage more than all the rest
import errno
import os
import sys

from plugin_sdk.lockdown.namespaces import NEWNS, NEWPID, NEWUSER, fork_sibling, unshare
from plugin_sdk.lockdown.parent import die_with
from plugin_sdk.lockdown.root import (
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    mount,
    restrict,
)
from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.nursery import MAX_PACKET_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import NoReturn
else:
    import _signal as signal  # the half in C, like _socket above


def main(arguments: list[str]) -> NoReturn:
    """Run one stage.

    Args:
        arguments: STAGE CONTROL_FD PARENT USER PID SDK_DIR; USER and PID are "1" where that
            namespace is wanted.
    """
    stage, *numbers, sdk_dir = arguments
    control_fd, parent, user, pid = map(int, numbers)
    die_with(parent)
    # An application may ignore it, and an exec keeps that: then nobody could wait for a child.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
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
            if error.errno in {errno.EAGAIN, errno.ENOMEM}:
                control.send(pack({"passing": str(error)}))
                os._exit(0)
            reason = str(error)
        else:
            if child == 0:
                _exec_inner(parent=0)  # its parent is outside its pid namespace
    control.send(pack({"pid": reason, "process": child}))
    if child:
        os._exit(0)
    _exec_inner(parent=os.getppid())


def _protect_program() -> None:
    """See the interpreter's file through a read-only mount from here on.

    ``/proc/self/exe`` leads a plugin to it, around the plugin's own root, and what the owner of a
    file may do to it, Landlock does not rule on. Where this cannot be done, neither can a root of
    one's own be made, and a plugin may change no modes or times at all; a probe sees to it.
    """
    program = os.path.realpath(sys.orig_argv[0])
    try:
        unshare(NEWNS)
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        mount(program, program, None, MS_BIND)
        restrict(program, MS_RDONLY | MS_NOSUID | MS_NODEV, recursive=False)
    except OSError:
        return
    sys.orig_argv[0] = program


def _reason(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as error:
        return str(error)
    return ""


def _exec_inner(parent: int) -> NoReturn:
    """Start this program again: memory of the first stage belongs to the namespace outside."""
    _protect_program()
    command = list(sys.orig_argv)
    place = command.index("outer")
    command[place] = "inner"
    command[place + 2] = str(parent)
    os.execv(command[0], command)  # noqa: S606 - the interpreter that runs this
