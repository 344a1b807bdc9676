"""An event as it waits: its data packed, so that what a plugin sends never grows while it is kept.

Decoded, a few hundred bytes of empty containers take as many kilobytes; a queue of such events
would be the host's memory, not the plugin's. Whoever takes an event decodes that one. And it is
packed for the wire once, however many plugins get it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.events import pack_event, unpack_data
from plugin_sdk.wire.limits import EVENT
from sandbox_host.model import Event

_KEYS: Final = {key: codec.pack(key) for key in ("data", "timestamp", "source", "id")}


@dataclass(slots=True)  # one that is frozen takes three times as long to make
class PackedEvent:
    """See `sandbox_host.model.Event`; ``data`` is valid under the wire's bounds for events."""

    type: str
    data: bytes
    timestamp: float
    source: str
    id: int
    _delivery: bytes = field(default=b"", init=False, repr=False, compare=False)
    entry: bytes = field(default=b"", init=False, repr=False, compare=False)
    """What stands for it in the payload of a `DeliverMany` message; see `prepare`."""

    def prepare(self) -> PackedEvent:
        """Return the event itself, packed for plugins."""
        if not self.entry:
            self.entry = pack_event(self.data, self.timestamp, self.source, self.id)
        return self

    def unpack(self) -> Event:
        """Return the event with its data decoded, which was checked when it was published."""
        return Event(self.type, unpack_data(self.data), self.timestamp, self.source, self.id)

    def check(self) -> PackedEvent:
        """Return the event itself, if its data is what may be published.

        Raises:
            PayloadError: it is not: it was kept where somebody changed it.
        """
        codec.unpack(self.data, EVENT)
        return self

    def delivery(self) -> bytes:
        """Return the payload of a `Deliver` message, around the packed data as it is.

        An object of four keys by the msgpack specification: 0x84, then keys and values in turn.
        """
        if not self._delivery:
            parts = [b"\x84", _KEYS["data"], self.data]
            for key in ("timestamp", "source", "id"):
                parts += [_KEYS[key], codec.pack(getattr(self, key))]
            self._delivery = b"".join(parts)
        return self._delivery
