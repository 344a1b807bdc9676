"""What a plugin that may start processes needs beside the right to: its children's surroundings.

The plugin is process 1 of its pid namespace. So every process whose parent has ended becomes its
child, and stays as a zombie, which counts as a task, until it is waited for. Nobody in the plugin
knows of it, and a wait for just any child would take the exit status of one that somebody does wait
for. Those that were forked here are therefore remembered, and before each fork the others are
waited for.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from _thread import RLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import Any

    from plugin_sdk.child.io import ChildChannel
else:
    import _signal as signal  # the half in C: the other half imports enum, which is slow

_STANDARD_STREAMS = (0, 1, 2)


def prepare(channel: ChildChannel, trace_fd: int, package_dir: str) -> None:
    """Make this process one whose children work.

    Args:
        channel: the conversation with the host, which no child takes part in.
        trace_fd: where the host reads this process's stacks, and no child's.
        package_dir: the plugin's private copy, whose directory is named as the package is.
    """
    # What it executes inherits them, and so prints to the plugin's log.
    for descriptor in _STANDARD_STREAMS:
        os.set_inheritable(descriptor, True)
    # By this path multiprocessing's children find the functions that they are to run.
    sys.path.append(os.path.dirname(package_dir))
    os.register_at_fork(after_in_child=lambda: _become_another(channel, trace_fd))
    Orphans().install()


def _become_another(channel: ChildChannel, trace_fd: int) -> None:
    """In a forked child: let go of what is between the plugin's own process and the host."""
    channel.leave()
    # The host never asks a child, and must not take a child's crash for the plugin's.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    faulthandler.unregister(signal.SIGUSR1)
    faulthandler.enable(file=2)
    os.close(trace_fd)


class Orphans:
    """Waits for the children of this process that it has not forked itself.

    What native code forks without Python is taken for such a child once it has ended.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._own: set[int] = set()
        # Reentrant: what other libraries have the interpreter run at a fork may fork itself.
        self._lock = RLock()

    def install(self) -> None:
        """Have every way of Python's to fork go by here."""
        import _posixsubprocess

        for name in ("fork", "posix_spawn", "posix_spawnp"):
            setattr(os, name, self._remembering(getattr(os, name)))
        _posixsubprocess.fork_exec = self._remembering(_posixsubprocess.fork_exec)
        if loaded := sys.modules.get("subprocess"):
            loaded._fork_exec = _posixsubprocess.fork_exec  # type: ignore[attr-defined]  # noqa: SLF001 - it took the name

    def _remembering(self, fork: Callable[..., int]) -> Callable[..., int]:
        def forking(*arguments: Any, **options: Any) -> int:
            if os.getpid() != self._pid:
                return fork(*arguments, **options)
            # Held by the forking thread alone, which is the one that a copy goes on with.
            with self._lock:
                self.collect()
                child = fork(*arguments, **options)
                self._own.add(child)
            return child

        return forking

    def collect(self) -> None:
        """Wait for the orphans that have ended. Does nothing where the kernel lists no children."""
        with self._lock:
            children = _children()
            for pid in self._own - children:
                if not _is_child(pid):
                    self._own.discard(pid)
            for pid in children - self._own:
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    continue


def _children() -> set[int]:
    """Return the children of this process (proc_pid_task(5)); some may be left out, as others end.

    What is left out here is seen at another fork.
    """
    found: set[int] = set()
    try:
        threads = os.listdir("/proc/self/task")
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/self/task/{thread}/children", encoding="ascii") as listed:
                found.update(map(int, listed.read().split()))
        except OSError:  # the thread has ended, or the kernel keeps no such list
            continue
    return found


def _is_child(pid: int) -> bool:
    """Tell whether it may still be waited for, without waiting."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
