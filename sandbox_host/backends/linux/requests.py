"""Requests to a nursery, and each answer to the thread that waits for it.

There is no thread for that. Of those that wait, one reads, without a lock, and hands the others
what is theirs; so several starts are under way at a time, and the nursery is never waited for by
who has something else to do meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from plugin_sdk.wire import codec
from plugin_sdk.wire.nursery import MAX_PACKET_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

Answer = tuple[list[int], dict[str, Any]]


class Requests:
    """Numbered requests over one packet socket. Thread-safe.

    Args:
        control: the host's end of it, used for nothing else from now on.

    Attributes:
        count: how many there have been.
    """

    def __init__(self, control: socket.socket) -> None:
        control.setblocking(False)
        self._control = control
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._answers: dict[int, Answer] = {}
        self._given_up: set[int] = set()
        self._read = False
        self.count = 0

    def send(self, request: dict[str, Any], ends: Sequence[int], until: float) -> int:
        """Send a request, and descriptors beside it; return its number.

        Raises:
            TimeoutError: there was no room for it.
            ConnectionError: the nursery has ended.
        """
        if not self._sending.acquire(timeout=_left(until)):
            raise TimeoutError
        try:
            self.count += 1
            number = self.count
            packet = codec.pack({"id": number, **request})
            while True:
                try:
                    socket.send_fds(self._control, [packet], list(ends))
                except BlockingIOError:
                    self._wait(select.POLLOUT, until)
                except OSError as error:
                    raise _as_ended(error) from None
                else:
                    return number
        finally:
            self._sending.release()

    def answer(self, number: int, until: float) -> Answer:
        """Return the answer to a request, with the descriptors that came beside it.

        Raises:
            TimeoutError: it did not come; it is given up.
            ConnectionError: the nursery has ended.
            PayloadError: it answered with nonsense.
        """
        try:
            while True:
                with self._changed:
                    while number not in self._answers and self._read:
                        if not self._changed.wait(_left(until)):
                            raise TimeoutError
                    if number in self._answers:
                        return self._answers.pop(number)
                    self._read = True
                try:
                    found = self._receive(until)
                finally:
                    with self._changed:
                        self._read = False
                        self._changed.notify_all()
                self._hand_on(*found)
        except BaseException:
            self.give_up(number)
            raise

    def give_up(self, number: int) -> None:
        """Want the answer to a request no more: its pipes are closed, so its child leaves."""
        with self._changed:
            if number in self._answers:
                _close(self._answers.pop(number)[0])
            else:
                self._given_up.add(number)

    def _hand_on(self, descriptors: list[int], answer: dict[str, Any]) -> None:
        with self._changed:
            number = answer["id"]
            if number in self._given_up:
                self._given_up.discard(number)
                _close(descriptors)
            else:
                self._answers[number] = (descriptors, answer)
                self._changed.notify_all()

    def _receive(self, until: float) -> Answer:
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._control, MAX_PACKET_BYTES, 1)
            except BlockingIOError:
                self._wait(select.POLLIN, until)
                continue
            except OSError as error:
                raise _as_ended(error) from None
            if not data:
                raise ConnectionResetError
            try:
                return descriptors, codec.unpack(data)
            except BaseException:
                _close(descriptors)
                raise

    def _wait(self, event: int, until: float) -> None:
        poller = select.poll()
        try:
            poller.register(self._control, event)
        except (OSError, ValueError) as error:  # it was closed meanwhile
            raise _as_ended(error) from None
        if not poller.poll(_left(until) * 1_000):
            raise TimeoutError


def _as_ended(error: Exception) -> ConnectionError:
    """Return what an error of a socket means that is shut down, or closed by another thread."""
    return error if isinstance(error, ConnectionError) else ConnectionResetError(str(error))


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
