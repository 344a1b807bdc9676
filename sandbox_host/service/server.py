"""The service's end of the control socket: takes requests, each in a thread of its own.

Whoever connects is asked for by the kernel's word before a byte is read. Then everything has a
bound: the number of clients, how many of them may be at something long, the size of a request, and
the time for each frame. One that is slow or silent loses its connection, and holds up nobody.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillWorking
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from plugin_sdk.wire.errors import PayloadError, PayloadTooLargeError
from sandbox_host.errors import ControlError, SandboxHostError
from sandbox_host.reading import escaped
from sandbox_host.service import frames
from sandbox_host.service.peers import own_uid, peer_of, refusal
from sandbox_host.service.protocol import ALIVE_SECONDS, error_document, request_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox_host.service.protocol import Request

_log = logging.getLogger("sandbox_host")

_LOOK_SECONDS: Final = 0.1
_PAUSE_SECONDS: Final = 0.1
_JOIN_SECONDS: Final = 1.0
_REFUSING_SECONDS: Final = 0.1
_BUSY: Final = "The service has as many clients as it takes at a time ({})."
_AGAIN: Final = "Try again later; does something keep connections open?"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What clients may take.

    Attributes:
        clients: at a time.
        long: of those, how many may be at something that takes its time: the rest is for those
            who ask how it is, or want it to end.
        request_seconds: in which a request has to be there.
        send_seconds: in which an answer has to be taken.
    """

    clients: int = 32
    long: int = 24
    request_seconds: float = 5.0
    send_seconds: float = 10.0


class Handler(Protocol):
    """Whoever knows what is asked; `operations.Operations` is one."""

    def is_long(self, request: Request) -> bool:
        """Tell whether a request may take its time, or raise that there is none such."""

    def is_stream(self, request: Request) -> bool:
        """Tell whether it sends items by itself, and looks whether somebody is there."""

    def handle(self, request: Request, session: Session) -> Any:
        """Return the result."""

    def exit_code(self, error: SandboxHostError) -> int:
        """Return what a command ends with for an error."""


@dataclass(eq=False)
class Session:
    """One client's request, while it is worked on.

    Attributes:
        cancelled: set when nobody waits for the result any more.
    """

    connection: socket.socket
    send_seconds: float
    cancelled: threading.Event = field(default_factory=threading.Event)
    _spoke: float = field(default_factory=time.monotonic)

    def send(self, item: Any) -> None:
        """Send an item of a stream.

        Raises:
            frames.FrameError: nobody takes it.
            PayloadError: it is no value for the wire.
        """
        self._say({"item": item})

    def attend(self) -> bool:
        """Say now and then that it is being worked on; return whether somebody is there.

        Raises:
            frames.FrameError: nobody takes that.
        """
        if self.cancelled.is_set() or frames.has_left(self.connection):
            self.cancelled.set()
            return False
        if time.monotonic() - self._spoke >= ALIVE_SECONDS:
            self._say({"alive": True})
        return True

    def _say(self, answer: dict[str, Any]) -> None:
        frames.send(self.connection, answer, frames.ANSWER, self.send_seconds)
        self._spoke = time.monotonic()

    def finish(self, answer: dict[str, Any]) -> None:
        """Send the last answer.

        Raises:
            frames.FrameError: nobody takes it.
            PayloadError: it is no value for the wire.
        """
        self._say(answer)


