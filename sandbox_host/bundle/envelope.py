"""The signed envelope: an in-toto Statement v1 inside a DSSE envelope, built and parsed strictly.

Formats: DSSE protocol and envelope v1.0 (secure-systems-lab), in-toto Statement v1. The predicate
is ours. Everything has exactly one valid form: of the envelope, only the bytes that
`build_envelope` writes are accepted, so no byte of the file can change unnoticed, not even one
that the signature does not cover.

Nothing here verifies anything. `parse_statement` is called by `verify` only after the signature
over the raw payload was found good.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sandbox_host.bundle.contents import ENVELOPE_NAME, ReadLimits, digest_of
from sandbox_host.bundle.document import parse_document
from sandbox_host.bundle.names import check_path, check_set, shown
from sandbox_host.bundle.signature import SIGNATURE_BYTES, key_id
from sandbox_host.errors import BundleError, VerificationError
from sandbox_host.model import identity_of
from sandbox_host.reading import BadValueError, sentence

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:sandbox-host:plugin-bundle:v1"
SCHEMA: Final = 1
MAX_NAME_CHARACTERS: Final = 64

_ROOT_DOMAIN: Final = b"sandbox-host plugin-bundle root v1\n"
_MAX_DEPTH: Final = 6
_LIMITS: Final = ReadLimits()
_HEX_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed DSSE envelope with its one signature; nothing in it is verified.

    Attributes:
        payload: the signed bytes, raw.
        key_id: which key the signature claims; a hint that nothing protects.
        signature: 64 raw bytes.
    """

    payload: bytes
    key_id: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One covered file: its SHA-256 in hexadecimal and its size in bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Statement:
    """What is signed.

    Attributes:
        name: the plugin's name as plugin.json has it; `identity` is derived from it.
        root_digest: see `root_digest_of`.
        created: when it was signed, by the signer's clock.
        expires: when it stops being valid, or None.
        files: every file of the bundle but the envelope, sorted by path.
    """

    name: str
    version: str
    plugin_api: str
    created: datetime
    expires: datetime | None
    files: tuple[FileEntry, ...]
    root_digest: str

    @property
    def identity(self) -> str:
        """The subject's name, which trust patterns are matched with."""
        return identity_of(self.name)


def list_files(files: Mapping[str, bytes]) -> tuple[FileEntry, ...]:
    """Return the entries of `files`, sorted by path."""
    return tuple(
        FileEntry(path, digest_of(data), len(data)) for path, data in sorted(files.items())
    )


def root_digest_of(files: tuple[FileEntry, ...]) -> str:
    """Return the digest that stands for a whole bundle, in hexadecimal.

    SHA-256 over: the ASCII line ``sandbox-host plugin-bundle root v1`` with its line feed; the
    number of files; then for each file, in ascending order of its path's UTF-8 bytes: the length
    of the path in bytes, the path, the length of its SHA-256 (32), the SHA-256. Each number is an
    unsigned 64-bit big-endian integer. The lengths make the encoding unambiguous: no two
    different sets of files have the same input.
    """
    digest = hashlib.sha256(_ROOT_DOMAIN + _u64(len(files)))
    for encoded, content in sorted((f.path.encode(), bytes.fromhex(f.sha256)) for f in files):
        digest.update(_u64(len(encoded)) + encoded + _u64(len(content)) + content)
    return digest.hexdigest()


def pre_authentication_encoding(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Return what DSSE signs; its lengths count encoded bytes, not characters."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def build_statement(statement: Statement) -> bytes:
    """Return the payload for `statement`: compact UTF-8 JSON with sorted keys."""
    predicate: dict[str, Any] = {
        "schema": SCHEMA,
        "name": statement.name,
        "version": statement.version,
        "plugin_api": statement.plugin_api,
        "created": format_time(statement.created),
        "files": [{"path": f.path, "sha256": f.sha256, "size": f.size} for f in statement.files],
    }
    if statement.expires is not None:
        predicate["expires"] = format_time(statement.expires)
    return _compact(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": statement.identity, "digest": {"sha256": statement.root_digest}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": predicate,
        }
    )


def build_envelope(payload: bytes, public: bytes, signature: bytes) -> bytes:
    """Return the envelope file: one line of compact JSON and a line feed."""
    return _render(Envelope(payload, key_id(public), signature))


