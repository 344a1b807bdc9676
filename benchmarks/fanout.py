"""What does an event cost? One publisher, 1, 8 and 32 subscribers in processes of their own.

Run it with ``.venv/bin/python benchmarks/fanout.py [--rounds N] [--events N] [--quick]``. An event
carries 32 bytes. A turn begins with the first event and ends when every subscriber has said that
it has had all of them, so that nothing is counted that only waits somewhere. The value is events
published per second; each reaches every subscriber.

Ours are handlers in confined plugins: an event has its own budgets, source, time and number, and
is checked on both sides. What waits for a plugin is bounded and then dropped, so the publisher
looks at its subscribers after every few hundred events and waits where one is behind; zmq's queues
have no bound here, and never drop.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import children  # beside this file, like the others
import peers
from frame import NotThereError, Results, Turn, options_of, reason, take_turns
from ours import OURS, Ground, ground, handled

from sandbox_host import BlockingHost, BlockingPlugin, SandboxHost

DATA = b"x" * 32
AHEAD = 512
"""Events that may wait for a plugin while we publish more: half of what is kept for it."""

C_EACH = "C over a pipe, a write for each"

COUNTER = """
from plugin_sdk import on

handled = 0

@on("measured")
def more(event):
    global handled
    handled += 1

@operation
def count():
    return handled
"""


# -- ours -----------------------------------------------------------------------------------------


class Publisher:
    """Publishes as quickly as the slowest of some plugins handles.

    Args:
        host: has them.
        plugins: that handle the event.
    """

    def __init__(self, host: BlockingHost, plugins: list[BlockingPlugin]) -> None:
        self._host, self._plugins, self._published = host, plugins, 0

    def turn(self, events: int) -> list[float]:
        """Publish so many, and return how many were handled in a second."""
        publish, start = self._host.publish, time.perf_counter()
        for first in range(0, events, AHEAD // 2):
            for _ in range(min(AHEAD // 2, events - first)):
                publish("measured", DATA)
            self._wait()
        self._published += events
        handled(self._host, self._plugins, self._published)
        return [events / (time.perf_counter() - start)]

    def _wait(self) -> None:
        while max(info.waiting for info in self._host.subscriptions()) > AHEAD:
            time.sleep(0.0002)  # the threads that read need the interpreter meanwhile


@contextmanager
def ours(where: Ground, number: int) -> Iterator[Callable[[int], list[float]]]:
    """Load so many plugins that count an event, and yield a turn of so many events."""
    publisher = where.publisher
    names = [f"counter_{number}_{index}" for index in range(number)]
    bundles = [publisher.release(name, COUNTER, events=["measured"]) for name in names]
    with SandboxHost.blocking(where.config()) as host:
        yield Publisher(host, [host.load(bundle) for bundle in bundles]).turn


# -- peers ----------------------------------------------------------------------------------------


def c_turn(program: peers.CProgram, number: int, events: int) -> list[float]:
    """Write each event to each child: C, and the kernel's price for it."""
    return [events / program.order("f", len(DATA), events, many=number)[0] * 1e9]


@contextmanager
def pipes(number: int, events: int) -> Iterator[Callable[[int], list[float]]]:
    """Connect so many processes with `multiprocessing.Pipe`; each event is pickled for each."""
    with ExitStack() as stack:
        ends = [
            stack.enter_context(peers.worker(children.pipe_count, events)) for _ in range(number)
        ]

        def turn(count: int) -> list[float]:
            start = time.perf_counter()
            for _ in range(count):
                for end in ends:
                    end.send(DATA)
            for end in ends:
                end.recv()
            return [count / (time.perf_counter() - start)]

        yield turn


@contextmanager
def zmq_publisher(number: int, events: int) -> Iterator[Callable[[int], list[float]]]:
    """Connect so many subscribers to one PUB socket."""
    children.use_peers()
    import zmq

    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        context, addresses = (
            zmq.Context.instance(),
            (f"ipc://{directory}/e", f"ipc://{directory}/d"),
        )
        publisher, reports = context.socket(zmq.PUB), context.socket(zmq.PULL)
        for socket, address in zip((publisher, reports), addresses, strict=True):
            for option in (zmq.SNDHWM, zmq.RCVHWM, zmq.LINGER):
                socket.setsockopt(option, 0)
            socket.setsockopt(zmq.RCVTIMEO, int(peers.ANSWER_SECONDS * 1_000))
            socket.bind(address)
            stack.callback(socket.close)
        line = peers.child_line("zmq-count", *addresses, str(events))
        for _ in range(number):
            stack.enter_context(peers.child(line))
        _greet(publisher, reports, number)

        def turn(count: int) -> list[float]:
            start = time.perf_counter()
            for _ in range(count):
                publisher.send(DATA)
            for _ in range(number):
                reports.recv()
            return [count / (time.perf_counter() - start)]

        yield turn


