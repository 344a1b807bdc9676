"""Files of recordings, also such as no host writes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from plugin_sdk.wire import codec
from plugin_sdk.wire.frames import build_frame
from plugin_sdk.wire.limits import MAX_PAYLOAD_BYTES
from plugin_sdk.wire.message import Message
from plugin_sdk.wire.messages import Call
from sandbox_host.observe.recording import ABOUT, END, KEPT, MAGIC, About

ABOUT_SAMPLE = About("sample", "1.0.0", "0" * 64, "1" * 64, "0.1.0", 1_767_225_600.0)


def pack(value: Any) -> bytes:
    return codec.pack(value)


def call(number: int, *arguments: Any, feeds: Any = (), **keywords: Any) -> Call:
    value = [list(arguments), keywords, *([list(feeds)] if feeds else [])]
    return Call(number, "predict", 77, payload=pack(value))


def forged(
    *messages: Message,
    about: bytes | None = None,
    end: Callable[[dict[str, Any]], object] = lambda _: None,
    after: bytes = b"",
    kind: bytes = KEPT,
) -> bytes:
    """Return a file whose digest is right, whatever is in it."""
    parts = [MAGIC, build_frame(ABOUT, about or ABOUT_SAMPLE.packed(), MAX_PAYLOAD_BYTES)]
    parts += [build_frame(kind + one.header(), one.payload, MAX_PAYLOAD_BYTES) for one in messages]
    digest = hashlib.sha256(b"".join(parts)).digest()
    told: dict[str, Any] = {"stopped": "complete", "records": len(messages), "sha256": digest}
    end(told)
    return b"".join((*parts, build_frame(END, pack(told), MAX_PAYLOAD_BYTES), after))
