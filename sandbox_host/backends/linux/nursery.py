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
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.nursery import MAX_PACKET_BYTES
from sandbox_host.backends.linux.requests import Requests
from sandbox_host.backends.worker import Worker
from sandbox_host.model import Layer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BOOT: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from plugin_sdk.nursery.__main__ import main; main(sys.argv[2:])"
)
# Isolated, without site-packages, without writing byte code.
_ISOLATED: Final = ("-I", "-S", "-B", "-X", "utf8", "-c")

_PATIENCE_SECONDS: Final = 20.0
_DYING_SECONDS: Final = 2.0
_PAUSE_SECONDS: Final = 0.002
_HAS_ENDED: Final = "the nursery has ended"
_FALLING_SECONDS: Final = 0.2
"""How long a process that cannot be looked at any more may take until its end is told."""

_ENDED_EARLY: Final = "the nursery ended while it was started"
_LAST_WORDS_BYTES: Final = 4_096

_TRIED: Final = (
    *(Layer.PID_NAMESPACE, Layer.NETWORK_NAMESPACE, Layer.IPC_NAMESPACE, Layer.UTS_NAMESPACE),
    *(Layer.CGROUP_NAMESPACE, Layer.OWN_ROOT, Layer.CAPABILITIES),
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
        has_range: plugins can be given user ids of the range: all are mapped there, or the host
            is root and there is no user namespace.
        own_pid: children become pid 1 of a namespace of their own.
    """

    def __init__(
        self, ground: Ground, *, with_trial: bool = True, timeout: float = _PATIENCE_SECONDS
    ) -> None:
        """Boot.

        Args:
            ground: what to make it of.
            with_trial: find out what works; without, `reasons` is empty.
            timeout: seconds to wait for each of its answers.

        Raises:
            OSError: there is no process, it does not answer, or the machine is short of something
                now, so that nothing could be found out.
        """
        self.reasons: dict[str, str] = {}
        self._timeout = timeout
        self._lock = threading.Lock()
        self._requests: Requests | None = None
        self.own_pid = False
        self._closed = False
        self._status: int | None = None
        self._epitaph = ""
        _spawner.submit(lambda: self._boot(ground, with_trial=with_trial)).result()

    def _boot(self, ground: Ground, *, with_trial: bool) -> None:
        self.user_namespace = Layer.USER_NAMESPACE not in ground.disabled
        self.has_range = os.geteuid() == 0
        missing: dict[str, str] = {}
        while True:
            try:
                self._start(ground, with_trial=with_trial)
                break
            except _NoMapError as error:
                # It is nobody in its own namespace now: again, with less.
                if self.has_range:
                    # A uid 0 that was itself given a few ids only, as in some containers.
                    self.has_range = False
                    missing[Layer.OWN_UID] = str(error)
                else:
                    self.user_namespace = False
                    missing[Layer.USER_NAMESPACE] = str(error)
        self.reasons.update(missing)

    def _start(self, ground: Ground, *, with_trial: bool) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(self._timeout)
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
        reason = self._receive()["user"]
        if reason:
            self.reasons[Layer.USER_NAMESPACE] = reason
            self.user_namespace = False
        elif self.user_namespace:
            self._write_maps(ground.uids)
        self._control.send(codec.pack({}))
        answer = self._receive()
        if answer["process"]:
            self._process.wait(self._timeout)
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
        self._requests = Requests(self._control)

    def _tries(self, ground: Ground, *, want_pid: bool) -> list[str]:
        tries: list[str] = [layer for layer in _TRIED if layer not in ground.disabled]
        if Layer.OWN_ROOT in tries:
            tries.append("proc")
        if self.has_range:
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
            text = f"the nursery did not answer in {self._timeout:g} s"
            raise OSError(text) from error
        except ConnectionError:
            answer = None
        if not isinstance(answer, dict):
            raise OSError(_ENDED_EARLY + self._how() + self._last_words())
        if passing := answer.get("passing"):
            text = f"the machine is short of something: {passing}"
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
        ready = [end for end, _ in poller.poll(self._timeout * 1_000)]
        if not ready:
            raise TimeoutError
        if ready == [self._exit_fd] and not _has_ended(self._control.fileno()):
            raise OSError(_ENDED_EARLY + self._how() + self._last_words())

    def _how(self) -> str:
        """Return by which signal it ended, if by one; it stays to be waited for."""
        if _has_ended(self._exit_fd, _FALLING_SECONDS):
            with contextlib.suppress(ChildProcessError, ValueError):
                told = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
                if told is not None and told.si_code in {os.CLD_KILLED, os.CLD_DUMPED}:
                    return f", by {signal.Signals(told.si_status).name}"
        return ""

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

    @property
    def nests(self) -> bool:
        """Children enter a user namespace of their own, below the nursery's."""
        return self.user_namespace and not self.has_range

    def spawn(
        self,
        ends: Sequence[int],
        timeout: float = _PATIENCE_SECONDS,
        *,
        preparation: dict[str, Any] | None = None,
        meanwhile: Callable[[], object] = bool,
    ) -> int:
        """Have a child forked; return a descriptor of its process (pidfd).

        Args:
            ends: its ends of the pipes: in, out, standard output, standard error, trace, the arena,
                maybe the network desk, exit.
            timeout: seconds to wait for the answer.
            preparation: what the child does before it waits for its plan; always the same one.
            meanwhile: called once the nursery has been asked, and before it is waited for.

        Raises:
            OSError: the kernel refused, the nursery has ended, or it did not answer in time.
        """
        until = time.monotonic() + timeout
        late = f"the nursery did not answer in {timeout:.3g} s"
        requests = self._requests
        if self._closed or requests is None:
            raise OSError(_HAS_ENDED)
        try:
            number = requests.send(self._request(preparation), ends, until)
            try:
                meanwhile()
            except BaseException:
                requests.give_up(number)
                raise
            descriptors, answer = requests.answer(number, until)
        except TimeoutError:
            raise OSError(late) from None
        except ConnectionError:
            with self._lock:
                self._fall()
            raise OSError(_HAS_ENDED) from None
        if descriptors:
            return descriptors[0]
        raise OSError(answer["errno"], answer["error"])

    def _request(self, preparation: dict[str, Any] | None) -> dict[str, Any]:
        return {"own_pid": self.own_pid, "preparation": preparation}

    def drop(self, why: str = "") -> None:
        """Have it end, whatever this process may still do to it; it notices the closed socket."""
        self._epitaph = self._epitaph or why
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)

    def epitaph(self) -> str:
        """Return how it ended, as far as is known, for the operator; waits a moment for that."""
        if not self._closed and _has_ended(self._exit_fd, _FALLING_SECONDS):
            with self._lock:
                self._fall()
        return self._epitaph

    def close(self) -> None:
        """End it, and with it every child that still lives; once."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._epitaph = "this host ended it"
                self._end()

    def _fall(self) -> None:
        """Put away what has ended by itself, and find out how."""
        if self._closed:
            return
        self._closed = True
        words = self._last_words()
        self._end()
        if self._status is not None:
            code = os.waitstatus_to_exitcode(self._status)
            how = f"was killed by signal {-code}" if code < 0 else f"left with status {code}"
            self._epitaph = self._epitaph or f"it {how}{words}"

    def _end(self) -> None:
        """Kill and reap it. It holds nothing that a kill would lose.

        Where it is no process 1, its children do not end with it by the kernel's doing: it ends
        them itself when it notices the closed socket.
        """
        self.drop(self._epitaph)
        if self._requests is not None and self._requests.count and not self.own_pid:
            _has_ended(self._exit_fd, _DYING_SECONDS)
        with contextlib.suppress(OSError):  # the application may have closed what is ours
            self._control.close()
        if self.pid == self._process.pid:
            self._end_both()
        else:
            self._kill(self._exit_fd)
            with contextlib.suppress(ChildProcessError):
                _, self._status = os.waitpid(self.pid, 0)
        self._process.wait()
        for descriptor in (self._exit_fd, self._words):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _kill(self, descriptor: int) -> None:
        if descriptor >= 0:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            _has_ended(descriptor, _DYING_SECONDS)

    def _end_both(self) -> None:
        """End the first stage, and wait for a second that it may have started and not told of.

        That one notices the closed socket. The first has not been reaped, so that its number still
        means the group of both.
        """
        self._kill(self._exit_fd)
        until = time.monotonic() + _DYING_SECONDS
        with contextlib.suppress(ChildProcessError):
            while time.monotonic() < until:
                pid, status = os.waitpid(-self.pid, os.WNOHANG)
                if pid == self.pid:
                    self._status = status
                elif pid == 0:
                    time.sleep(_PAUSE_SECONDS)


def _has_ended(descriptor: int, timeout: float = 0.0) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(timeout * 1_000))
