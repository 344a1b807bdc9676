"""The collection: what a hostile plugin says on the wire, byte by byte, and what comes of it."""

from __future__ import annotations

from tests.support import wire_cases_of_bytes as of_bytes
from tests.support import wire_cases_of_order as of_order
from tests.support import wire_cases_of_talk as of_talk

COLLECTION = [
    *(*of_bytes.FRAMES, *of_bytes.HEADERS, *of_bytes.PAYLOADS),
    *(*of_order.UNASKED, *of_order.STARTS, *of_order.ENDS),
    *(*of_talk.STREAMS, *of_talk.CANCELS, *of_talk.SERVICES, *of_talk.EVENTS),
]
