"""What a plugin was asked and answered, in one file: its form.

A recording begins with `MAGIC`. Then come frames as on the wire, a header and a payload with their
lengths before them. The first byte of a header says what the frame is: `ABOUT` (once, at the
beginning), `KEPT` or `LEFT_OUT` (the rest of the header is a message's on the wire, its payload is
here or is not), `END` (once, with a SHA-256 of everything before it).

`recorder` writes such a file, `recording_reader` reads it.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Self

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.limits import MAX_FEEDS, REPORT
from plugin_sdk.wire.message import Message
from plugin_sdk.wire.messages import (
    Answer,
    Ask,
    Call,
    Cancel,
    Deliver,
    Failure,
    Feed,
    FeedEnd,
    Handled,
    Publish,
    Result,
    Yield,
)
from sandbox_host.model import MIB
from sandbox_host.reading import (
    check_keys,
    expected,
    read_list,
    read_match,
    read_object,
    read_text,
)

MAGIC: Final = b"sandbox-host recording 1\n"
ABOUT: Final = b"A"
KEPT: Final = b"K"
LEFT_OUT: Final = b"L"
END: Final = b"E"

MAX_FILE_BYTES: Final = 256 * MIB
MAX_RECORDS: Final = 200_000
"""Of one file: each takes some hundred bytes of memory beside its payload."""

MAX_NAMES: Final = 64
MAX_NAME_LENGTH: Final = 64

COMPLETE: Final = "complete"
FULL: Final = "full"
SLOW: Final = "slow"
FAULT: Final = "fault"
STOPPED: Final = {
    COMPLETE: "",
    FULL: "it has reached its size limit",
    SLOW: "the plugin said more than could be written in time",
    FAULT: "it could not be written any more",
}
"""Why a recording ends where it ends, and how that is told."""

RECORDED: Final[frozenset[type[Message]]] = frozenset(
    (Call, Deliver, Cancel, Feed, FeedEnd, Answer)
) | frozenset((Result, Failure, Handled, Yield, Publish, Ask))
"""What is kept: by the host, and by the plugin. Credits, progress and log entries are not."""

MAY_BE_EMPTY: Final = (Cancel, FeedEnd, Handled, Yield)
"""What may have no payload; an empty `Yield` says that a stream has no items."""

REDACTED: Final = "[redacted]"

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_IDENTITY: Final = re.compile(r"[a-z][a-z0-9_]{0,127}")
_MAX_EPOCH: Final = 253_402_300_799
_CALL: Final = 2


@dataclass(frozen=True, slots=True)
class About:
    """What was recorded.

    Attributes:
        plugin: its identity.
        version: out of plugin.json.
        digest: SHA-256 of the signed statement's files, in hex.
        config_digest: SHA-256 of the configuration that the plugin saw, in hex.
        host_version: of this package.
        started_at: seconds since the epoch.
        redacted: names of fields whose values were replaced, in lower case.
    """

    plugin: str
    version: str
    digest: str
    config_digest: str
    host_version: str
    started_at: float
    redacted: tuple[str, ...] = ()

    def packed(self) -> bytes:
        """Return it as the payload of the first frame."""
        return codec.pack({**asdict(self), "redacted": list(self.redacted)}, REPORT)

    @classmethod
    def unpacked(cls, payload: bytes) -> Self:
        """Return what `packed` returned.

        Raises:
            PayloadError: it is no such payload.
            BadValueError: a value in it is none.
        """
        table = read_object(codec.unpack(payload, REPORT), "about")
        names = [one.name for one in fields(cls)]
        check_keys(table, "about", names, names)
        started = table["started_at"]
        if not isinstance(started, float) or not 0 <= started <= _MAX_EPOCH:
            raise expected("about.started_at", "seconds since the epoch", started)
        return cls(
            plugin=read_match(table["plugin"], "about.plugin", _IDENTITY, "an identity"),
            version=read_text(table["version"], "about.version", limit=256),
            digest=read_match(table["digest"], "about.digest", _DIGEST, "a SHA-256"),
            config_digest=read_match(table["config_digest"], "about.config", _DIGEST, "a SHA-256"),
            host_version=read_text(table["host_version"], "about.host_version", limit=64),
            started_at=started,
            redacted=read_list(table["redacted"], "about.redacted", _field_name, limit=MAX_NAMES),
        )


def _field_name(value: object, path: str) -> str:
    return read_text(value, path, limit=4 * MAX_NAME_LENGTH)


@dataclass(slots=True)
class Fed:
    """One stream that was passed to a call.

    Attributes:
        items: packed; None for one that was left out.
        problem: what cut it off, packed; None where it came to its end, or was not read to it.
    """

    items: list[bytes | None] = field(default_factory=list)
    ended: bool = False
    problem: bytes | None = None


@dataclass(slots=True)
class Step:
    """A call, or an event that was delivered, with what became of it.

    Attributes:
        number: from 1 on, in the order in which they were sent.
        name: of the operation, or the event's type.
        is_event: it was delivered.
        payload: packed; None where it was left out.
        places: where streams were passed.
        fed: those streams.
        items: what it yielded, packed; None for one that was left out.
        streams: it yielded, if only nothing.
        cancelled: nobody waited for it any more, or it was too late.
        answer: `Result`, `Failure` or `Handled`; None where none came.
        answer_kept: the answer's payload is here.
    """

    number: int
    name: str
    is_event: bool
    payload: bytes | None
    places: tuple[int | str, ...] = ()
    fed: list[Fed] = field(default_factory=list)
    items: list[bytes | None] = field(default_factory=list)
    streams: bool = False
    cancelled: bool = False
    answer: Message | None = None
    answer_kept: bool = True


@dataclass(frozen=True, slots=True)
class Published:
    """An event that the plugin published; ``payload`` is None where it was left out."""

    type: str
    payload: bytes | None


@dataclass(slots=True)
class Served:
    """What the plugin asked the host for, and what it got; None is what was left out, or never."""

    service: str
    payload: bytes | None
    ok: bool = False
    answer: bytes | None = None


@dataclass(slots=True)
class Together:
    """Steps that overlapped, mostly one, and what the plugin published until the next ones."""

    steps: list[Step] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Recording:
    """All that a file holds.

    Attributes:
        about: what was recorded.
        groups: in their order; the first is of the start, and has no steps.
        served: what the plugin asked the host for, in its order.
        stopped: why it ends: a key of `STOPPED`.
    """

    about: About
    groups: tuple[Together, ...]
    served: tuple[Served, ...]
    stopped: str

    @property
    def steps(self) -> list[Step]:
        """All calls and deliveries, in their order."""
        return [step for group in self.groups for step in group.steps]


def arguments_of(message: Message, value: Any) -> tuple[int | str, ...]:
    """Return where streams were passed to a `Call`, and check the form of its payload and others'.

    Raises:
        PayloadError: the payload is not what a message of its kind carries.
    """
    fits, places = True, ()
    if isinstance(message, Call | Ask):
        fits = isinstance(value, list) and list(map(type, value[:_CALL])) == [list, dict]
        rest = value[_CALL:] if fits else []
        if isinstance(message, Call) and rest == [[], True]:
            pass  # a batch: its arguments are checked where it is played
        elif isinstance(message, Call) and rest:
            fits = len(rest) == 1 and isinstance(rest[0], list) and len(rest[0]) <= MAX_FEEDS
            fits = fits and all(_is_place(one, *value[:_CALL]) for one in rest[0])
            places = tuple(rest[0]) if fits else ()
        else:
            fits = fits and not rest
    elif isinstance(message, Deliver):
        fits = isinstance(value, dict) and {
            k: type(v) for k, v in value.items() if k != "data"
        } == {
            "timestamp": float,
            "source": str,
            "id": int,
        }
        fits = fits and "data" in value and math.isfinite(value["timestamp"])
    elif isinstance(message, Failure | Handled):
        fits = isinstance(value, dict)
    if not fits:
        text = f"payload is not that of {type(message).__name__}"
        raise PayloadError(text)
    return places


def _is_place(place: object, arguments: list[Any], keywords: dict[str, Any]) -> bool:
    if type(place) is int:
        return 0 <= place < len(arguments)
    return isinstance(place, str) and place in keywords
