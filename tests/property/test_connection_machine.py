"""Two ends of the wire and the network between them: whatever crosses, no honest peer is blamed.

Small bounds stand in for the real ones, so that they are reached. What docs/wire.md says, the
referee says (`tests.support.wire_referee`).
"""

from __future__ import annotations

import copy
import random
import struct
from collections import deque
from typing import Any

import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from plugin_sdk.wire.errors import LocalProtocolError, RemoteProtocolError
from plugin_sdk.wire.frames import build_frame
from plugin_sdk.wire.limits import MAX_HEADER_BYTES, PREFIX_BYTES
from plugin_sdk.wire.message import HOST, PLUGIN, Message
from plugin_sdk.wire.messages import (
    Answer,
    Ask,
    Call,
    DeliverMany,
    FeedCredit,
    FeedStop,
    Handled,
    Result,
    Stop,
    Stopped,
    Withdraw,
    Yield,
    parse_message,
)
from plugin_sdk.wire.state import CLOSED, RUNNING
from tests.support.wire_machines import (
    BOUNDS,
    MAX_PAYLOAD,
    OTHER,
    Bounded,
    check_exchanges,
    check_memory,
    check_streams,
    connection,
    seeds,
    steps,
)
from tests.support.wire_referee import NUMBERED, Referee, Verdict
from tests.support.wire_speech import LEADING, chance_of, leading, spoken


class Crossing(Bounded):
    """A host and a plugin that send whatever they are let to, over a network that takes its time.

    That `send` accepts what it should and refuses the rest, the referee says; that what was
    accepted arrives, in its order and unchanged, or is dropped because its exchange was closed
    meanwhile, whatever else is on its way, is what this is about.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ends = {role: connection(role) for role in OTHER}
        self.referees = {role: Referee(role, BOUNDS) for role in OTHER}
        self.pipes = {role: bytearray() for role in OTHER}
        self.sent: dict[str, deque[tuple[int, Message]]] = {role: deque() for role in OTHER}
        self.total = dict.fromkeys(OTHER, 0)
        self.carried = dict.fromkeys(OTHER, 0)
        self.dropped = dict.fromkeys(OTHER, 0)

    @initialize(started=st.sampled_from([4] * 6 + [3, 0]), opened=st.integers(0, 3))
    def start(self, started: int, opened: int) -> None:
        for message in leading(opened, opened) if started == 4 else LEADING[:started]:
            self.send(message)
            self.carry(message.sender, 1_000)
        if started == 3:
            self.send(Ask(1, "prices", 0))
            self.carry(PLUGIN, 1_000)
            self.send(Answer(1, True))

    def send(self, message: Message) -> None:
        role = message.sender
        end = self.ends[role]
        try:
            end.send(message)
        except LocalProtocolError:
            assert self.referees[role].sends(message) is Verdict.BREACH
            assert end.data_to_send() == b""
            return
        assert self.referees[role].sends(message) is Verdict.GOOD
        note(f"{role} says {message}")
        data = end.data_to_send()
        self.total[role] += len(data)
        self.pipes[role] += data
        self.sent[role].append((self.total[role], message))

    @rule(sender=st.sampled_from([HOST, PLUGIN]), count=st.sampled_from([1, 9, 30, 80, 400, 2_000]))
    def carry(self, sender: str, count: int) -> None:
        """Some bytes of one direction arrive: an honest peer's are never a breach."""
        data = bytes(self.pipes[sender][:count])
        if not data:
            return
        del self.pipes[sender][:count]
        self.carried[sender] += len(data)
        arrived = []
        while self.sent[sender] and self.sent[sender][0][0] <= self.carried[sender]:
            arrived.append(self.sent[sender].popleft()[1])
        receiver = OTHER[sender]
        verdicts = [(self.referees[receiver].came(message), message) for message in arrived]
        assert Verdict.BREACH not in [verdict for verdict, _ in verdicts]
        self.ends[receiver].receive_data(data)
        received = self.ends[receiver].events_received()
        assert received == [message for verdict, message in verdicts if verdict is Verdict.GOOD]

    @rule(seed=seeds, count=steps)
    def go_on(self, seed: int, count: int) -> None:
        """Both say something, and some of it arrives: rules of their own would seldom mix."""
        chance = chance_of(seed, self.referees[HOST])
        for _ in range(count):
            sender = chance.choice([HOST, PLUGIN])
            if chance.random() < 0.7:
                self.send(spoken(chance, sender, self.referees[sender]))
            else:
                self.carry(sender, chance.choice([1, 20, 100, 1_000]))
            self.each_end_is_where_the_page_says()

    @rule(sender=st.sampled_from([HOST, PLUGIN]), seed=seeds, count=steps)
    def say(self, sender: str, seed: int, count: int) -> None:
        """One says much, and nothing of it arrives yet."""
        chance = chance_of(seed, self.referees[sender])
        for _ in range(count):
            self.send(spoken(chance, sender, self.referees[sender]))

    @rule(message=st.sampled_from(LEADING), rarely=st.integers(0, 4), crossing=seeds)
    def move(self, message: Message, rarely: int, crossing: int) -> None:
        """To its end as well, though not soon, while the host has something to say."""
        if self.ends[HOST].state != RUNNING or not rarely:
            self.send(message)
            self.say(HOST, crossing, 4)

    @rule(call=st.integers(1, 12), size=st.integers(0, 50))
    def somebody_asks_for_room(self, call: int, size: int) -> None:
        for end in self.ends.values():
            end.may_yield(call, size)
            end.may_feed(call, 1, size)

    @invariant()
    def each_end_is_where_the_page_says(self) -> None:
        for role, end in self.ends.items():
            check_memory(end)
            check_exchanges(end, self.referees[role])
            check_streams(end, self.referees[role])

    def teardown(self) -> None:
        try:
            self._everything_arrives()
            self._everything_ends()
        finally:
            super().teardown()

    def _everything_arrives(self) -> None:
        for sender in OTHER:
            self.carry(sender, 1 << 20)
        host, plugin = self.referees[HOST], self.referees[PLUGIN]
        assert host.state == plugin.state
        if plugin.state == "closed":
            return
        for openers in (NUMBERED, (Ask,)):
            assert host.outstanding(*openers) == plugin.outstanding(*openers)
        for call in host.outstanding(Call):
            for stream in (0, 1, 2):
                assert host.untaken(call.id, stream) == plugin.untaken(call.id, stream)
        for many in host.outstanding(DeliverMany):
            assert host.unhandled(many.id) == plugin.unhandled(many.id)

    def _everything_ends(self) -> None:
        """From wherever they are, both can still come to a good end."""
        if self.referees[PLUGIN].state not in {"running", "stopping"}:
            return
        plugin = self.referees[PLUGIN]
        for opened in plugin.outstanding(*NUMBERED):
            self.send(Result(opened.id) if isinstance(opened, Call) else Handled(opened.id, True))
        for asked in self.referees[HOST].outstanding(Ask):
            self.send(Answer(asked.id, True))
        self.send(Stop())
        self._everything_arrives()
        self.send(Stopped())
        self._everything_arrives()
        assert not self.referees[HOST].outstanding(*NUMBERED, Ask)
        for end in self.ends.values():
            assert end.state == CLOSED
            end.receive_eof()


