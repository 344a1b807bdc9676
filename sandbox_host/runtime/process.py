"""One running plugin: its child, its conversation, its account, its life.

Everything here may be called from any thread. How it ends is told in `mortal`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError, RemoteProtocolError
from plugin_sdk.wire.messages import Load, Stop
from sandbox_host.budget.ledger import Ledger
from sandbox_host.budget.rate import MessageRate, Sayings, log_rate
from sandbox_host.budget.traffic import TrafficWindow
from sandbox_host.errors import PluginError, UsageError
from sandbox_host.model import Cause, State, Usage
from sandbox_host.network.allowlist import Allowlist
from sandbox_host.network.desk import NetworkDesk
from sandbox_host.observe.plugin_log import PluginLog
from sandbox_host.runtime import answers
from sandbox_host.runtime.conversation import Conversation
from sandbox_host.runtime.life import Life
from sandbox_host.runtime.log_entries import LogEntries
from sandbox_host.runtime.mortal import Mortal
from sandbox_host.runtime.output import Output
from sandbox_host.runtime.postmortem import Remains
from sandbox_host.runtime.warden import Warden
from sandbox_host.runtime.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from plugin_sdk.wire.message import Message
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.base import Child, Places
    from sandbox_host.budget.enforce import Excess
    from sandbox_host.config import HostConfig
    from sandbox_host.health.record import PluginHealth
    from sandbox_host.ipc.calls import Pending
    from sandbox_host.model import Denial, Limits, Receipt
    from sandbox_host.observe.recorder import Recorder
    from sandbox_host.runtime.asked import Asked
    from sandbox_host.runtime.audience import Listener
    from sandbox_host.runtime.interface import Interface
    from sandbox_host.runtime.keeper import Keeper

_SAYINGS_PER_SECOND: Final = 1.0
_SAYINGS_BURST: Final = 100.0


class PluginProcess(Mortal):
    """A confined, attested child and everything the host knows of it.

    Attributes:
        life: where it stands, and why it ends.
        talk: what is said to it and by it.
        ended: nobody need wait for it any more: all was given back, or it cannot be ended.
        gone: the process has been seen to end.
        complaints: how often a failure of its handlers may be told.
        denials: how often it may be told what it was denied.
        reports: the same of what it says itself that it was.
        copied: this object is in a forked copy of the host's process.
        dossier_path: where it was written what is known of its end, once it was; None before.
        started_at: reading of the monotonic clock when it was started.
        health: how it was doing when it was last looked at; None before it is ready.
        max_outstanding: so many calls and deliveries it may have unanswered.
        recorder: writes down what is said to it and by it; None where nobody wants that.

    Args:
        plan: what was admitted.
        places: where its files are.
        child: the process, started.
        receipt: what confines it.
        keeper: looks after it from now on.
        config: the operator's.
        log_path: where its output goes.
        listener: is told what it does unasked.

    Raises:
        ConfigError: its log cannot be written.
        ConfinementError: it cannot be looked after.
    """

    def __init__(
        self,
        plan: SandboxPlan,
        places: Places,
        child: Child,
        receipt: Receipt,
        *,
        keeper: Keeper,
        config: HostConfig,
        log_path: Path,
        listener: Listener,
    ) -> None:
        self.plan = plan
        self.places = places
        self.receipt = receipt
        self.interface: Interface | None = None
        self.life = Life(plan.identity, plan.limits.cpu_total_seconds)
        self.ended = threading.Event()
        self.started_at = time.monotonic()
        self._remains: Remains | None = None
        self.gone = False
        self.copied = self.resting = False
        self.dossier_path: Path | None = None
        self.health: PluginHealth | None = None
        self.max_outstanding = config.max_outstanding_calls
        self.recorder: Recorder | None = None
        self.log = PluginLog(log_path, config.log_bytes)
        self.ledger = Ledger()
        self.complaints = Sayings(_SAYINGS_PER_SECOND, _SAYINGS_BURST)
        # Apart: who fails on purpose must not hide by that what it was denied.
        self.denials = Sayings(_SAYINGS_PER_SECOND, _SAYINGS_BURST)
        self.reports = Sayings(_SAYINGS_PER_SECOND, _SAYINGS_BURST)
        self._child = child
        self._rate = MessageRate(plan.limits)
        self._output = Output(child, self.log, log_rate(plan.limits))
        self._entries = LogEntries(plan.identity, self._output)
        self._watch = Watch(child, plan.limits, self.ledger, config.sweep_seconds)
        self._keeper = keeper
        self._listener = listener
        self._given_up = False
        self._forgotten: deque[Pending] = deque()
        self._may_close = False
        self.talk = Conversation(
            plan,
            child,
            self,
            ledger=self.ledger,
            watch=self._watch,
            rate=self._rate,
            max_outstanding=self.max_outstanding,
        )
        self.channel = self.talk.channel
        self._warden = Warden(self, child, self.life, self.channel, self._output, self._watch)
        # After the warden: its threads may have to end the plugin from their first moment on.
        self._desk = self._open_desk()
        try:
            keeper.adopt(self._warden)
        except BaseException:
            self._output.close()
            if self._desk is not None:
                self._desk.close()
            raise

    # -- what applications ask for --------------------------------------------------------

    @property
    def state(self) -> State:
        """Where it stands in its life."""
        return self.life.state

    @property
    def cause(self) -> Cause | None:
        """Why it ended, or None while it has not."""
        return self.life.cause

    @property
    def cause_text(self) -> str:
        """The same in one sentence; "" while it has not."""
        return self.life.cause_text

    def load(self, order: Mapping[str, Any], timeout: float) -> Message:
        """Have the child import the plugin; return `Ready` or `Failed`.

        Raises:
            PluginError: it was ended meanwhile.
        """
        load = Load(payload=codec.pack(order))
        return self.talk.ask(answers.START, load, time.monotonic() + timeout)

    @property
    def has_arena(self) -> bool:
        """Tell whether there is memory that is shared with its process, for large payloads."""
        return self._child.connection.arena is not None

    @property
    def max_payload_bytes(self) -> int:
        """Return how large one payload may be, in either direction."""
        return self._child.connection.max_payload_bytes

    def lend(self) -> None:
        """Put large payloads there from now on; it has said that it looks there."""
        self._child.connection.lend()

    def record(self, recorder: Recorder) -> None:
        """Have everything written down that is said from now on."""
        self.recorder = recorder
        self.channel.tap = recorder.take

    def ready(self, interface: Interface) -> None:
        """Let it be called from now on.

        Raises:
            PluginEndedError: it ended in the meantime.
        """
        self.interface = interface
        if not self.life.ready():
            self.interface = None
            raise self.life.refusal()

    def stop(self, timeout: float, cause: Cause) -> Message | None:
        """Let it finish what it has, clean up and leave; end it at the timeout.

        Whoever comes second waits with the first.

        Returns:
            `Stopped`, or None where it had to be ended, had ended, or somebody else stops it.
        """
        deadline = time.monotonic() + timeout
        mine = self.life.drain()
        answer: Message | None = None
        if mine:
            with contextlib.suppress(PluginError):
                answer = self.talk.ask(answers.CLEAN_UP, Stop(), deadline)
        if mine or self.state is State.DRAINING:
            self.ended.wait(max(0.0, deadline - time.monotonic()))
        self.end_now(cause)
        self.ended.wait(timeout + 1.0)
        return answer

    def ask_to_leave(self, deadline: float, cause: Cause) -> None:
        """Have it finish what it has, clean up and leave, as `stop`; does not wait for that.

        Args:
            deadline: reading of the monotonic clock by which it is ended if it has not cleaned up.
            cause: of its end, where it is not ready to be asked: then it is ended now.
        """
        if self.life.drain():
            with contextlib.suppress(PluginError):
                self.talk.begin_asking(answers.CLEAN_UP, Stop(), deadline)
                self.channel.attend()
        elif self.state is not State.DRAINING:
            self.end_now(cause)

    def usage(self) -> Usage:
        """Return what it has cost so far, looking at the process once more if it lives."""
        self._watch.sample()
        return self._sums()

    def log_tail(self, lines: int) -> list[str]:
        """Return the last lines it printed, those before its last answer included."""
        self._output.catch_up()
        return self.log.tail(lines)

    def resident_bytes(self) -> int:
        """Return its resident memory now; 0 once it has ended."""
        facts = self._watch.sample()
        return facts.resident_bytes if facts else 0

    @property
    def is_ending(self) -> bool:
        """It has ended or is being ended, whether that has been told already or not."""
        return self.life.over or self.life.ending is not None or not self.resident_bytes()

    def _open_desk(self) -> NetworkDesk | None:
        end, self._child.desk = self._child.desk, None
        if end is None:
            return None
        window = TrafficWindow(self.limits, time.monotonic())
        return NetworkDesk(
            end,
            Allowlist(self.plan.permissions.network),
            on_connected=lambda where: self._listener.connected(self, where),
            on_denied=lambda what: self._listener.denied(self, what),
            on_violation=self.violated,
            on_fault=self.failed,
            on_passed=lambda total: self._passed(window.excess(total, time.monotonic())),
        )

    def _passed(self, excess: Excess | None) -> None:
        if excess is not None:
            self.exceeded(excess)

    # -- what its conversation asks and tells -----------------------------------------------

    @property
    def takes_calls(self) -> bool:
        """It is ready."""
        return self.state is State.READY and not self.resting

    @property
    def operations(self) -> tuple[str, ...]:
        """What it offers; nothing before it is ready."""
        return self.interface.operations if self.interface else ()

    @property
    def handles(self) -> tuple[str, ...]:
        """The types of events that it has handlers for; none before it is ready."""
        return self.interface.handles if self.interface else ()

    def check_ready(self) -> None:
        """Raise why it takes no calls now, if it takes none.

        Raises:
            UsageError: this process is a forked copy of the host's.
            PluginEndedError: it is not ready.
        """
        if self.copied:
            raise UsageError(
                f"{self.identity} belongs to the process that this one was forked from.",
                remedy="Make a host of its own after the fork.",
            )
        if not self.takes_calls:
            raise self.life.refusal()

    def published(self, event_type: str, payload: bytes) -> None:
        """It published an event; its right to has not been checked."""
        self._listener.published(self, event_type, payload)

    def asked(self, asked: Asked) -> None:
        """It asks for a service; its right to has not been checked."""
        self._listener.asked(self, asked)

    def withdrawn(self, number: int) -> None:
        """It waits no more for what it asked for under that number."""
        self._listener.withdrawn(self, number)

    def logged(self, level: int, logger: str, payload: bytes) -> None:
        """It has an entry for the log."""
        try:
            self._entries.take(level, logger, payload)
        except PayloadError as error:
            self.violated(str(error))

    def answer(self, number: int, *, ok: bool, payload: bytes) -> None:
        """Tell it what became of a service that it asked for."""
        self.talk.answer(number, ok=ok, payload=payload)

    def handler_failed(self, event_type: str, report: Any) -> None:
        """A handler of an event failed."""
        self._listener.handler_failed(self, event_type, report)

    def reported(self, denial: Denial) -> None:
        """It says that it was refused something."""
        self._listener.reported(self, denial)

    def forgotten(self, pending: Pending) -> None:
        """Nobody holds a stream any more that was not read to its end. Takes no lock: see `gc`."""
        self._forgotten.append(pending)

    def leave_forgotten(self) -> None:
        """Have the producers of streams ended that nobody holds any more."""
        while self._forgotten:
            self.talk.cancel(self._forgotten.popleft())

    def at_work(self) -> list[Pending]:
        """Return what it works on now, the oldest first."""
        return self.talk.at_work()

    def interrupt(self, pending: Pending) -> None:
        """Ask what it works on to end: its deadline has passed."""
        self.talk.cancel(pending, late=True)

    def rearm(self, for_room: bool, /) -> None:
        """Have the keeper pump when there is something to read, or room to write."""
        self._keeper.watch(self._warden, for_room=for_room)

    def hurry(self) -> None:
        """Have the keeper look at once: a budget may be used up before its next look."""
        self._keeper.wake(self._warden)

    def broken(self, reason: BaseException | None) -> None:
        """The stream ended: because the process did, the plugin means harm, or we were cut off."""
        if isinstance(reason, RemoteProtocolError):
            self.violated(str(reason))
        elif reason is not None:
            self.failed(reason)
        else:
            self._warden.closed_pipe()
            self._keeper.wake(self._warden)

    def _tell_ended(self) -> None:
        self._listener.ended(self)

    def _tell_gone(self) -> None:
        self._listener.gone(self)

    # -- what its disk watch asks ------------------------------------------------------------

    @property
    def data_dir(self) -> Path:
        """The plugin's own directory."""
        return self.places.data_dir

    @property
    def limits(self) -> Limits:
        """Its budgets."""
        return self.plan.limits

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has used."""
        return self._child.cpu_seconds()

    def unlinked_bytes(self, device: int) -> int:
        """Return what it holds open on a device that has no name any more."""
        return self._child.unlinked_bytes(device)

    def suspend(self) -> None:
        """Let it run no more, for now."""
        self._child.suspend()

    def resume(self) -> None:
        """Let it run again."""
        self._child.resume()
