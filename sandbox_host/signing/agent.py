"""A signer in an SSH agent, which keeps the private key to itself.

Protocol: draft-miller-ssh-agent, sections 3 (messages), 4.4 (identities), 4.5 (signing). Only
plain Ed25519 keys are used: what a security key signs (``sk-ssh-ed25519``) is not the message but a
digest of it beside a counter, which no DSSE verifier expects.

The agent is the author's own, but it may be forwarded from another machine, or be something else
that listens there: every answer is bounded before it is read, and every wait has a deadline.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from sandbox_host.bundle.names import shown
from sandbox_host.bundle.public_keys import OPENSSH_TYPE, fingerprint, openssh_blob
from sandbox_host.bundle.signature import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, key_id
from sandbox_host.errors import SignerError
from sandbox_host.reading import escaped, shown_bytes, shown_seconds
from sandbox_host.signing.ssh_wire import Reader, WireError, string, u32

SOCKET_VARIABLE: Final = "SSH_AUTH_SOCK"
MAX_MESSAGE_BYTES: Final = 256 << 10
"""OpenSSH's agent takes and gives no more in one message (AGENT_MAX_LEN)."""

MAX_KEYS: Final = 2_000
"""As many as OpenSSH's tools look at (MAX_AGENT_IDENTITIES)."""

LIST_SECONDS: Final = 15.0
SIGN_SECONDS: Final = 120.0
"""An agent may ask a person first (`ssh-add -c`), or a token that waits to be touched."""

_MAX_COMMENT: Final = 120
_FAILURE: Final = 5
_REQUEST_IDENTITIES: Final = 11
_IDENTITIES_ANSWER: Final = 12
_SIGN_REQUEST: Final = 13
_SIGN_RESPONSE: Final = 14
_NO_FLAGS: Final = 0


@dataclass(frozen=True, slots=True)
class AgentKey:
    """One Ed25519 key that an agent offers.

    Attributes:
        public: 32 raw bytes.
        comment: what the agent calls it, escaped, at most 120 characters.
    """

    public: bytes
    comment: str

    def __str__(self) -> str:
        """Return it as `ssh-add -l` shows it."""
        return f"{fingerprint(self.public)} {self.comment}".rstrip()


