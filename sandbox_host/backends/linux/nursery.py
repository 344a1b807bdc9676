"""The host's end of a nursery: boots it, writes its id maps, asks it for children.

PR_SET_PDEATHSIG fires when the *thread* that forked exits, not the process (prctl(2)), so every
nursery is started by one thread that lives as long as the host.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.nursery import MAX_PACKET_BYTES
from sandbox_host.backends.worker import Worker
from sandbox_host.model import Layer

if TYPE_CHECKING:
    from collections.abc import Sequence

BOOT: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from plugin_sdk.nursery.__main__ import main; main(sys.argv[2:])"
)
# Isolated, without site-packages, without writing byte code.
_ISOLATED: Final = ("-I", "-S", "-B", "-X", "utf8", "-c")

_PATIENCE_SECONDS: Final = 20.0
_DYING_SECONDS: Final = 2.0
_FALLING_SECONDS: Final = 0.2
"""How long a process that cannot be looked at any more may take until its end is told."""

_ENDED_EARLY: Final = "the nursery ended while it was started"
_LAST_WORDS_BYTES: Final = 4_096

_TRIED: Final = (
    *(Layer.PID_NAMESPACE, Layer.NETWORK_NAMESPACE, Layer.IPC_NAMESPACE, Layer.UTS_NAMESPACE),
    *(Layer.CGROUP_NAMESPACE, Layer.OWN_ROOT),
)

_spawner = Worker("sandbox-host-spawner")


def _renew_spawner() -> None:
    """A forked copy of the host has no threads; give it a spawner of its own."""
    global _spawner
    _spawner = Worker("sandbox-host-spawner")


os.register_at_fork(after_in_child=_renew_spawner)


@dataclass(frozen=True, slots=True)
class Ground:
    """What a nursery is made of and from.

    Attributes:
        python: the interpreter.
        sdk_dir: private copy of `plugin_sdk` and `msgpack`.
        environment: the whole of its environment.
        disabled: layers that are switched off.
        uids: first and number of the user ids for plugins, used where the host is root.
    """

    python: Path
    sdk_dir: Path
    environment: dict[str, str]
    disabled: frozenset[Layer]
    uids: tuple[int, int]


class _NoMapError(Exception):
    """The user namespace was made, and its ids could not be mapped."""


class Nursery:
    """A running nursery. Thread-safe.

    Attributes:
        pid: as the host sees it.
        reasons: for each layer that was tried "" if it works here, else why not.
        user_namespace: the nursery is in a user namespace of its own.
        has_range: and more than its own id is mapped there.
        own_pid: children become pid 1 of a namespace of their own.
    """

    def __init__(self, ground: Ground, *, with_trial: bool = True) -> None:
        """Boot.

        Args:
            ground: what to make it of.
            with_trial: find out what works; without, `reasons` is empty.

        Raises:
            OSError: there is no process, or it does not answer.
        """
        self.reasons: dict[str, str] = {}
        self._lock = threading.Lock()
        self._closed = False
        _spawner.submit(lambda: self._boot(ground, with_trial=with_trial)).result()

    def _boot(self, ground: Ground, *, with_trial: bool) -> None:
        self.user_namespace = Layer.USER_NAMESPACE not in ground.disabled
        try:
            self._start(ground, with_trial=with_trial)
        except _NoMapError as error:
            # It is nobody in its own namespace now: again, without one.
            self.user_namespace = False
            self._start(ground, with_trial=with_trial)
            self.reasons[Layer.USER_NAMESPACE] = str(error)

    def _start(self, ground: Ground, *, with_trial: bool) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(_PATIENCE_SECONDS)
        self._words, their_words = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        want_pid = Layer.PID_NAMESPACE not in ground.disabled
        flags = [str(int(self.user_namespace)), str(int(want_pid))]
        numbers = [str(theirs.fileno()), str(os.getpid()), *flags, str(ground.sdk_dir)]
        try:
            self._process = subprocess.Popen(
                [*self._command(ground), "outer", *numbers],
                stdin=subprocess.DEVNULL,
                # A pipe, as its children have there: they inherit the streams of Python for it.
                stdout=their_words,
                stderr=their_words,
                env=ground.environment,
                cwd="/",
                pass_fds=(theirs.fileno(),),
                close_fds=True,
                start_new_session=True,
            )
        except BaseException:
            self._control.close()
            os.close(self._words)
            raise
        finally:
            theirs.close()
            os.close(their_words)
        self.pid, self._exit_fd = self._process.pid, -1
        try:
            self._grow_up(ground, want_pid=want_pid, with_trial=with_trial)
        except BaseException:
            self._end()
            raise

    def _command(self, ground: Ground) -> list[str]:
        return [str(ground.python), *_ISOLATED, BOOT, str(ground.sdk_dir)]

    def _grow_up(self, ground: Ground, *, want_pid: bool, with_trial: bool) -> None:
        """Go through the stages with it."""
        self._exit_fd = os.pidfd_open(self.pid)
        self.has_range = os.geteuid() == 0
        reason = self._receive()["user"]
        if reason:
            self.reasons[Layer.USER_NAMESPACE] = reason
            self.user_namespace = False
        elif self.user_namespace:
            self._write_maps(ground.uids)
        self._control.send(codec.pack({}))
        answer = self._receive()
        if answer["process"]:
            self._process.wait(_PATIENCE_SECONDS)
            os.close(self._exit_fd)
            self._exit_fd = -1
            self.pid = int(answer["process"])
            self._exit_fd = os.pidfd_open(self.pid)
        elif answer["pid"]:
            self.reasons[Layer.PID_NAMESPACE] = answer["pid"]
        self.own_pid = bool(answer["process"])
        tries = self._tries(ground, want_pid=want_pid) if with_trial else []
        uid = 1 if self.user_namespace else ground.uids[0]
        request = {"own_pid": self.own_pid, "uid": uid, "tries": tries}
        self._control.send(codec.pack(request))
        self.reasons = {**self._receive(), **self.reasons}

    def _tries(self, ground: Ground, *, want_pid: bool) -> list[str]:
        tries: list[str] = [layer for layer in _TRIED if layer not in ground.disabled]
        if Layer.OWN_ROOT in tries:
            tries.append("proc")
        if os.geteuid() == 0:
            tries += [Layer.OWN_UID] if Layer.OWN_UID not in ground.disabled else []
        elif self.user_namespace:
            tries.append(Layer.USER_NAMESPACE)
        if want_pid and not self.own_pid:
            tries.remove(Layer.PID_NAMESPACE)
        return tries

    def _write_maps(self, uids: tuple[int, int]) -> None:
        """Map our own user as 0, and where we are root the plugins' range as 1 and following.

        As any other number it would lose its capabilities when it execs (capabilities(7)).
        """
        first, count = uids
        uid, gid = os.geteuid(), os.getegid()
        more = f"\n1 {first} {count}" if self.has_range else ""
        maps = {"uid_map": f"0 {uid} 1{more}", "gid_map": f"0 {gid} 1{more}"}
        if not self.has_range:
            maps = {"setgroups": "deny", **maps}
        for name, text in maps.items():
            try:
                descriptor = os.open(f"/proc/{self.pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(descriptor, text.encode())
                finally:
                    os.close(descriptor)
            except OSError as error:
                if _has_ended(self._exit_fd, _FALLING_SECONDS):
                    # Says nothing about the machine, and must not cost the host this layer.
                    raise OSError(_ENDED_EARLY) from error
                reason = f"writing {name}: {error.strerror}"
                raise _NoMapError(reason) from error

    def _receive(self) -> dict[str, Any]:
        try:
            self._await_word()
            data = self._control.recv(MAX_PACKET_BYTES)
            answer = codec.unpack(data) if data else None
        except PayloadError as error:
            text = f"the nursery answered with nonsense: {error}"
            raise OSError(text) from error
        except TimeoutError as error:
            text = f"the nursery did not answer in {_PATIENCE_SECONDS:g} s"
            raise OSError(text) from error
        if not isinstance(answer, dict):
            text = f"{_ENDED_EARLY}{self._last_words()}"
            raise OSError(text)
        return answer

    def _await_word(self) -> None:
        """Wait until it has said something, or ended.

        The end of the stream tells of its end only where nothing else holds the other side: a
        first stage may have ended that has started the second and not told of it.
        """
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._exit_fd, select.POLLIN)
        ready = [end for end, _ in poller.poll(_PATIENCE_SECONDS * 1_000)]
        if not ready:
            raise TimeoutError
        if ready == [self._exit_fd] and not _has_ended(self._control.fileno()):
            raise OSError(_ENDED_EARLY + self._last_words())

    def _last_words(self) -> str:
        try:
            words = os.read(self._words, _LAST_WORDS_BYTES).decode("utf-8", "replace").strip()
        except OSError:
            return ""
        return f"; it said: {words}" if words else ""

    @property
    def alive(self) -> bool:
        """It can be asked for children."""
        return not self._closed and not _has_ended(self._exit_fd)

    def spawn(self, ends: Sequence[int]) -> int:
        """Have a child forked; return a descriptor of its process (pidfd).

        Args:
            ends: its ends of the pipes: in, out, standard output, standard error, trace, exit.

        Raises:
            OSError: the kernel refused, or the nursery has ended.
        """
        with self._lock:
            if self._closed:
                text = "the nursery has ended"
                raise OSError(text)
            request = codec.pack({"own_pid": self.own_pid})
            try:
                socket.send_fds(self._control, [request], list(ends))
                data, descriptors, _, _ = socket.recv_fds(self._control, MAX_PACKET_BYTES, 1)
            except OSError:
                # An answer that comes late would be taken for that to the next request.
                self._closed = True
                self._end()
                raise
            if not data:
                self._closed = True
                self._end()
        if descriptors:
            return descriptors[0]
        reason = codec.unpack(data)["error"] if data else "the nursery has ended"
        raise OSError(reason)

    def close(self) -> None:
        """End it, and with it every child that still lives; once."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._end()

    def _end(self) -> None:
        self._control.close()
        if self._exit_fd >= 0:
            if not _has_ended(self._exit_fd, _DYING_SECONDS):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._exit_fd, signal.SIGKILL)
                _has_ended(self._exit_fd, _DYING_SECONDS)
            os.close(self._exit_fd)
        if self.pid == self._process.pid:
            self._end_group()
        else:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
        self._process.wait()
        os.close(self._words)

    def _end_group(self) -> None:
        """End and reap the first stage, and a second that it may have started and not told of.

        The first has not been reaped, so that its number still means its group.
        """
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-self.pid, 0)


def _has_ended(descriptor: int, timeout: float = 0.0) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(timeout * 1_000))