def parse_envelope(data: bytes) -> Envelope:
    """Parse the envelope file strictly; the payload stays raw.

    Raises:
        VerificationError: for anything that `build_envelope` would not have written.
    """
    where = "envelope"
    parsed = _json(data, where)
    _keys(parsed, {"payload", "payloadType", "signatures"}, where)
    kind = _text(parsed["payloadType"], f"{where}: payloadType")
    if kind != PAYLOAD_TYPE:
        raise _fault(f"{where}: payloadType", f"expected {PAYLOAD_TYPE!r}, got {shown(kind)}")
    signatures = _list(parsed["signatures"], f"{where}: signatures")
    if len(signatures) != 1:
        raise _fault(f"{where}: signatures", f"expected exactly one, got {len(signatures)}")
    where = "envelope: signatures[0]"
    _keys(signatures[0], {"keyid", "sig"}, where)
    signature = _base64(signatures[0]["sig"], f"{where}.sig", 4 * SIGNATURE_BYTES)
    if len(signature) != SIGNATURE_BYTES:
        raise _fault(f"{where}.sig", f"expected {SIGNATURE_BYTES} bytes, got {len(signature)}")
    payload = _base64(parsed["payload"], "envelope: payload", _LIMITS.envelope_bytes)
    envelope = Envelope(payload, _digest(signatures[0]["keyid"], f"{where}.keyid"), signature)
    if _render(envelope) != data:
        raise _fault("envelope", "its bytes are not in the one form that signing writes")
    return envelope


def parse_statement(payload: bytes) -> Statement:
    """Parse a payload strictly, with every path checked by the rules of `names`.

    Raises:
        VerificationError: for anything that `build_statement` would not have written of a
            well-formed bundle, up to JSON's insignificant freedoms.
    """
    where = "statement"
    parsed = _json(payload, where)
    _keys(parsed, {"_type", "subject", "predicateType", "predicate"}, where)
    _constant(parsed["_type"], STATEMENT_TYPE, f"{where}: _type")
    _constant(parsed["predicateType"], PREDICATE_TYPE, f"{where}: predicateType")
    subjects = _list(parsed["subject"], f"{where}: subject")
    if len(subjects) != 1:
        raise _fault(f"{where}: subject", f"expected exactly one, got {len(subjects)}")
    _keys(subjects[0], {"name", "digest"}, f"{where}: subject[0]")
    _keys(subjects[0]["digest"], {"sha256"}, f"{where}: subject[0].digest")
    statement = _parse_predicate(
        parsed["predicate"],
        _digest(subjects[0]["digest"]["sha256"], f"{where}: subject[0].digest.sha256"),
    )
    _constant(subjects[0]["name"], statement.identity, f"{where}: subject[0].name")
    if root_digest_of(statement.files) != statement.root_digest:
        raise _fault(f"{where}: subject[0].digest", "it is not the root digest of the files")
    return statement


def format_time(moment: datetime) -> str:
    """Return an aware `moment` as RFC 3339 in UTC with whole seconds."""
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def _parse_predicate(value: Any, root_digest: str) -> Statement:
    where = "statement: predicate"
    required = {"schema", "name", "version", "plugin_api", "created", "files"}
    _keys(value, required, where, optional={"expires"})
    if type(value["schema"]) is not int or value["schema"] != SCHEMA:
        raise _fault(f"{where}.schema", f"expected {SCHEMA}, got {shown(str(value['schema']))}")
    name = _text(value["name"], f"{where}.name", MAX_NAME_CHARACTERS)
    if not _NAME.fullmatch(name):
        raise _fault(f"{where}.name", f"{shown(name)} is not an ASCII identifier")
    expires = _time(value["expires"], f"{where}.expires") if "expires" in value else None
    created = _time(value["created"], f"{where}.created")
    if expires is not None and expires <= created:
        raise _fault(f"{where}.expires", "it is not after created")
    return Statement(
        name=name,
        version=_text(value["version"], f"{where}.version"),
        plugin_api=_text(value["plugin_api"], f"{where}.plugin_api"),
        created=created,
        expires=expires,
        files=_parse_files(value["files"], f"{where}.files"),
        root_digest=root_digest,
    )