class ControlServer:
    """Answers on one listening socket until it is closed.

    Args:
        listener: from `place.ServicePlace.listen`; it belongs to the server from now on.
        handler: does what is asked.
        bounds: what clients may take.
    """

    def __init__(
        self, listener: socket.socket, handler: Handler, bounds: Bounds | None = None
    ) -> None:
        self._listener = listener
        self._handler = handler
        self._bounds = bounds or Bounds()
        self._sessions: set[Session] = set()
        self._long = threading.BoundedSemaphore(self._bounds.long)
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._closing = threading.Event()
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(
            target=self._accept, name="sandbox-host-control", daemon=True
        )
        self._thread.start()

    @property
    def clients(self) -> int:
        """How many there are now."""
        return len(self._sessions)

    # -- connections ------------------------------------------------------------------------

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._closing.is_set():
                selector.select()
                if self._closing.is_set():
                    return
                try:
                    connection, _ = self._listener.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    continue
                except OSError as error:  # no descriptor is left, perhaps; others give some back
                    _log.error("the control socket takes nobody now: %s", error)
                    self._closing.wait(_PAUSE_SECONDS)
                    continue
                self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        """Begin to serve a client, or turn it away; never waits for it."""
        try:
            why = refusal(peer_of(connection), own_uid(), os.getpid())
            if why:
                self._turn_away(connection, f"The service does not answer: {why}.", "")
                return
            session = Session(connection, self._bounds.send_seconds)
            with self._lock:
                full = len(self._sessions) >= self._bounds.clients
                if not full:
                    self._sessions.add(session)
            if full:
                self._turn_away(connection, _BUSY.format(self._bounds.clients), _AGAIN)
                return
            self._begin(session)
        except (OSError, RuntimeError) as error:  # no thread can be had
            _log.error("a client of the control socket was not served: %s", error)
            connection.close()

    def _begin(self, session: Session) -> None:
        thread = threading.Thread(
            target=self._serve, args=(session,), name="sandbox-host-client", daemon=True
        )
        with self._lock:
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            self._forget(session, thread)
            raise

    def _turn_away(self, connection: socket.socket, text: str, remedy: str) -> None:
        error = ControlError(text, remedy=remedy)
        # Fits into an empty buffer: it is not waited for.
        with contextlib.suppress(frames.FrameError), connection:
            document = error_document(error, self._handler.exit_code(error))
            frames.send(connection, {"error": document}, frames.ANSWER, _REFUSING_SECONDS)

    def _forget(self, session: Session, thread: threading.Thread) -> None:
        session.connection.close()
        with self._lock:
            self._sessions.discard(session)
            self._threads.discard(thread)

    # -- one client -------------------------------------------------------------------------

    def _serve(self, session: Session) -> None:
        try:
            session.finish(self._answer(session))
        except (PayloadError, PayloadTooLargeError) as error:
            with contextlib.suppress(frames.FrameError):
                session.finish(self._failed(_unsendable(error)))
        except frames.FrameError as error:
            _log.debug("a client of the control socket is gone: %s", error)
        finally:
            session.cancelled.set()
            self._forget(session, threading.current_thread())

    def _answer(self, session: Session) -> dict[str, Any]:
        try:
            try:
                sent = frames.receive(
                    session.connection, frames.REQUEST, self._bounds.request_seconds
                )
            except frames.Closed:
                raise
            except frames.FrameError as error:
                text = f"The request was not taken: {error}."
                raise ControlError(text) from None
            return {"result": self._worked(request_of(sent), session)}
        except SandboxHostError as error:
            return self._failed(error)
        except (frames.FrameError, PayloadError):
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours ends one request, not the service
            _log.exception("a request to the control socket failed")
            text = f"The service met a fault of its own: {type(error).__name__}: {error}."
            return self._failed(ControlError(escaped(text, 1_000), remedy="Its log has more."))

    def _failed(self, error: SandboxHostError) -> dict[str, Any]:
        return {"error": error_document(error, self._handler.exit_code(error))}

    def _worked(self, request: Request, session: Session) -> Any:
        if not self._handler.is_long(request):
            return self._handler.handle(request, session)
        if not self._long.acquire(blocking=False):
            raise ControlError(_BUSY.format(self._bounds.long), remedy=_AGAIN)
        try:
            if self._handler.is_stream(request):
                return self._handler.handle(request, session)
            return self._meanwhile(lambda: self._handler.handle(request, session), session)
        finally:
            self._long.release()

    def _meanwhile(self, work: Callable[[], Any], session: Session) -> Any:
        """Return what work returns, done in another thread; meanwhile say that it goes on."""
        done: Future[Any] = Future()

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                done.set_exception(error)

        threading.Thread(target=run, name="sandbox-host-request", daemon=True).start()
        there = True
        while True:
            try:
                return done.result(_LOOK_SECONDS)
            except StillWorking:
                if done.done():
                    return done.result()  # just now; or it is the work's own
            if there:
                try:
                    there = session.attend()
                except frames.FrameError:
                    session.cancelled.set()
                    there = False

    def close(self) -> None:
        """Take nobody any more, and hang up on everybody; a second time does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake.send(b"x")
        self._thread.join()
        self._join()  # most are at their end, and say so
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            session.cancelled.set()
            with contextlib.suppress(OSError):
                session.connection.shutdown(socket.SHUT_RDWR)
        self._join()
        for end in (self._listener, self._wake, self._woken):
            end.close()

    def _join(self) -> None:
        with self._lock:
            threads = list(self._threads)
        until = time.monotonic() + _JOIN_SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))


def _unsendable(error: PayloadError) -> ControlError:
    text = f"The result cannot be sent over the control socket: {error}."
    return ControlError(text, remedy="Ask for less at a time.")
