"""One line of the journal: how it is written, sealed and read again. Pure.

A line is one JSON object in one form only, so that nothing in it can change unnoticed; its hash
covers everything before it in the line, the hash of the line before it included.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Final

MAX_NAME_LENGTH: Final = 64
MAX_DETAIL_LENGTH: Final = 2_000
MAX_LINE_BYTES: Final = 32 * 1024
"""A line is shorter whatever its texts: a character takes at most 12 bytes as a JSON escape."""

GENESIS: Final = "0" * 64
REPAIRED: Final = "journal-repaired"
ROTATED: Final = "journal-rotated"
NEW: Final = "journal-new"

_FIELDS: Final = ("seq", "time", "event", "plugin", "detail", "prev", "hash")


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One line.

    Attributes:
        seq: 1 for the first line of a journal, increasing by one, across its files.
        time: when it was written, ISO 8601 in UTC.
        event: what happened, such as "admitted" or "killed".
        plugin: identity of the plugin it happened to; "" for the host.
        detail: the rest, for people.
        prev: hash of the line before; 64 zeros in the first.
        hash: SHA-256 of this line without its hash, in hex.
    """

    seq: int
    time: str
    event: str
    plugin: str
    detail: str
    prev: str
    hash: str

    def line(self) -> bytes:
        """Return the entry as its file holds it, with the line's end."""
        return _encode(asdict(self)) + b"\n"


def _encode(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=True).encode()


def seal(seq: int, time: str, event: str, plugin: str, detail: str, prev: str) -> JournalEntry:
    """Return an entry with its hash; the texts are bounded and escaped already."""
    fields = dict(zip(_FIELDS, (seq, time, event, plugin, detail, prev), strict=False))
    return JournalEntry(
        seq, time, event, plugin, detail, prev, hashlib.sha256(_encode(fields)).hexdigest()
    )


def parse_line(line: bytes) -> JournalEntry | str:
    """Return the entry of a whole line, or why it is none. The line must be canonical."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return "not JSON"
    if not isinstance(fields, dict) or tuple(fields) != _FIELDS:
        return f"expected the keys {', '.join(_FIELDS)}"
    seq, texts = fields["seq"], [fields[name] for name in _FIELDS[1:-1]]
    if type(seq) is not int or not all(isinstance(text, str) for text in texts):
        return "a value has another type than the host writes"
    entry = seal(seq, *texts)
    if entry.hash != fields["hash"]:
        return "its hash does not match its contents"
    if entry.line() != line:
        return "written in another way than the host writes"
    return entry


def successor_fault(entry: JournalEntry, before: JournalEntry | None) -> str:
    """Return why `entry` cannot follow `before`, or ""; None is the beginning of a journal."""
    if entry.seq != (before.seq + 1 if before else 1):
        return f"its seq is {entry.seq}, so that lines before it were removed, added or moved"
    if entry.prev != (before.hash if before else GENESIS):
        return "it continues another line than the one before it"
    return ""
