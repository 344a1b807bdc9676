"""Peers over pipes: C, Python as plain as it gets, and what the standard library offers."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import children  # beside this file, like the others
from frame import NotThereError
from peer import ANSWER_SECONDS, HERE, Peer, bare_main, child, child_line, distinct, worker

ORDER = struct.Struct("=5I")
CHUNK = 500
"""Tasks that a pool is handed at once: where more is faster by less than the spread."""

# -- C --------------------------------------------------------------------------------------------


class CProgram:
    """`c_peer.c`, compiled and running."""

    def __init__(self, orders: int, answers: int) -> None:
        self._orders, self._answers = orders, answers

    def order(
        self, kind: str, size: int, calls: int, *, window: int = 1, many: int = 1
    ) -> list[float]:
        """Have it do something; return the nanoseconds that it took, of each call or of all."""
        os.write(self._orders, ORDER.pack(ord(kind), size, calls, window, many))
        count = calls if kind in "ry" else 1
        data = bytearray(8 * count)
        children.receive_into(self._answers, memoryview(data))
        return [float(value) for value in struct.unpack(f"={count}Q", data)]


class CPeer(Peer):
    """Round trips in C: its calls are made and timed over there, where no Python is."""

    def __init__(self, program: CProgram, kind: str) -> None:
        super().__init__(lambda payload: program.order(kind, len(payload), 1))
        self._program, self._kind = program, kind

    def trips(self, payload: bytes, calls: int) -> list[float]:
        """See `Peer.trips`."""
        return [ns / 1_000 for ns in self._program.order(self._kind, len(payload), calls)]

    def many(self, payload: bytes, calls: int, window: int) -> float:
        """See `Peer.many`."""
        return self._program.order("w", len(payload), calls, window=window)[0] / 1e9


@contextmanager
def c_program() -> Iterator[CProgram]:
    """Compile and start it.

    Raises:
        NotThereError: here is no C compiler, or it cannot do it.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotThereError("no C compiler (cc) is installed")
    with ExitStack() as stack:
        program = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "c_peer"
        line = [compiler, "-O2", "-o", str(program), str(HERE / "c_peer.c")]
        if subprocess.run(line, check=False, capture_output=True).returncode:
            raise NotThereError("the C compiler (cc) could not compile it")
        (order_out, order_in), (answer_out, answer_in) = os.pipe(), os.pipe()
        stack.callback(os.close, answer_out)
        stack.enter_context(child([str(program)], files={0: order_out, 1: answer_in}))
        stack.callback(os.close, order_in)  # first: it ends its own children, and then itself
        os.close(order_out)
        os.close(answer_in)
        yield CProgram(order_in, answer_out)


def c_peer(kind: str) -> Callable[[], AbstractContextManager[Peer]]:
    """Return what opens round trips in C of a kind: "r" blocks, "y" polls first."""

    @contextmanager
    def opening() -> Iterator[Peer]:
        with c_program() as program:
            yield CPeer(program, kind)

    return opening


# -- pipes of Python ------------------------------------------------------------------------------


class RawPipe(Peer):
    """Frames over two pipes, put together and taken apart with as little Python as that takes."""

    def __init__(self, writing: int, reading: int) -> None:
        super().__init__(self._call)
        self._writing, self._reading = writing, reading

    def _call(self, payload: bytes) -> bytes | bytearray:
        if len(payload) < 1 << 15:
            children.send(self._writing, children.LENGTH.pack(len(payload)) + payload)
            return os.read(self._reading, 1 << 16)[4:]
        children.send(self._writing, children.LENGTH.pack(len(payload)))
        children.send(self._writing, payload)
        (length,) = children.LENGTH.unpack(os.read(self._reading, 4))
        answer = bytearray(length)
        children.receive_into(self._reading, memoryview(answer))
        return answer

    def many(self, payload: bytes, calls: int, window: int) -> float:
        """See `Peer.many`."""
        head, start = children.LENGTH.pack(len(payload)), time.perf_counter()
        for _ in range(0, calls, window):
            children.send(self._writing, b"".join([head + payload for _ in range(window)]))
            answers = bytearray((4 + len(payload)) * window)
            children.receive_into(self._reading, memoryview(answers))
            _taken_apart(answers)
        return time.perf_counter() - start


def _taken_apart(data: bytearray) -> list[bytes]:
    at, frames = 0, []
    while at < len(data):
        end = at + 4 + children.LENGTH.unpack_from(data, at)[0]
        frames.append(bytes(data[at + 4 : end]))
        at = end
    return frames


@contextmanager
def raw_pipe() -> Iterator[Peer]:
    """Start the other end of a raw pipe; both ends block."""
    (there_out, there_in), (back_out, back_in) = os.pipe(), os.pipe()
    line = child_line("raw", str(there_out), str(back_in))
    line[1:1] = ["-I", "-S"]
    with child(line, keep=(there_out, back_in)):
        os.close(there_out)
        os.close(back_in)
        try:
            yield RawPipe(there_in, back_out)
        finally:
            os.close(there_in)
            os.close(back_out)


class ObjectPipe(Peer):
    """`multiprocessing.Pipe` with its own pickling; a thread sends where many are outstanding."""

    def __init__(self, connection: Any) -> None:
        super().__init__(self._call)
        self._connection = connection

    def _call(self, payload: bytes) -> Any:
        self._connection.send(payload)
        return self._connection.recv()

    def many(self, payload: bytes, calls: int, window: int) -> float:
        """See `Peer.many`."""
        # Both ends of a full pipe would wait for each other; so another thread sends.
        room, send = threading.Semaphore(window), self._connection.send

        def sending() -> None:
            for _ in range(calls):
                room.acquire()
                send(payload)

        start, sender = time.perf_counter(), threading.Thread(target=sending)
        sender.start()
        for _ in range(calls):
            self._connection.recv()
            room.release()
        sender.join()
        return time.perf_counter() - start


@contextmanager
def object_pipe() -> Iterator[Peer]:
    """Open `multiprocessing.Pipe`, as most programs use it."""
    with worker(children.pipe_objects) as connection:
        yield ObjectPipe(connection)


@contextmanager
def bytes_pipe() -> Iterator[Peer]:
    """Open it for bytes, without pickling: the fastest that it can do."""
    with worker(children.pipe_bytes) as connection:

        def call(payload: bytes) -> bytes:
            connection.send_bytes(payload)
            return connection.recv_bytes()

        yield Peer(call)


# -- a pool ---------------------------------------------------------------------------------------


class PoolPeer(Peer):
    """One worker of a `ProcessPoolExecutor`; many calls go in chunks."""

    def __init__(self, executor: ProcessPoolExecutor) -> None:
        super().__init__(lambda payload: executor.submit(children.echo, payload).result())
        self._executor = executor

    def many(self, payload: bytes, calls: int, window: int) -> float:
        """See `Peer.many`."""
        payloads = distinct(payload, calls)
        chunk, start = min(CHUNK, window), time.perf_counter()
        list(self._executor.map(children.echo, payloads, chunksize=chunk))
        return time.perf_counter() - start


@contextmanager
def executor() -> Iterator[Peer]:
    """Start a pool of one process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        with bare_main():
            pool.submit(children.echo, b"").result(ANSWER_SECONDS)
        yield PoolPeer(pool)