def _parse_files(value: Any, where: str) -> tuple[FileEntry, ...]:
    entries = _list(value, where)
    if len(entries) > _LIMITS.files:
        raise _fault(where, f"expected at most {_LIMITS.files} files, got {len(entries)}")
    files = tuple(_parse_file(entry, f"{where}[{i}]") for i, entry in enumerate(entries))
    paths = [file.path for file in files]
    if paths != sorted(set(paths)):
        raise _fault(where, "the paths are not sorted and unique")
    try:
        check_set(paths)
    except BundleError as error:
        raise _fault(where, error.message) from error
    if sum(file.size for file in files) > _LIMITS.total_bytes:
        raise _fault(where, f"the sizes add up to more than {_LIMITS.total_bytes} bytes")
    return files


def _parse_file(value: Any, where: str) -> FileEntry:
    _keys(value, {"path", "sha256", "size"}, where)
    path = value["path"]
    if type(path) is not str:
        raise _fault(f"{where}.path", f"expected text, got {_type_name(path)}")
    try:
        check_path(path)
    except BundleError as error:
        raise _fault(f"{where}.path", error.message) from error
    size = value["size"]
    if type(size) is not int or not 0 <= size <= _LIMITS.file_bytes:
        expected = f"an integer from 0 to {_LIMITS.file_bytes}"
        raise _fault(f"{where}.size", f"expected {expected}, got {shown(str(size))}")
    return FileEntry(path, _digest(value["sha256"], f"{where}.sha256"), size)


def _render(envelope: Envelope) -> bytes:
    signature = base64.b64encode(envelope.signature).decode()
    value = {
        "payload": base64.b64encode(envelope.payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": envelope.key_id, "sig": signature}],
    }
    return _compact(value) + b"\n"


def _compact(value: Any) -> bytes:
    return json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    ).encode()


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "big")


# -- one small check a function; `where` is the path of the value in the message --------------


def _fault(where: str, reason: str) -> VerificationError:
    return VerificationError(
        sentence(f"{ENVELOPE_NAME}: {where}: {reason}"),
        remedy="Get the bundle again; if you are its author, sign it again (`sandbox-host sign`).",
    )


def _type_name(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "text", int: "an integer"}
    return names.get(type(value), "null" if value is None else f"a {type(value).__name__}")


def _json(data: bytes, where: str) -> Any:
    try:
        return parse_document(data, max_bytes=_LIMITS.envelope_bytes, max_depth=_MAX_DEPTH)
    except BadValueError as error:
        raise _fault(where, str(error)) from error


def _keys(
    value: Any, required: set[str], where: str, optional: frozenset[str] | set[str] = frozenset()
) -> None:
    if type(value) is not dict:
        raise _fault(where, f"expected an object, got {_type_name(value)}")
    unknown, missing = value.keys() - required - optional, required - value.keys()
    if unknown:
        raise _fault(where, f"unknown key {shown(min(unknown))}")
    if missing:
        raise _fault(where, f"missing key {min(missing)!r}")


def _list(value: Any, where: str) -> list[Any]:
    if type(value) is not list:
        raise _fault(where, f"expected an array, got {_type_name(value)}")
    return value


def _text(value: Any, where: str, most: int = 200) -> str:
    if type(value) is not str:
        raise _fault(where, f"expected text, got {_type_name(value)}")
    if not 0 < len(value) <= most:
        raise _fault(where, f"expected 1 to {most} characters, got {len(value)}")
    return value


def _constant(value: Any, expected: str, where: str) -> None:
    text = _text(value, where)
    if text != expected:
        raise _fault(where, f"expected {expected!r}, got {shown(text)}")


def _digest(value: Any, where: str) -> str:
    if type(value) is not str or not _HEX_DIGEST.fullmatch(value):
        raise _fault(where, "expected 64 lower-case hexadecimal digits")
    return value


def _base64(value: Any, where: str, most: int) -> bytes:
    if type(value) is not str or len(value) > most:
        raise _fault(where, f"expected base64 text of at most {most} characters")
    try:
        data = base64.b64decode(value.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise _fault(where, "not base64") from None
    if base64.b64encode(data).decode() != value:
        raise _fault(where, "not canonical base64")
    return data


def _time(value: Any, where: str) -> datetime:
    if type(value) is str and _TIME.fullmatch(value):
        try:
            return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        except ValueError:
            pass
    raise _fault(where, "expected a time as 2026-01-31T12:00:00Z")
