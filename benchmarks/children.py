"""The other ends of the peers, each in a process of its own that does nothing else.

Run as ``python children.py KIND ARGUMENTS...`` by `peers`, or imported by `multiprocessing` in a
process that it has started. It imports what a peer needs where it needs it, so that none pays for
the others, and nothing of the host. Every one answers with the payload that it got.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PEERS = Path(__file__).resolve().parent.parent / ".bench-env"
COOKIE = ("BENCH_COOKIE", "measured")
MAX_MESSAGE = 256 * 1024 * 1024
LENGTH = struct.Struct("=I")
FIRST, HAVE, TOTAL = b"first", b"have", b"total"


def use_peers() -> None:
    """Let this process import the peers; what is in .venv goes before what came with them."""
    sys.path.append(str(PEERS))


def echo(value: Any) -> Any:
    """Return what it got: the function of the pools."""
    return value


# -- pipes ----------------------------------------------------------------------------------------


def raw(reading: str, writing: str) -> None:
    """Answer frames over two pipes with as little Python as that takes; both sides block."""
    fd_in, fd_out = int(reading), int(writing)
    kept = b""
    while data := os.read(fd_in, 1 << 20):
        data = kept + data if kept else data
        at, whole, answers = 0, len(data), []
        while at + 4 <= whole:
            (length,) = LENGTH.unpack_from(data, at)
            if at + 4 + length > whole:
                if length >= 1 << 15:  # without joining it again and again
                    answers.append(_large(fd_in, data[at:], length + 4))
                    at = whole
                break
            answers.append(data[at : at + 4 + length])
            at += 4 + length
        kept = data[at:]
        send(fd_out, answers[0] if len(answers) == 1 else b"".join(answers))


def _large(fd: int, begun: bytes, size: int) -> bytearray:
    frame = bytearray(size)
    frame[: len(begun)] = begun
    receive_into(fd, memoryview(frame)[len(begun) :])
    return frame


def send(fd: int, data: bytes | bytearray) -> None:
    """Write all of it."""
    done = os.write(fd, data)
    if done < len(data):
        rest = memoryview(data)
        while (rest := rest[done:]).nbytes:
            done = os.write(fd, rest)


def receive_into(fd: int, view: memoryview) -> None:
    """Read so many bytes as there is room."""
    while view.nbytes:
        done = os.readv(fd, [view])
        if not done:
            raise EOFError("the other end is gone")
        view = view[done:]


# -- multiprocessing ------------------------------------------------------------------------------


def pipe_objects(connection: Any) -> None:
    """Answer what `multiprocessing.Pipe` brings: pickled values, as most programs send them."""
    while True:
        connection.send(connection.recv())


def pipe_bytes(connection: Any) -> None:
    """The same for bytes, which need no pickling."""
    while True:
        connection.send_bytes(connection.recv_bytes())


def pipe_count(connection: Any, expected: int) -> None:
    """Read so many events, and say so; again and again."""
    while True:
        for _ in range(expected):
            connection.recv()
        connection.send(None)


# -- zmq ------------------------------------------------------------------------------------------


def zmq_echo(address: str) -> None:
    """Answer over a pair of DEALER sockets; queues have no bound, so that nothing is dropped."""
    use_peers()
    import zmq

    socket = _connected(zmq.DEALER, address)
    while True:
        socket.send(socket.recv(copy=False), copy=False)


def zmq_count(events: str, done: str, expected: str) -> None:
    """Read so many events from a PUB socket, and say so; again and again."""
    use_peers()
    import zmq

    subscriber, reports = _connected(zmq.SUB, events), _connected(zmq.PUSH, done)
    subscriber.setsockopt(zmq.SUBSCRIBE, b"")
    while subscriber.recv() == FIRST:  # until the publisher knows that all are there
        reports.send(FIRST)
    reports.send(HAVE)
    while True:
        for _ in range(int(expected)):
            subscriber.recv()
        reports.send(TOTAL)


def _connected(kind: int, address: str) -> Any:
    import zmq

    socket = zmq.Context.instance().socket(kind)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(address)
    return socket


# -- gRPC and python-plugin -----------------------------------------------------------------------


def grpc_echo(address: str) -> None:
    """Serve over a Unix socket, bytes as they are: no message is packed or checked."""
    use_peers()
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    def one(request: bytes, _: Any) -> bytes:
        return request

    def many(requests: Any, _: Any) -> bytes:
        return str(sum(1 for _ in requests)).encode()

    options = [("grpc.max_receive_message_length", MAX_MESSAGE)]
    options += [("grpc.max_send_message_length", MAX_MESSAGE)]
    server = grpc.server(ThreadPoolExecutor(1), options=options)
    handlers = {
        "One": grpc.unary_unary_rpc_method_handler(one),
        "Many": grpc.stream_unary_rpc_method_handler(many),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", handlers),))
    server.add_insecure_port(address)
    server.start()
    os.write(1, b"+")
    server.wait_for_termination()


def python_plugin() -> None:
    """Serve as its documentation shows, a message with one field of bytes."""
    use_peers()
    from pyplugin import HandshakeConfig, ServeConfig, serve

    handshake = HandshakeConfig(1, *COOKIE)
    serve(ServeConfig(handshake_config=handshake, plugins={"echo": plugin_service()}))


def plugin_service() -> Any:
    """Return the service of python-plugin; the message is google.protobuf's BytesValue."""
    from google.protobuf.wrappers_pb2 import BytesValue
    from grpclib.client import StreamUnaryMethod, UnaryUnaryMethod
    from grpclib.const import Cardinality, Handler
    from pyplugin import Plugin

    class Echo:
        async def one(self, stream: Any) -> None:
            await stream.send_message(await stream.recv_message())

        async def many(self, stream: Any) -> None:
            count = 0
            async for _ in stream:
                count += 1
            await stream.send_message(BytesValue(value=str(count).encode()))

        def __mapping__(self) -> dict[str, Any]:
            one = Handler(self.one, Cardinality.UNARY_UNARY, BytesValue, BytesValue)
            many = Handler(self.many, Cardinality.STREAM_UNARY, BytesValue, BytesValue)
            return {"/bench.Echo/One": one, "/bench.Echo/Many": many}

    class Service(Plugin):
        def servicers(self, broker: Any) -> list[Any]:  # noqa: ARG002 - python-plugin's interface
            return [Echo()]

        def stub(self, broker: Any, channel: Any) -> Any:  # noqa: ARG002 - as above
            one = UnaryUnaryMethod(channel, "/bench.Echo/One", BytesValue, BytesValue)
            many = StreamUnaryMethod(channel, "/bench.Echo/Many", BytesValue, BytesValue)
            return one, many

    return Service()


KINDS: dict[str, Callable[..., None]] = {
    "raw": raw,
    "zmq": zmq_echo,
    "zmq-count": zmq_count,
    "grpc": grpc_echo,
    "python-plugin": python_plugin,
}

if __name__ == "__main__":
    KINDS[sys.argv[1]](*sys.argv[2:])
