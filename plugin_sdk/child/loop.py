"""Answers the host's messages, one at a time, until it says stop or is gone.

Operations run in the main thread, where a signal can end them: the host sends one when a deadline
has passed, and when nobody waits for a call any more. `concurrent` is for plugins that work on
several calls at a time.
"""

from __future__ import annotations

from _thread import get_ident
from time import monotonic_ns

from plugin_sdk.child.io import POLL_NS, flush_output
from plugin_sdk.child.running import Prepared, Runner
from plugin_sdk.wire.messages import Call, Deliver, DeliverMany, Stop, Stopped

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Coroutine
    from typing import Any

    from plugin_sdk.child.calls import CallState
    from plugin_sdk.child.faults import Faults
    from plugin_sdk.child.io import ChildChannel
    from plugin_sdk.child.tasks import Tasks
    from plugin_sdk.wire.message import Message
else:
    import _signal as signal  # the half in C: the other half imports enum, which is slow


class Loop:
    """Serves one plugin. Made and run in the main thread.

    Args:
        channel: where messages come from and answers go.
        runner: runs what is asked for.
        faults: is given its reserve of memory back before each message.
    """

    def __init__(self, channel: ChildChannel, runner: Runner, faults: Faults) -> None:
        self._channel = channel
        self._runner = runner
        self._faults = faults
        self._current: CallState | None = None
        self._tasks: Tasks | None = None
        self._thread = get_ident()
        channel.on_cancel = self._cancel
        signal.signal(signal.SIGUSR2, lambda _number, _frame: self._signalled())

    def run(self) -> None:
        """Serve until `Stop` is answered or the host closes its end.

        Raises:
            RemoteProtocolError: the host broke the protocol.
            OSError: the host is gone while an answer is sent.
        """
        poll_ns = POLL_NS
        while (message := self._channel.receive(poll_ns)) is not None:
            self._faults.take_reserve()
            poll_ns = POLL_NS
            if isinstance(message, Call):
                answer: Message = self._call(message)
            elif isinstance(message, (Deliver, DeliverMany)):
                answer = self._runner.deliver(message, self._await)
                # Nobody waits for that, to call again at once; many plugins may have had it, and
                # none is to take the CPU from those that have not.
                poll_ns = 0
            elif isinstance(message, Stop):
                answer = self._runner.stop()
            else:
                continue  # nothing else reaches a running plugin; the connection sees to it
            # A finished call must not be kept alive by its message until the next one comes.
            message = None
            flush_output()
            self._channel.send(answer)
            if isinstance(answer, Stopped):
                return

    def _call(self, call: Call) -> Message:
        prepared = self._runner.prepare(call)
        if not isinstance(prepared, Prepared):
            return prepared
        self._current = prepared.state
        try:
            return self._runner.run(prepared, self._await)
        finally:
            self._current = None

    def _await(self, call: CallState | None, coroutine: Coroutine[Any, Any, Any]) -> Any:
        if self._tasks is None:
            # A plain function that returns one: the host's signals mean nothing meanwhile, and
            # are sent again.
            at_work, self._current = self._current, None
            try:
                from plugin_sdk.child.tasks import Tasks

                self._tasks = Tasks(self._channel)
            finally:
                self._current = at_work
        return self._tasks.run(call, coroutine)

    # -- what ends an operation -------------------------------------------------------------

    def _signalled(self) -> None:
        """The host says that the operation is to end. Trust the clock and its word, not the signal.

        It may come when the operation has just ended, and the next one must not pay for it.
        """
        if self._channel.sending:
            self._channel.postpone(self._signalled)
            return
        call = self._current
        if call is None or not call.active:
            return
        self._channel.look()  # the host's word may be in the pipe still
        if call.cancelled or call.is_late(monotonic_ns()):
            self._end(call)

    def _cancel(self, call: CallState) -> None:
        """Somebody read that a call is to end; one that has not begun is seen to at its turn."""
        if call is not self._current:
            return
        if get_ident() == self._thread:
            self._end(call)
        else:
            signal.pthread_kill(self._thread, signal.SIGUSR2)

    def _end(self, call: CallState) -> None:
        if call.interrupted or not call.active:
            return
        call.interrupted = True
        if self._tasks is None or not self._tasks.cancel(call):
            raise call.reason()
