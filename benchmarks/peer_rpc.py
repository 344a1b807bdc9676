"""Peers that have to be installed, each used as its documentation shows: zmq, gRPC and others."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import children  # beside this file, like the others
from peer import ANSWER_SECONDS, Peer, awaited_trips, child, child_line

# -- zmq ------------------------------------------------------------------------------------------


class ZmqPeer(Peer):
    """A pair of DEALER sockets over a Unix socket, which may have any number outstanding."""

    def __init__(self, socket: Any) -> None:
        super().__init__(self._call)
        self._socket = socket

    def _call(self, payload: bytes) -> bytes:
        self._socket.send(payload)
        return bytes(self._socket.recv())

    def many(self, payload: bytes, calls: int, window: int) -> float:
        """See `Peer.many`."""
        start, socket = time.perf_counter(), self._socket
        for _ in range(0, calls, window):
            for _ in range(window):
                socket.send(payload)
            for _ in range(window):
                socket.recv()
        return time.perf_counter() - start


@contextmanager
def zmq_pair() -> Iterator[Peer]:
    """Connect a child over a pair of sockets."""
    children.use_peers()
    import zmq

    with tempfile.TemporaryDirectory() as directory:
        address, context = f"ipc://{directory}/echo", zmq.Context.instance()
        socket = context.socket(zmq.DEALER)
        for option in (zmq.SNDHWM, zmq.RCVHWM, zmq.LINGER):
            socket.setsockopt(option, 0)
        socket.setsockopt(zmq.RCVTIMEO, int(ANSWER_SECONDS * 1_000))
        socket.bind(address)
        with child(child_line("zmq", address)):
            try:
                yield ZmqPeer(socket)
            finally:
                socket.close()


# -- gRPC and python-plugin ----------------------------------------------------------------------


class GrpcPeer(Peer):
    """Unary calls of bytes; futures where many are outstanding."""

    def __init__(self, channel: Any) -> None:
        one = channel.unary_unary("/bench.Echo/One")
        super().__init__(lambda payload: one(payload, timeout=ANSWER_SECONDS))
        self._one = one
        self.stream = channel.stream_unary("/bench.Echo/Many")

    def many(self, payload: bytes, calls: int, window: int) -> float:
        """See `Peer.many`."""
        start = time.perf_counter()
        for _ in range(0, calls, window):
            futures = [self._one.future(payload) for _ in range(window)]
            for future in futures:
                future.result(ANSWER_SECONDS)
        return time.perf_counter() - start


@contextmanager
def grpc_child() -> Iterator[Any]:
    """Start a server over a Unix socket, and yield a channel to it."""
    children.use_peers()
    import grpc

    with tempfile.TemporaryDirectory() as directory:
        address = f"unix:{directory}/echo"
        ready_out, ready_in = os.pipe()
        with child(child_line("grpc", address), files={1: ready_in}):
            os.close(ready_in)
            os.read(ready_out, 1)
            os.close(ready_out)
            options = [("grpc.max_receive_message_length", children.MAX_MESSAGE)]
            options += [("grpc.max_send_message_length", children.MAX_MESSAGE)]
            with grpc.insecure_channel(address, options=options) as channel:
                yield channel


@contextmanager
def grpc_peer() -> Iterator[Peer]:
    """Start a server of gRPC, and connect."""
    with grpc_child() as channel:
        yield GrpcPeer(channel)


class PluginPeer(Peer):
    """python-plugin's calls are coroutines: they are awaited in a loop of their own."""

    def __init__(self, runner: asyncio.Runner, stub: Any) -> None:
        from google.protobuf.wrappers_pb2 import BytesValue

        self.one, self.stream = stub
        self.runner, self.message = runner, BytesValue
        super().__init__(lambda payload: self.runner.run(self._call(payload)))

    async def _call(self, payload: bytes) -> bytes:
        return bytes((await self.one(self.message(value=payload))).value)

    def trips(self, payload: bytes, calls: int) -> list[float]:
        """See `Peer.trips`."""
        return self.runner.run(awaited_trips(lambda: self._call(payload), calls))

    def many(self, payload: bytes, calls: int, window: int) -> float:
        """See `Peer.many`."""

        async def gathered() -> float:
            start = time.perf_counter()
            for _ in range(0, calls, window):
                await asyncio.gather(*[self._call(payload) for _ in range(window)])
            return time.perf_counter() - start

        return self.runner.run(gathered())


@contextmanager
def plugin_client(*, tls: bool) -> Iterator[PluginPeer]:
    """Start a plugin of python-plugin as its documentation shows.

    Args:
        tls: with the certificates that it makes for both sides, as is its default.
    """
    children.use_peers()
    from pyplugin import Client, ClientConfig, HandshakeConfig

    logging.getLogger("pyplugin").setLevel(logging.CRITICAL)
    config = ClientConfig(
        handshake_config=HandshakeConfig(1, *children.COOKIE),
        plugins={"echo": children.plugin_service()},
        cmd=child_line("python-plugin"),
        auto_mtls=tls,
        start_timeout=ANSWER_SECONDS,
    )
    with asyncio.Runner() as runner:
        client = Client(config)
        runner.run(client.start())
        try:
            yield PluginPeer(runner, client.dispense("echo"))
        finally:
            runner.run(client.kill())


def plugin_peer(*, tls: bool) -> Callable[[], AbstractContextManager[Peer]]:
    """Return what opens python-plugin with or without its certificates."""
    return lambda: plugin_client(tls=tls)


# -- Extism ---------------------------------------------------------------------------------------


def _sized(data: bytes) -> bytes:
    return bytes([len(data)]) + data


def wasm() -> bytes:
    """Return a module that exports ``echo``: its output is its input, which nobody copies.

    In words: (call $output_set (call $input_offset) (call $input_length)) (i32.const 0).
    """
    kernel, names = _sized(b"extism:host/env"), (b"input_offset", b"input_length", b"output_set")
    kinds = (0, 0, 1)  # indexes of the types: () -> i64, (i64, i64) -> (), () -> i32
    sections = {
        1: b"\x03\x60\x00\x01\x7e\x60\x02\x7e\x7e\x00\x60\x00\x01\x7f",
        2: b"\x03"
        + b"".join(
            kernel + _sized(name) + bytes([0, kind])
            for name, kind in zip(names, kinds, strict=True)
        ),
        3: b"\x01\x02",
        7: b"\x01" + _sized(b"echo") + b"\x00\x03",
        10: b"\x01" + _sized(b"\x00\x10\x00\x10\x01\x10\x02\x41\x00\x0b"),
    }
    body = b"".join(bytes([number]) + _sized(data) for number, data in sections.items())
    return b"\0asm\x01\0\0\0" + body


class ExtismPeer(Peer):
    """A call of a function, in this process: nothing is outstanding, ever."""

    def many(self, payload: bytes, calls: int, window: int) -> float:  # noqa: ARG002 - no window
        """See `Peer.many`."""
        start = time.perf_counter()
        for _ in range(calls):
            self.call(payload)
        return time.perf_counter() - start


@contextmanager
def extism_plugin() -> Iterator[Peer]:
    """Make an Extism plugin of the module above."""
    children.use_peers()
    import extism

    with extism.Plugin(wasm(), functions=[]) as plugin:
        yield ExtismPeer(lambda payload: plugin.call("echo", payload))
