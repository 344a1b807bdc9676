"""The form of the file that a host's history is kept in: lines of JSON, read strictly. Pure.

The first line is the host's, then there is one for each plugin, and the last one has the SHA-256 of
all before it: a file of which a part is missing, or that somebody edited, is told from a whole one.

Of a thousand lines all but one are as they were the last time. What a line means is remembered by
its bytes, and how a record is written by the record itself, so that the price of a load does not
grow with the number of plugins that were ever loaded.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from sandbox_host.admission.changes import Asks
from sandbox_host.admission.history import History, Record, Release
from sandbox_host.bundle.document import parse_document
from sandbox_host.bundle.plugin_json import is_version, split_dependency
from sandbox_host.bundle.statement import format_time
from sandbox_host.bundle.trust_entries import StoreMark
from sandbox_host.model import Limits, Permissions
from sandbox_host.reading import (
    BadValueError,
    at,
    check_keys,
    expected,
    read_flag,
    read_list,
    read_match,
    read_object,
    read_text,
    read_whole,
)

MAX_PLUGINS: Final = 4_096
MAX_STORES: Final = 64
MAX_FILE_BYTES: Final = 16 * 1024 * 1024
SCHEMA: Final = 1

_MAX_LINE_BYTES: Final = 1024 * 1024
_MAX_ENTRIES: Final = 256
_MAX_TEXT: Final = 4_096
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_DIGEST_OR_NONE: Final = re.compile(r"(?:[0-9a-f]{64})?")
_SHORT_DIGEST: Final = re.compile(r"[0-9a-f]{16}")
_IDENTITY: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_MAX_KNOWN_BYTES: Final = 4_096
"""Of a line that is remembered: with their number, a bound on what all of them take."""

_known: dict[bytes, tuple[str, Record]] = {}
_written: dict[int, tuple[Record, str, bytes]] = {}
_HEX: Final = "64 hexadecimal digits"


def render(history: History) -> bytes:
    """Return the file that `parse` reads.

    Raises:
        BadValueError: it would be too large.
    """
    if len(history.plugins) > MAX_PLUGINS:
        raise BadValueError("", f"expected at most {MAX_PLUGINS} plugins, got one more")
    latest = history.latest
    host = {
        "schema": SCHEMA,
        "latest": format_time(latest) if latest else None,
        "stores": {
            path: {"version": mark.version, "digest": mark.digest, "root": mark.root}
            for path, mark in sorted(history.stores.items())
        },
        "config": dict(sorted(history.config.items())),
    }
    plugins = (_plugin_line(name, record) for name, record in sorted(history.plugins.items()))
    body = b"".join((_line(host), *plugins))
    data = body + _line({"sha256": hashlib.sha256(body).hexdigest()})
    if len(data) > MAX_FILE_BYTES:
        raise BadValueError("", f"expected at most {MAX_FILE_BYTES} bytes, got {len(data)}")
    return data


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def _plugin_line(name: str, record: Record) -> bytes:
    known = _written.get(id(record))
    if known is None or known[0] is not record or known[1] != name:
        known = record, name, _line(_plugin(name, record))
        if len(_written) >= MAX_PLUGINS:
            _written.clear()
        if len(known[2]) <= _MAX_KNOWN_BYTES:
            _written[id(record)] = known  # which keeps the record, and with it the number
    return known[2]


def _plugin(name: str, record: Record) -> dict[str, Any]:
    return {
        "plugin": name,
        "highest": _release(record.highest),
        "exception": _release(record.exception) if record.exception else None,
        "approval": record.approval,
        "permissions": _permissions(record.approved.permissions),
        "limits": dict(record.approved.limits),
        "dependencies": list(record.approved.dependencies),
    }


def _release(release: Release) -> dict[str, str]:
    return {"version": release.version, "digest": release.digest}


def _permissions(permissions: Permissions) -> dict[str, Any]:
    # What asks for nothing is left out, so that a permission that is new needs no new schema.
    named = {one.name: getattr(permissions, one.name) for one in fields(Permissions)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in named.items()
        if value
    }


def parse(data: bytes) -> History:
    """Return the history in a file's bytes.

    Raises:
        BadValueError: they are not what `render` writes.
    """
    if len(data) > MAX_FILE_BYTES:
        raise BadValueError("", f"expected at most {MAX_FILE_BYTES} bytes, got {len(data)}")
    body, _, last = data.removesuffix(b"\n").rpartition(b"\n")
    body += b"\n"
    if last + b"\n" != _line({"sha256": hashlib.sha256(body).hexdigest()}) or data[-1:] != b"\n":
        raise BadValueError("", "its last line is not the digest of the others")
    first, *rest = body.removesuffix(b"\n").split(b"\n")
    if len(rest) > MAX_PLUGINS:
        raise BadValueError("", f"expected at most {MAX_PLUGINS} plugins, got {len(rest)}")
    host = _object(first, "host", ("schema", "latest", "stores", "config"))
    read_whole(host["schema"], "host.schema", SCHEMA, SCHEMA)
    plugins: dict[str, Record] = {}
    for number, line in enumerate(rest, 2):
        name, record = _read_plugin(line, f"line {number}")
        if name in plugins:
            raise BadValueError(f"line {number}", f"{name} is there twice")
        plugins[name] = record
    return History(
        plugins=MappingProxyType(plugins),
        latest=_read_time(host["latest"], "host.latest"),
        stores=_read_map(host["stores"], "host.stores", _read_mark, MAX_STORES),
        config=_read_map(host["config"], "host.config", _read_short_digest, _MAX_ENTRIES),
    )


def _object(line: bytes, path: str, keys: tuple[str, ...]) -> Mapping[str, Any]:
    value = parse_document(line, max_bytes=_MAX_LINE_BYTES, max_depth=4)
    table = read_object(value, path)
    check_keys(table, path, keys, required=keys)
    return table


def _read_map(value: object, path: str, read: Callable[[object, str], Any], most: int) -> Any:
    table = read_object(value, path)
    if len(table) > most:
        raise BadValueError(path, f"expected at most {most} entries, got {len(table)}")
    return MappingProxyType({key: read(entry, at(path, key)) for key, entry in table.items()})


def _read_time(value: object, path: str) -> datetime | None:
    if value is None:
        return None
    text = read_match(value, path, _TIME, "a time such as 2026-01-31T12:00:00Z")
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise expected(path, "a time that there is", value) from None


def _read_mark(value: object, path: str) -> StoreMark:
    table = read_object(value, path)
    keys = ("version", "digest", "root")
    check_keys(table, path, keys, required=keys)
    return StoreMark(
        read_whole(table["version"], at(path, "version"), 0, 2**63 - 1),
        read_match(table["digest"], at(path, "digest"), _DIGEST, _HEX),
        read_match(table["root"], at(path, "root"), _DIGEST_OR_NONE, _HEX),
    )


def _read_short_digest(value: object, path: str) -> str:
    return read_match(value, path, _SHORT_DIGEST, "16 hexadecimal digits")


def _read_plugin(line: bytes, path: str) -> tuple[str, Record]:
    found = _known.get(line)
    if found is None:
        found = _parse_plugin(line, path)
        if len(_known) >= MAX_PLUGINS:
            _known.clear()
        if len(line) <= _MAX_KNOWN_BYTES:
            _known[line] = found
    return found


def _parse_plugin(line: bytes, path: str) -> tuple[str, Record]:
    keys = ("plugin", "highest", "exception", "approval", "permissions", "limits", "dependencies")
    table = _object(line, path, keys)
    name = read_match(table["plugin"], at(path, "plugin"), _IDENTITY, "a plugin's identity")
    exception = table["exception"]
    record = Record(
        highest=_read_release(table["highest"], at(path, "highest")),
        approved=Asks(
            _read_permissions(table["permissions"], at(path, "permissions")),
            _read_map(table["limits"], at(path, "limits"), _read_number, _MAX_ENTRIES),
            read_list(
                table["dependencies"],
                at(path, "dependencies"),
                _read_dependency,
                limit=_MAX_ENTRIES,
            ),
        ),
        exception=None if exception is None else _read_release(exception, at(path, "exception")),
        approval=read_match(table["approval"], at(path, "approval"), _DIGEST_OR_NONE, _HEX),
    )
    check_keys(record.approved.limits, at(path, "limits"), [one.name for one in fields(Limits)])
    return name, record


def _read_release(value: object, path: str) -> Release:
    table = read_object(value, path)
    check_keys(table, path, ("version", "digest"), required=("version", "digest"))
    version = read_text(table["version"], at(path, "version"), limit=_MAX_TEXT)
    if not is_version(version):
        raise expected(at(path, "version"), "a version", version)
    return Release(version, read_match(table["digest"], at(path, "digest"), _DIGEST, _HEX))


def _read_permissions(value: object, path: str) -> Permissions:
    """Read what a plugin once asked for, also where no plugin could ask for it any more."""
    table = read_object(value, path)
    defaults = {one.name: one.default for one in fields(Permissions)}
    check_keys(table, path, defaults)
    read = {}
    for key, given in table.items():
        if isinstance(defaults[key], bool):
            read[key] = read_flag(given, at(path, key))
        else:
            read[key] = read_list(given, at(path, key), _read_entry, limit=_MAX_ENTRIES)  # type: ignore[assignment]
    return Permissions(**read)  # type: ignore[arg-type]  # each by the kind of its field


def _read_entry(value: object, path: str) -> str:
    return read_text(value, path, limit=_MAX_TEXT)


def _read_number(value: object, path: str) -> int | float:
    ok = isinstance(value, int | float) and not isinstance(value, bool)
    if not ok or not math.isfinite(value) or value < 0:  # type: ignore[arg-type,operator]
        raise expected(path, "a number", value)
    return value  # type: ignore[return-value]


def _read_dependency(value: object, path: str) -> str:
    text = read_text(value, path, limit=_MAX_TEXT)
    try:
        split_dependency(text)
    except ValueError:
        raise expected(path, "a dependency", value) from None
    return text