def _greet(publisher: Any, reports: Any, number: int) -> None:
    """Wait until every subscriber gets what is published: a PUB socket tells nobody."""
    time.sleep(0.5 + number / 20)
    while True:
        publisher.send(children.FIRST)
        told = 0
        while reports.poll(300):
            told += reports.recv() == children.FIRST
        if told == number:
            break
    publisher.send(children.HAVE)
    for _ in range(number):
        if reports.recv() != children.HAVE:
            raise NotThereError("a subscriber came late")


@contextmanager
def grpc_streams(number: int, _: int) -> Iterator[Callable[[int], list[float]]]:
    """Stream to so many servers; gRPC takes each stream from an iterator, in its own thread."""
    with ExitStack() as stack:
        channels = [stack.enter_context(peers.grpc_child()) for _ in range(number)]
        streams = [channel.stream_unary("/bench.Echo/Many") for channel in channels]

        def turn(count: int) -> list[float]:
            start = time.perf_counter()
            answers = [stream.future(DATA for _ in range(count)) for stream in streams]
            if any(int(answer.result(peers.ANSWER_SECONDS)) != count for answer in answers):
                raise NotThereError("events were lost")
            return [count / (time.perf_counter() - start)]

        yield turn


@contextmanager
def plugin_streams(number: int, _: int) -> Iterator[Callable[[int], list[float]]]:
    """Stream to so many plugins of python-plugin, without certificates."""
    with ExitStack() as stack:
        plugins = [stack.enter_context(peers.plugin_client(tls=False)) for _ in range(number)]

        async def one(plugin: Any, count: int) -> int:
            message = plugin.message(value=DATA)
            async with plugin.stream.open() as stream:
                for _ in range(count - 1):
                    await stream.send_message(message)
                await stream.send_message(message, end=True)
                return int((await stream.recv_message()).value)

        def turn(count: int) -> list[float]:
            # Each has a loop of its own, as it was started: so each has a thread of its own here.
            got: list[int] = []
            threads = [
                threading.Thread(target=lambda p=plugin: got.append(p.runner.run(one(p, count))))
                for plugin in plugins
            ]
            start = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            took = time.perf_counter() - start
            if got != [count] * number:
                raise NotThereError("events were lost")
            return [count / took]

        yield turn


@contextmanager
def extism_calls(number: int, _: int) -> Iterator[Callable[[int], list[float]]]:
    """Call so many plugins of Extism, one after the other: it has no events."""
    with ExitStack() as stack:
        plugins = [stack.enter_context(peers.extism_plugin()) for _ in range(number)]

        def turn(count: int) -> list[float]:
            start = time.perf_counter()
            for _ in range(count):
                for plugin in plugins:
                    plugin.call(DATA)
            return [count / (time.perf_counter() - start)]

        yield turn


OTHERS: dict[str, tuple[Callable[[int, int], Any], int]] = {
    peers.ZMQ: (zmq_publisher, 1),
    peers.MP: (pipes, 5),
    peers.GRPC: (grpc_streams, 20),
    peers.PLUGIN: (plugin_streams, 20),
    peers.EXTISM: (extism_calls, 20),
}
"""The peers, and by how much fewer events they get, so that their turns are no longer than ours."""


def main() -> None:
    """Measure all ways in turns, for each number of subscribers, and print a table for each."""
    options = options_of(
        __doc__, rounds=(7, 2, "turns that each way takes"), events=(40_000, 4_000, "in one turn")
    )
    results = Results("What does an event cost?")
    lines = results.line("fanout", "Events published per second", "subscribers", "events/s")
    for number in (1, 8) if options.quick else (1, 8, 32):
        key, title = f"fanout-{number}", f"events to {number} subscriber{'s'[: number - 1]}"
        table = results.table(key, title, "events/s", peers.ZMQ, rate=True, places=0)
        events = max(options.events // max(1, number // 4), 1_000)
        with ExitStack() as stack:
            ways = opened(stack, table.missing, number, events)
            take_turns(table, ways, options.rounds)
        for row in table.rows():
            if "p50" in row:
                lines.setdefault(row["name"], []).append([number, row["p50"]])
    results.tell(options.json)


def opened(stack: ExitStack, missing: dict[str, str], number: int, events: int) -> dict[str, Turn]:
    """Open all ways for so many subscribers."""
    ways: dict[str, Turn] = {}
    try:
        program = stack.enter_context(peers.c_program())
        ways[C_EACH] = lambda: c_turn(program, number, events)
    except NotThereError as error:
        missing[C_EACH] = str(error)
    for name, (opening, fewer) in OTHERS.items():
        count = max(events // fewer, 100)
        try:
            turn = stack.enter_context(opening(number, count))
        except Exception as error:  # noqa: BLE001 - a peer fails as it pleases; it is told
            missing[name] = reason(error)
        else:
            ways[name] = lambda turn=turn, count=count: turn(count)  # type: ignore[misc]
    try:
        where = stack.enter_context(ground())
        own = stack.enter_context(ours(where, number))
        ways[OURS] = lambda: own(events)
    except Exception as error:  # noqa: BLE001 - told, as of any other way
        missing[OURS] = reason(error)
    return ways


if __name__ == "__main__":
    main()
