"""Every limit of the wire, each with its unit in the name and its reason above it."""

from __future__ import annotations

# The newest version of the protocol that this side speaks, and the oldest. Each side sends both
# when it confines or was confined; the newest that both speak is in force (`versions`).
PROTOCOL_VERSION = 1
OLDEST_PROTOCOL_VERSION = 1

# Two 32-bit big-endian lengths: header, payload.
PREFIX_BYTES = 8

# A header is a flat array of a few scalars; names in it are capped below. It is the only part of
# a frame that is decoded without being asked for, so it must be too small to amplify: an 8 MiB
# frame of empty containers was seen to decode to 583 MiB.
MAX_HEADER_BYTES = 1_024

# The payload is opaque to the connection and decoded on demand under the limits below. So large it
# may be where the host does not say another limit.
MAX_PAYLOAD_BYTES = 8 * 1024 * 1024

# The highest limit that a host may say: 64 MiB, and room for what is around them.
MAX_ALLOWED_BYTES = 65 * 1024 * 1024

# The data of one event. Events are decoded by whoever reads for everybody, copied to every
# subscriber and kept in queues; what is larger belongs into a call.
MAX_EVENT_BYTES = 256 * 1024

# Names of operations, event types, error codes.
MAX_NAME_BYTES = 256

# An id is chosen by the host, counting up; 53 bits so that any language can hold it.
MAX_ID = 2**53 - 1

# Calls and deliveries that the host may have outstanding with one plugin.
MAX_OUTSTANDING = 1_024

# Services that a plugin may have asked for without an answer: one for each of its threads, say.
MAX_ASKED = 64

# Streams that may be passed to one call.
MAX_FEEDS = 8

# Events in one DeliverMany: so many that what each message costs beside them does not matter.
MAX_EVENTS_AT_ONCE = 512

# Items of one stream that were sent and not yet taken by who reads it, and their bytes: with these
# a slow reader bounds the memory of both sides, and a fast one never waits for a round trip.
MAX_STREAM_ITEMS = 64
MAX_STREAM_BYTES = 1024 * 1024

# Nesting of a payload. Deep values break recursive code in the host (json, repr, comparison).
MAX_DEPTH = 32

# An empty list or dict takes one byte on the wire and about 64 in memory; this many bound one
# payload's containers to about 13 MiB. An array counts as one: the smallest takes 20 bytes on the
# wire and 370 in memory, which makes 74 MB.
MAX_CONTAINERS = 200_000

# Elements of all kinds. A float takes nine bytes on the wire and 32 in memory, so a payload full of
# floats stays below; but a small negative number takes one byte and 40, a short text five and 88:
# eight million of the former were seen to decode to 343 MiB. This bounds a payload to about 100.
MAX_ELEMENTS = 1_000_000

# Dimensions of an array: more than data has, and each takes 8 bytes of its header.
MAX_DIMENSIONS = 8

# What get_metadata() may return: a description, not a channel for data.
MAX_METADATA_BYTES = 64 * 1024

# The same for one event, which every subscriber's queue may hold many of: decoded, it takes
# less than 2 MiB. One level less, because an event travels inside an object of the host's.
MAX_EVENT_DEPTH = MAX_DEPTH - 1
MAX_EVENT_CONTAINERS = 4_000
MAX_EVENT_ELEMENTS = 32_000

# Text of a remote error: enough for a deep traceback, too little to fill a log.
MAX_ERROR_TEXT_BYTES = 16 * 1024

# What one read asks the kernel for: the default capacity of a pipe.
READ_BYTES = 64 * 1024


class Bounds:
    """What one packed value may take: bytes, nesting, containers, elements of all kinds; arrays.

    Attributes:
        openings: so many bytes that could open a container break no limit, wherever they stand.
        few_bytes: so many bytes in all hold neither too many elements nor too many containers.
        small_bytes: so many bytes in all hold not too many elements, whatever they are.
        small: the most of those; arguments and results of most calls have fewer.
    """

    small = 1024
    __slots__ = (
        "arrays",
        "containers",
        "depth",
        "elements",
        "few_bytes",
        "max_bytes",
        "openings",
        "small_bytes",
    )

    def __init__(
        self, max_bytes: int, depth: int, containers: int, elements: int, *, arrays: bool = True
    ) -> None:
        self.arrays = arrays
        self.max_bytes = max_bytes
        self.depth = depth
        self.containers = containers
        self.elements = elements
        self.openings = min(depth, containers)
        self.few_bytes = min(containers, elements, max_bytes)
        self.small_bytes = min(self.small, elements, max_bytes)


def value_bounds(max_bytes: int) -> Bounds:
    """Return the bounds of a value that may take so many bytes.

    What it may take beside its bytes is the same for all: nesting, containers and elements.
    """
    return Bounds(max_bytes, MAX_DEPTH, MAX_CONTAINERS, MAX_ELEMENTS)


VALUE = value_bounds(MAX_PAYLOAD_BYTES)
ASKED = value_bounds(MAX_PAYLOAD_BYTES)
"""Of what a service is asked with, whatever limit the host says: the host reads it unasked."""
RECEIVED = value_bounds(MAX_ALLOWED_BYTES)
"""Of what has come over a connection, which has held its bytes against the limit in force."""
EVENT = Bounds(MAX_EVENT_BYTES, MAX_EVENT_DEPTH, MAX_EVENT_CONTAINERS, MAX_EVENT_ELEMENTS)
ARGUMENTS = Bounds(MAX_PAYLOAD_BYTES, MAX_DEPTH, MAX_EVENT_CONTAINERS, MAX_EVENT_ELEMENTS)
"""Of a service of the host's, which checks each element and says what is wrong with it: a list of a
million that it did not expect was seen to cost the host 2.4 s and 260 MiB."""
METADATA = Bounds(
    MAX_METADATA_BYTES, MAX_EVENT_DEPTH, MAX_EVENT_CONTAINERS, MAX_EVENT_ELEMENTS, arrays=False
)
REPORT = Bounds(
    MAX_EVENT_BYTES, MAX_EVENT_DEPTH, MAX_EVENT_CONTAINERS, MAX_EVENT_ELEMENTS, arrays=False
)
"""Of what a plugin's process says to the host itself, which compares it: two arrays of numpy's
compare as a third, which is neither true nor false."""
