"""A signer that is a program of the author's: a key in a token, a cloud's KMS, another tool.

The program gets the message on its standard input and prints the signature on its standard output:
64 raw bytes, or base64 of them. It gets no shell, no argument but those that were written, and the
environment and terminal of the command line. Which key it signs with it is not asked: the public
key is given beside it, so that a program cannot choose another.
"""

from __future__ import annotations

import base64
import binascii
import os
import selectors
import shlex
import subprocess
import time
from collections.abc import Callable
from typing import IO, Any, Final

from sandbox_host.bundle.names import shown
from sandbox_host.bundle.signature import SIGNATURE_BYTES
from sandbox_host.errors import SignerError, UsageError
from sandbox_host.reading import escaped, shown_seconds

PROGRAM_SECONDS: Final = 120.0
"""A token may wait to be touched, a KMS is far away."""

MAX_OUTPUT_BYTES: Final = 4 << 10
"""Of each stream; a signature has 64, or 88 as base64."""

_CHUNK: Final = 1 << 16


class ProgramSigner:
    """A `sandbox_host.bundle.sign.Signer` that runs a program for each signature.

    Args:
        command: program and arguments as one text, split as a POSIX shell would split it; nothing
            in it is expanded.
        public: the raw public key that the program signs for.
        seconds: how long it may take.
        clock: seconds, only ever growing.

    Raises:
        UsageError: the text is empty, or a quotation in it does not end.
    """

    def __init__(
        self,
        command: str,
        public: bytes,
        seconds: float = PROGRAM_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise UsageError(
                f"{shown(command)} is not a command: {error}.", remedy="Close the quotation."
            ) from error
        if not self._words:
            raise UsageError(
                "exec: names no program.", remedy="Write it after the colon: exec:COMMAND."
            )
        self._public = public
        self._seconds = seconds
        self._clock = clock

    @property
    def public(self) -> bytes:
        """The raw public key."""
        return self._public

    def sign(self, message: bytes) -> bytes:
        """Have the program sign `message`.

        Raises:
            SignerError: it cannot be started, is late, fails, or prints what is no signature.
        """
        try:
            process = subprocess.Popen(  # noqa: S603, TID251 - the author's own, not a plugin's
                self._words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise self._failed(f"cannot be started: {reason}") from error
        deadline = self._clock() + self._seconds
        with process:
            try:
                output, complaint = _exchange(_pipes(process), message, deadline, self._clock)
                code = process.wait(max(0.0, deadline - self._clock()))
            except (TimeoutError, subprocess.TimeoutExpired) as error:
                raise self._failed(f"took longer than {shown_seconds(self._seconds)}") from error
            finally:
                # Only this process: what it started may be an agent that is meant to stay.
                if process.poll() is None:
                    process.kill()
        if code != 0:
            ending = f"with exit code {code}" if code > 0 else f"by signal {-code}"
            said = escaped(complaint.decode("utf-8", "replace").strip(), 500)
            raise self._failed(f"ended {ending}" + (f", and said: {said}" if said else ""))
        return self._signature(output)

    def _signature(self, output: bytes) -> bytes:
        if len(output) == SIGNATURE_BYTES:
            return output
        try:
            signature = base64.b64decode(b"".join(output.split()), validate=True)
        except binascii.Error:
            signature = b""
        if len(signature) != SIGNATURE_BYTES:
            raise self._failed(
                f"printed {len(output)} bytes that are neither a signature of {SIGNATURE_BYTES} "
                "bytes nor base64 of one"
                if len(output) <= MAX_OUTPUT_BYTES
                else f"printed more than {MAX_OUTPUT_BYTES} bytes"
            )
        return signature

    def _failed(self, reason: str) -> SignerError:
        return SignerError(
            f"the signing program {shown(self._words[0])} {reason}.",
            remedy="It gets the bytes to sign on standard input, and prints the raw Ed25519 "
            "signature or base64 of it.",
        )


def _pipes(process: Any) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    """Return the ends of the three pipes that every process here is started with."""
    return process.stdin, process.stdout, process.stderr


def _exchange(
    pipes: tuple[IO[bytes], IO[bytes], IO[bytes]],
    message: bytes,
    deadline: float,
    clock: Callable[[], float],
) -> tuple[bytes, bytes]:
    """Write the message and read both streams to their ends, in whatever order that happens.

    Of standard output one byte more than allowed is kept, by which it is told; of what a program
    complains about, the rest is read and dropped.

    Raises:
        TimeoutError: the deadline passed.
    """
    into, *outputs = pipes
    by_descriptor = {pipe.fileno(): pipe for pipe in pipes}
    kept = [bytearray() for _ in outputs]
    rest = memoryview(message)
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            os.set_blocking(pipe.fileno(), False)
        selector.register(into, selectors.EVENT_WRITE)
        for pipe, taken in zip(outputs, kept, strict=True):
            selector.register(pipe, selectors.EVENT_READ, taken)
        while selector.get_map():
            left = deadline - clock()
            if left <= 0:
                raise TimeoutError
            for ready, _ in selector.select(left):
                if ready.data is None:
                    rest = _write(ready.fd, rest)
                over = not rest if ready.data is None else _read(ready.fd, ready.data)
                if over:
                    selector.unregister(ready.fd)
                    by_descriptor.pop(ready.fd).close()
    return bytes(kept[0]), bytes(kept[1])


def _write(descriptor: int, rest: memoryview) -> memoryview:
    try:
        return rest[os.write(descriptor, rest[:_CHUNK]) :]
    except BrokenPipeError:
        # It has read what it wanted; whether that was enough, its signature tells.
        return rest[:0]


def _read(descriptor: int, kept: bytearray) -> bool:
    """Take what there is, and say whether that was the end."""
    data = os.read(descriptor, _CHUNK)
    kept += data[: MAX_OUTPUT_BYTES + 1 - len(kept)]
    return not data