def frame(message: Message) -> bytes:
    return build_frame(message.header(), message.payload, MAX_PAYLOAD)


@st.composite
def streams_of_anything(draw: st.DrawFn) -> bytes:
    """Good frames, of either side and in any order, some with one place changed."""
    chance, referee = random.Random(draw(seeds)), Referee(HOST, BOUNDS)
    for message in leading(2, 1):
        referee.history.append(message)
    stream = bytearray()
    for change in draw(st.lists(st.integers(0, 9), min_size=1, max_size=5)):
        role = HOST if change == 9 else PLUGIN
        message = spoken(chance, role, referee) if change < 9 else chance.choice(LEADING)
        part = bytearray(frame(message))
        at = chance.randrange(len(part))
        match change:
            case 0:
                part[at] = chance.randrange(256)
            case 1:
                del part[at]
            case 2:
                part.insert(at, chance.randrange(256))
            case 3:
                del part[at:]
            case 4:
                part[:] = chance.randbytes(at)
        stream += part
    return bytes(stream)


def expected_of(referee: Referee, held: bytes) -> tuple[list[Message], bytes, bool]:
    """Read a stream the slow way: what is received, what remains, whether it is a breach."""
    received: list[Message] = []
    while referee.state != "closed" and len(held) >= PREFIX_BYTES:
        header, payload = struct.unpack(">II", held[:PREFIX_BYTES])
        if not 1 <= header <= MAX_HEADER_BYTES or payload > MAX_PAYLOAD:
            return received, b"", True
        end = PREFIX_BYTES + header + payload
        if len(held) < end:
            break
        try:
            message = parse_message(
                held[PREFIX_BYTES : PREFIX_BYTES + header], held[end - payload : end]
            )
        except RemoteProtocolError:
            return received, b"", True
        held = held[end:]
        verdict = referee.came(message)
        if verdict is Verdict.BREACH:
            return received, b"", True
        if verdict is Verdict.GOOD:
            received.append(message)
    return received, held, referee.state == "closed" and bool(held)


