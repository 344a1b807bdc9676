"""The signed envelope: DSSE with up to sixteen signatures over one payload.

Formats: DSSE protocol and envelope v1.0 (secure-systems-lab). What counts is the payload's bytes.
Around them the envelope may be spelt as another tool spells it: keys in any order, white space,
key ids of its own or none. Everything that could be read in two ways is refused: duplicate and
unknown keys, base64 that is not canonical, anything beyond the bounds. `build_envelope` writes one
form only. DSSE's other alphabet of base64, the URL-safe one, is not read.

A key id is a hint that nothing protects (DSSE, section "Protocol"): who signed is decided by
`counting`, over the raw payload, before `statement` parses it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Final

from sandbox_host.bundle.names import shown
from sandbox_host.bundle.shapes import (
    LIMITS,
    fault,
    read_array,
    read_base64,
    read_json,
    read_object,
    read_text,
    type_name,
)
from sandbox_host.bundle.signature import SIGNATURE_BYTES, key_id
from sandbox_host.bundle.statement import (
    MAX_NAME_CHARACTERS,
    PREDICATE_TYPE,
    SCHEMA,
    STATEMENT_TYPE,
    FileEntry,
    Statement,
    build_statement,
    compact_json,
    format_time,
    list_files,
    parse_statement,
    root_digest_of,
)
from sandbox_host.reading import is_printable

# The envelope and what it holds are one format: whoever uses one needs the other.
__all__ = [
    "MAX_KEY_ID_CHARACTERS",
    "MAX_NAME_CHARACTERS",
    "MAX_SIGNATURES",
    "PAYLOAD_TYPE",
    "PREDICATE_TYPE",
    "SCHEMA",
    "STATEMENT_TYPE",
    "Envelope",
    "FileEntry",
    "Signature",
    "Statement",
    "build_envelope",
    "build_statement",
    "format_time",
    "list_files",
    "parse_envelope",
    "parse_statement",
    "pre_authentication_encoding",
    "render_envelope",
    "root_digest_of",
]

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MAX_SIGNATURES: Final = 16
"""More people than ever sign one release; each signature costs time before anybody is trusted."""

MAX_KEY_ID_CHARACTERS: Final = 128


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of an envelope; nothing of it is verified.

    Attributes:
        key_id: which key it claims to be of: ours is the SHA-256 of the raw key, other tools have
            others, and "" claims nothing. At most 128 printable characters.
        value: 64 raw bytes.
    """

    key_id: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed DSSE envelope; nothing in it is verified.

    Attributes:
        payload: the signed bytes, raw.
        signatures: 1 to 16, as they stand there; no two claim the same key.
    """

    payload: bytes
    signatures: tuple[Signature, ...]

    @property
    def key_id(self) -> str:
        """Which key the first signature claims; see `Signature.key_id`."""
        return self.signatures[0].key_id


def pre_authentication_encoding(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Return what DSSE signs; its lengths count encoded bytes, not characters."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def build_envelope(payload: bytes, public: bytes, signature: bytes) -> bytes:
    """Return the envelope file with one signature, as `render_envelope` writes it."""
    return render_envelope(Envelope(payload, (Signature(key_id(public), signature),)))


def render_envelope(envelope: Envelope) -> bytes:
    """Return the envelope file: one line of compact JSON with sorted keys, and a line feed."""
    value = {
        "payload": base64.b64encode(envelope.payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {"keyid": one.key_id, "sig": base64.b64encode(one.value).decode()}
            for one in envelope.signatures
        ],
    }
    return compact_json(value) + b"\n"


def parse_envelope(data: bytes) -> Envelope:
    """Parse the envelope file strictly; the payload stays raw.

    Raises:
        VerificationError: it is not a DSSE envelope of ours, could be read in two ways, or is
            beyond a bound.
    """
    where = "envelope"
    parsed = read_object(read_json(data, where), {"payload", "payloadType", "signatures"}, where)
    kind = read_text(parsed["payloadType"], f"{where}: payloadType")
    if kind != PAYLOAD_TYPE:
        raise fault(f"{where}: payloadType", f"expected {PAYLOAD_TYPE!r}, got {shown(kind)}")
    entries = read_array(parsed["signatures"], f"{where}: signatures")
    if not 0 < len(entries) <= MAX_SIGNATURES:
        expected = f"expected 1 to {MAX_SIGNATURES}, got {len(entries)}"
        raise fault(f"{where}: signatures", expected)
    signatures = tuple(
        _parse_signature(entry, f"{where}: signatures[{i}]") for i, entry in enumerate(entries)
    )
    claimed = [one.key_id for one in signatures if one.key_id]
    if len(set(claimed)) != len(claimed):
        raise fault(f"{where}: signatures", "two of them claim the same key")
    payload = read_base64(parsed["payload"], f"{where}: payload", LIMITS.envelope_bytes)
    return Envelope(payload, signatures)


def _parse_signature(value: Any, where: str) -> Signature:
    read_object(value, {"sig"}, where, optional={"keyid"})
    signature = read_base64(value["sig"], f"{where}.sig", 4 * SIGNATURE_BYTES)
    if len(signature) != SIGNATURE_BYTES:
        raise fault(f"{where}.sig", f"expected {SIGNATURE_BYTES} bytes, got {len(signature)}")
    return Signature(_key_hint(value.get("keyid", ""), f"{where}.keyid"), signature)


def _key_hint(value: Any, where: str) -> str:
    if type(value) is not str:
        raise fault(where, f"expected text, got {type_name(value)}")
    if len(value) > MAX_KEY_ID_CHARACTERS or not is_printable(value):
        raise fault(where, f"expected at most {MAX_KEY_ID_CHARACTERS} printable characters")
    return value
