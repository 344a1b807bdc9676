"""An event as it waits: its data packed, so that what a plugin sends never grows while it is kept.

Decoded, a few hundred bytes of empty containers take as many kilobytes; a queue of such events
would be the host's memory, not the plugin's. Whoever takes an event decodes that one.
"""

from __future__ import annotations

from dataclasses import dataclass

from plugin_sdk.wire import codec
from plugin_sdk.wire.limits import EVENT
from sandbox_host.model import Event


@dataclass(frozen=True, slots=True)
class PackedEvent:
    """See `sandbox_host.model.Event`; ``data`` is valid under the wire's bounds for events."""

    type: str
    data: bytes
    timestamp: float
    source: str
    id: int

    def unpack(self) -> Event:
        """Return the event with its data decoded."""
        data = codec.unpack(self.data, EVENT)
        return Event(self.type, data, self.timestamp, self.source, self.id)

    def delivery(self) -> bytes:
        """Return the payload of a `Deliver` message, around the packed data as it is.

        An object of four keys by the msgpack specification: 0x84, then keys and values in turn.
        """
        stamp = {"timestamp": self.timestamp, "source": self.source, "id": self.id}
        parts = [b"\x84", codec.pack("data"), self.data]
        for key, value in stamp.items():
            parts += [codec.pack(key), codec.pack(value)]
        return b"".join(parts)