class Hostile(Bounded):
    """A host in any state, and a plugin that says anything: a breach is the only other outcome."""

    def __init__(self) -> None:
        super().__init__()
        self.host = connection(HOST)
        self.referee = Referee(HOST, BOUNDS)
        self.held = b""
        self.broken = False

    @initialize(started=st.integers(0, 9), calls=st.integers(0, 3), asked=st.integers(0, 2))
    def start(self, started: int, calls: int, asked: int) -> None:
        for message in leading(calls, asked) if started > 3 else LEADING[:started]:
            if message.sender == HOST:
                self.host_says(message)
            else:
                self.take(frame(message), [])

    @precondition(lambda self: not self.broken)
    @rule(message=st.sampled_from(LEADING), rarely=st.integers(0, 4))
    def session_moves(self, message: Message, rarely: int) -> None:
        if self.host.state == RUNNING and rarely:
            return
        if message.sender == HOST:
            self.host_says(message)
        else:
            self.take(frame(message), [])

    def host_says(self, message: Message) -> None:
        try:
            self.host.send(message)
        except LocalProtocolError:
            assert self.referee.sends(message) is Verdict.BREACH
        else:
            assert self.referee.sends(message) is Verdict.GOOD
            self.host.data_to_send()

    @precondition(lambda self: not self.broken and not self.held)
    @rule(seed=seeds, count=steps)
    def both_behave(self, seed: int, count: int) -> None:
        """Nothing that comes is a breach, so that more can happen before the first."""
        chance = chance_of(seed, self.referee)
        for _ in range(count):
            if chance.random() < 0.4:
                self.host_says(spoken(chance, HOST, self.referee))
                continue
            message = spoken(chance, PLUGIN, self.referee)
            if copy.deepcopy(self.referee).came(message) is not Verdict.BREACH:
                self.take(frame(message), [])

    @precondition(lambda self: not self.broken and not self.held)
    @rule(seed=seeds)
    def plugin_says(self, seed: int) -> None:
        self.take(frame(spoken(chance_of(seed, self.referee), PLUGIN, self.referee)), [])

    @precondition(lambda self: not self.broken and not self.held)
    @rule(idea=st.sampled_from(range(8)), seed=seeds)
    def plugin_breaks_a_rule(self, idea: int, seed: int) -> None:
        self.both_behave(seed, 12)
        calls = [m.id for m in self.referee.outstanding(Call)] or [1]
        last, asked = (
            max((m.id for m in self.referee.history if isinstance(m, kinds)), default=0)
            for kinds in (NUMBERED, (Ask,))
        )
        ideas: list[list[Message]] = [
            [FeedStop(calls[0], 1), FeedStop(calls[0], 1)],
            [Yield(calls[0], payload=b"x")] * (BOUNDS.items + 1),
            [Result(calls[0]), Yield(calls[0])],
            [FeedCredit(calls[-1], 2, BOUNDS.items + 1)],
            [Result(last + 1)],
            [Withdraw(asked + 1)],
            [Ask(asked or 1, "prices", 0)] * 2,
            [Ask(asked + more, "prices", 0) for more in range(1, BOUNDS.asked + 2)],
        ]
        for message in ideas[idea]:
            if not self.broken:
                self.take(frame(message), [])
        assert self.broken

    @precondition(lambda self: not self.broken)
    @rule(data=streams_of_anything(), cuts=st.lists(st.integers(1, 40), max_size=4))
    def take(self, data: bytes, cuts: list[int]) -> None:
        note(f"comes: {data!r}")
        for cut in [*cuts, len(data)]:
            piece, data = data[:cut], data[cut:]
            if not piece:
                return
            closed = self.referee.state == "closed"
            received, self.held, breach = expected_of(self.referee, self.held + piece)
            self.broken = breach or closed
            if self.broken:
                with pytest.raises(RemoteProtocolError):
                    self.host.receive_data(piece)
            else:
                self.host.receive_data(piece)
            assert self.host.events_received() == received
            if self.broken:
                return

    @precondition(lambda self: self.broken)
    @rule(data=streams_of_anything(), seed=seeds)
    def nothing_is_accepted_after_a_breach(self, data: bytes, seed: int) -> None:
        assert self.host.state == CLOSED
        with pytest.raises(RemoteProtocolError):
            self.host.receive_data(data)
        assert self.host.events_received() == []
        with pytest.raises(LocalProtocolError):
            self.host.send(spoken(chance_of(seed, self.referee), HOST, self.referee))
        assert self.host.data_to_send() == b""

    @invariant()
    def the_host_is_where_the_page_says(self) -> None:
        if not self.broken:
            check_memory(self.host)
            check_exchanges(self.host, self.referee)
            check_streams(self.host, self.referee)
            assert self.host._reader.pending_bytes == len(self.held)

    def teardown(self) -> None:
        try:
            if self.held and not self.broken:
                with pytest.raises(RemoteProtocolError):
                    self.host.receive_eof()
            else:
                self.host.receive_eof()
            assert self.host.state == CLOSED
        finally:
            super().teardown()


TestCrossing: Any = Crossing.TestCase
TestCrossing.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)
TestHostile: Any = Hostile.TestCase
TestHostile.settings = settings(max_examples=120, stateful_step_count=10, deadline=None)
