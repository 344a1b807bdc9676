"""What is signed: an in-toto Statement v1 about one plugin, built and parsed strictly.

Format: in-toto Statement v1; the predicate is ours. Nothing here verifies anything:
`parse_statement` is called by `verify` only after signatures over the raw payload were found good.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sandbox_host.bundle.contents import digest_of
from sandbox_host.bundle.names import check_path, check_set, shown
from sandbox_host.bundle.shapes import (
    LIMITS,
    fault,
    read_array,
    read_constant,
    read_digest,
    read_json,
    read_object,
    read_text,
    read_time,
    type_name,
)
from sandbox_host.errors import BundleError
from sandbox_host.model import identity_of

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:sandbox-host:plugin-bundle:v1"
SCHEMA: Final = 1
MAX_NAME_CHARACTERS: Final = 64

_ROOT_DOMAIN: Final = b"sandbox-host plugin-bundle root v1\n"
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


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
    return compact_json(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": statement.identity, "digest": {"sha256": statement.root_digest}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": predicate,
        }
    )


def parse_statement(payload: bytes) -> Statement:
    """Parse a payload strictly, with every path checked by the rules of `names`.

    Raises:
        VerificationError: for anything that `build_statement` would not have written of a
            well-formed bundle, up to JSON's insignificant freedoms.
    """
    where = "statement"
    parsed = read_object(
        read_json(payload, where), {"_type", "subject", "predicateType", "predicate"}, where
    )
    read_constant(parsed["_type"], STATEMENT_TYPE, f"{where}: _type")
    read_constant(parsed["predicateType"], PREDICATE_TYPE, f"{where}: predicateType")
    subjects = read_array(parsed["subject"], f"{where}: subject")
    if len(subjects) != 1:
        raise fault(f"{where}: subject", f"expected exactly one, got {len(subjects)}")
    subject = read_object(subjects[0], {"name", "digest"}, f"{where}: subject[0]")
    digest = read_object(subject["digest"], {"sha256"}, f"{where}: subject[0].digest")
    statement = _parse_predicate(
        parsed["predicate"], read_digest(digest["sha256"], f"{where}: subject[0].digest.sha256")
    )
    read_constant(subject["name"], statement.identity, f"{where}: subject[0].name")
    if root_digest_of(statement.files) != statement.root_digest:
        raise fault(f"{where}: subject[0].digest", "it is not the root digest of the files")
    return statement


def format_time(moment: datetime) -> str:
    """Return an aware `moment` as RFC 3339 in UTC with whole seconds."""
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def compact_json(value: Any) -> bytes:
    """Return the one form in which we write JSON that is signed, or that holds what is."""
    return json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    ).encode()


def _parse_predicate(value: Any, root_digest: str) -> Statement:
    where = "statement: predicate"
    required = {"schema", "name", "version", "plugin_api", "created", "files"}
    read_object(value, required, where, optional={"expires"})
    if type(value["schema"]) is not int or value["schema"] != SCHEMA:
        raise fault(f"{where}.schema", f"expected {SCHEMA}, got {shown(str(value['schema']))}")
    name = read_text(value["name"], f"{where}.name", MAX_NAME_CHARACTERS)
    if not _NAME.fullmatch(name):
        raise fault(f"{where}.name", f"{shown(name)} is not an ASCII identifier")
    expires = read_time(value["expires"], f"{where}.expires") if "expires" in value else None
    created = read_time(value["created"], f"{where}.created")
    if expires is not None and expires <= created:
        raise fault(f"{where}.expires", "it is not after created")
    return Statement(
        name=name,
        version=read_text(value["version"], f"{where}.version"),
        plugin_api=read_text(value["plugin_api"], f"{where}.plugin_api"),
        created=created,
        expires=expires,
        files=_parse_files(value["files"], f"{where}.files"),
        root_digest=root_digest,
    )


def _parse_files(value: Any, where: str) -> tuple[FileEntry, ...]:
    entries = read_array(value, where)
    if len(entries) > LIMITS.files:
        raise fault(where, f"expected at most {LIMITS.files} files, got {len(entries)}")
    files = tuple(_parse_file(entry, f"{where}[{i}]") for i, entry in enumerate(entries))
    paths = [file.path for file in files]
    if paths != sorted(set(paths)):
        raise fault(where, "the paths are not sorted and unique")
    try:
        check_set(paths)
    except BundleError as error:
        raise fault(where, error.message) from error
    if sum(file.size for file in files) > LIMITS.total_bytes:
        raise fault(where, f"the sizes add up to more than {LIMITS.total_bytes} bytes")
    return files


def _parse_file(value: Any, where: str) -> FileEntry:
    read_object(value, {"path", "sha256", "size"}, where)
    path = value["path"]
    if type(path) is not str:
        raise fault(f"{where}.path", f"expected text, got {type_name(path)}")
    try:
        check_path(path)
    except BundleError as error:
        raise fault(f"{where}.path", error.message) from error
    size = value["size"]
    if type(size) is not int or not 0 <= size <= LIMITS.file_bytes:
        expected = f"an integer from 0 to {LIMITS.file_bytes}"
        raise fault(f"{where}.size", f"expected {expected}, got {shown(str(size))}")
    return FileEntry(path, read_digest(value["sha256"], f"{where}.sha256"), size)


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "big")
