"""Forks children when the host asks, and tells how each of them ended."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import gc
import importlib
import os
import resource
import select
import signal
import socket

from plugin_sdk.child import __main__ as child
from plugin_sdk.lockdown.namespaces import NEWPID, join, unshare
from plugin_sdk.nursery.trial import PassingError, try_layers
from plugin_sdk.wire.arena import map_arena
from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.message import PLUGIN
from plugin_sdk.wire.nursery import (
    CHILD_DESK,
    CHILD_IN,
    CHILD_OUT,
    CHILD_TRACE,
    EXIT_RECORD,
    MAX_PACKET_BYTES,
    PASSED_DESCRIPTORS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_MOST_DESCRIPTORS = 1 << 20
_PARKING = 32
_ARENA = 5  # its place among what is passed
_CHILDREN_NEED = (
    *("confine", "faults", "interface", "loader", "logging_bridge", "loop", "running"),
)


def serve(control: socket.socket, sdk_dir: str) -> NoReturn:
    """Answer the host until it is gone; then end, and everything that was forked with it.

    Args:
        control: packets of the host's; descriptors travel beside them.
        sdk_dir: a directory for trials to mount on.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nursery = Nursery(control)
    message = unpack(control.recv(MAX_PACKET_BYTES))
    try:
        found = try_layers(nursery.fork, message, sdk_dir)
    except PassingError as error:
        found = {"passing": str(error)}
    control.send(pack(found))
    # What is here now is shared with every child; a collection would copy it (gc.freeze).
    for module in _CHILDREN_NEED:
        importlib.import_module(f"plugin_sdk.child.{module}")
    child.prepare_streams()
    # The first time, it makes the types of a syntax tree: a millisecond, and half a MiB.
    compile("", "<nursery>", "exec")
    gc.collect()
    gc.disable()
    gc.freeze()
    nursery.run()


class Nursery:
    """The children, by the descriptor that tells of their end."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._children: dict[int, tuple[int, int]] = {}
        self._poller = select.epoll()
        self._poller.register(control.fileno(), select.EPOLLIN)

    def run(self) -> NoReturn:
        """Serve until the host's end of the socket is closed."""
        while True:
            for descriptor, _ in self._poller.poll():
                if descriptor != self._control.fileno():
                    self._reap(descriptor)
                elif not self._serve_one():
                    self._leave()

    def fork(self, *, own_pid: bool) -> int:
        """Fork; where ``own_pid``, a child that is pid 1 of a pid namespace of its own.

        Raises:
            OSError: the kernel refuses the namespace or the process.
        """
        if own_pid:
            unshare(NEWPID)
        try:
            pid = os.fork()
        except OSError:
            if own_pid:
                self._return()
            raise
        if pid and own_pid:
            self._return()
        return pid

    def _return(self) -> None:
        """Have later children born here: a second unshare would fail without this."""
        join(self._namespace, NEWPID)

    def _serve_one(self) -> bool:
        """Take one request; False at the end of the stream."""
        data, ancillary, _, _ = self._control.recvmsg(
            MAX_PACKET_BYTES, socket.CMSG_SPACE(4 * PASSED_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC
        )
        if not data:
            return False
        descriptors = array.array("i")
        for _, _, passed in ancillary:
            descriptors.frombytes(passed)
        request = unpack(data)
        ends = list(descriptors)
        try:
            self._spawn(ends, request)
        except OSError as error:
            answer = {"id": request["id"], "error": str(error), "errno": error.errno or errno.EIO}
            self._control.send(pack(answer))
            os.close(ends[-1])
        finally:
            for end in ends[:-1]:
                os.close(end)
        return True

    def _spawn(self, ends: list[int], request: dict[str, Any]) -> None:
        own_pid, me = request["own_pid"], os.getpid()
        pid = self.fork(own_pid=own_pid)
        if pid == 0:
            _become_child(ends, 0 if own_pid else me, request["preparation"])
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._children[descriptor] = (pid, ends[-1])
        self._poller.register(descriptor, select.EPOLLIN)
        socket.send_fds(self._control, [pack({"id": request["id"], "error": ""})], [descriptor])

    def _reap(self, descriptor: int) -> None:
        pid, exit_fd = self._children.pop(descriptor)
        self._poller.unregister(descriptor)
        os.close(descriptor)
        _, status, usage = os.wait4(pid, 0)
        cpu = int((usage.ru_utime + usage.ru_stime) * 1_000_000)
        record = EXIT_RECORD.pack(status, cpu, usage.ru_maxrss * 1_024)
        with contextlib.suppress(BrokenPipeError):  # the host does not want to know any more
            os.write(exit_fd, record)
        os.close(exit_fd)

    def _leave(self) -> NoReturn:
        """End all children. As pid 1 this is the kernel's work; elsewhere it is ours."""
        for descriptor in self._children:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os._exit(0)


def _become_child(ends: list[int], parent: int, preparation: dict[str, Any] | None) -> NoReturn:
    """In the forked process: keep what is the plugin's, under fixed numbers, and start."""
    try:
        # No descriptor of it is kept: by one, what the plugin writes could be mapped as code.
        arena = map_arena(ends.pop(_ARENA), PLUGIN, for_ever=True)
        given = dict(
            zip((CHILD_IN, CHILD_OUT, 1, 2, CHILD_TRACE, CHILD_DESK), ends[:-1], strict=False)
        )
        parked = {}
        for number, end in given.items():
            parked[number] = _above(end, _PARKING)
        for number, end in parked.items():
            os.dup2(end, number, inheritable=False)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 0, inheritable=False)
        os.closerange(max(given) + 1, _MOST_DESCRIPTORS)
    except BaseException:  # noqa: BLE001 - this process must not go on as a second nursery
        os._exit(child.EXIT_INTERNAL)
    child.main(CHILD_IN, CHILD_OUT, CHILD_TRACE, parent, arena, preparation)


def _above(descriptor: int, floor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, floor)