class AgentSigner:
    """A `sandbox_host.bundle.sign.Signer` whose key is in an agent.

    Args:
        key: one that this agent offers.
        socket_path: where the agent listens.
        clock: seconds, only ever growing.
    """

    def __init__(
        self, key: AgentKey, socket_path: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._key = key
        self._socket_path = socket_path
        self._clock = clock

    @property
    def public(self) -> bytes:
        """The raw public key."""
        return self._key.public

    def sign(self, message: bytes) -> bytes:
        """Have the agent sign `message`.

        Raises:
            SignerError: the agent cannot be reached, refuses, is late, answers what is no
                signature, or takes no message of this length.
        """
        request = bytes((_SIGN_REQUEST,)) + string(openssh_blob(self._key.public))
        request += string(message) + u32(_NO_FLAGS)
        answer = _ask(self._socket_path, request, self._clock() + SIGN_SECONDS, self._clock)
        try:
            return parse_signature(answer)
        except WireError as error:
            raise _unusable(self._socket_path, f"its signature cannot be read: {error}") from error


def list_keys(socket_path: str, clock: Callable[[], float] = time.monotonic) -> list[AgentKey]:
    """Return the Ed25519 keys of an agent.

    Raises:
        SignerError: the agent cannot be reached, refuses, is late, or answers something else.
    """
    request = bytes((_REQUEST_IDENTITIES,))
    answer = _ask(socket_path, request, clock() + LIST_SECONDS, clock)
    try:
        return parse_identities(answer)
    except WireError as error:
        raise _unusable(socket_path, f"its list of keys cannot be read: {error}") from error


def find_key(keys: list[AgentKey], wanted: str) -> AgentKey:
    """Return the one key that `wanted` names.

    Args:
        keys: what the agent offers.
        wanted: ``SHA256:...``, our key id, or the key's comment; "" for the only one there is.

    Raises:
        SignerError: there is none, or more than one; the message lists them.
    """
    found = [
        key
        for key in keys
        if not wanted or wanted in {fingerprint(key.public), key_id(key.public), key.comment}
    ]
    if len(found) == 1:
        return found[0]
    offered = "; ".join(str(key) for key in keys) or "none at all"
    called = f" called {shown(wanted)}" if wanted else ""
    raise SignerError(
        f"the SSH agent has {len(found) or 'no'} Ed25519 key{'' if len(found) == 1 else 's'}"
        f"{called}; it offers: {escaped(offered, 2_000)}.",
        remedy="Name one by its fingerprint, as in `--key ssh-agent:SHA256:...`; `ssh-add FILE` "
        "adds one.",
    )


def socket_of(environ: Mapping[str, str]) -> str:
    """Return where this user's agent listens.

    Raises:
        SignerError: the environment does not say.
    """
    path = environ.get(SOCKET_VARIABLE, "")
    if not path:
        raise SignerError(
            f"no SSH agent is known here: ${SOCKET_VARIABLE} is not set.",
            remedy="Start one (`eval $(ssh-agent)`) and add the key (`ssh-add FILE`), or give "
            "--key FILE.",
        )
    return path


def parse_identities(answer: bytes) -> list[AgentKey]:
    """Return the Ed25519 keys in an answer to "request identities".

    Raises:
        WireError: it is no such answer.
    """
    reader = Reader(answer)
    _expect(reader, _IDENTITIES_ANSWER)
    count = reader.u32()
    if count > MAX_KEYS:
        raise WireError(f"it lists {count} keys, more than {MAX_KEYS}")
    keys = []
    for _ in range(count):
        blob, comment = reader.string(), reader.string()
        public = blob[-PUBLIC_KEY_BYTES:]
        if blob == openssh_blob(public):
            text = escaped(comment.decode("utf-8", "replace"), _MAX_COMMENT)
            keys.append(AgentKey(public, text))
    reader.end()
    return keys


def parse_signature(answer: bytes) -> bytes:
    """Return the 64 bytes in an answer to "sign".

    Raises:
        WireError: it is no such answer, or no Ed25519 signature.
    """
    reader = Reader(answer)
    _expect(reader, _SIGN_RESPONSE)
    inner = Reader(reader.string())
    reader.end()
    kind, signature = inner.string(), inner.string()
    inner.end()
    if kind != OPENSSH_TYPE.encode() or len(signature) != SIGNATURE_BYTES:
        raise WireError("it is not an Ed25519 signature")
    return signature


def _expect(reader: Reader, number: int) -> None:
    found = reader.byte()
    if found == _FAILURE:
        raise WireError("the agent refused; it may be locked, or somebody declined")
    if found != number:
        raise WireError(f"it is of type {found} instead of {number}")


def _ask(path: str, request: bytes, deadline: float, clock: Callable[[], float]) -> bytes:
    """Return the agent's answer, without its length."""
    if len(request) > MAX_MESSAGE_BYTES - 4:
        raise SignerError(
            f"an SSH agent takes messages of at most {shown_bytes(MAX_MESSAGE_BYTES)}, and this "
            f"statement with its list of files is {shown_bytes(len(request))} long.",
            remedy="Sign with the key's file (--key FILE) or with a program (--key exec:COMMAND).",
        )
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_left(deadline, clock))
            connection.connect(path)
            connection.sendall(string(request))
            length = int.from_bytes(_receive(connection, 4, deadline, clock), "big")
            if not 0 < length <= MAX_MESSAGE_BYTES:
                raise _unusable(path, f"it announced an answer of {length} bytes")
            return _receive(connection, length, deadline, clock)
    except TimeoutError as error:
        raise _unusable(path, "it did not answer in time") from error
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error


def _receive(
    connection: socket.socket, count: int, deadline: float, clock: Callable[[], float]
) -> bytes:
    data = bytearray()
    while len(data) < count:
        # Anew each time: one byte now and then must not prolong the deadline.
        connection.settimeout(_left(deadline, clock))
        part = connection.recv(min(count - len(data), 1 << 16))
        if not part:
            raise ConnectionError("the agent hung up")
        data += part
    return bytes(data)


def _left(deadline: float, clock: Callable[[], float]) -> float:
    left = deadline - clock()
    if left <= 0:
        raise TimeoutError
    return left


def _unusable(path: str, reason: str) -> SignerError:
    return SignerError(
        f"the SSH agent at {shown(path)} cannot be used: {reason}.",
        remedy=f"Check ${SOCKET_VARIABLE} and `ssh-add -l`; a signature may take "
        f"{shown_seconds(SIGN_SECONDS)}.",
    )
