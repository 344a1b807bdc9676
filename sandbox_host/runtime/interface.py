"""Checks what a started plugin says it is against what was signed. Its word is hostile input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sandbox_host.errors import MetadataMismatchError, StartError
from sandbox_host.model import Manifest
from sandbox_host.runtime.answers import clean

_MAX_OPERATIONS: Final = 1_000
_MAX_NAME: Final = 256
_MAX_WARNINGS: Final = 20
_COMPARED: Final = ("name", "version", "description", "author")


@dataclass(frozen=True, slots=True)
class Interface:
    """What a ready plugin offers.

    Attributes:
        operations: names that can be called.
        handles: event types it has handlers for; never more than plugin.json names.
        kind: "Model", "DataSource", "Pipeline" or "".
        warnings: what its author should be told.
    """

    operations: tuple[str, ...]
    handles: tuple[str, ...]
    kind: str
    warnings: tuple[str, ...]


def check_ready(manifest: Manifest, payload: Any) -> Interface:
    """Return the interface in a `Ready` message's payload.

    Raises:
        MetadataMismatchError: ``get_metadata()`` differs from plugin.json.
        StartError: the payload is malformed.
    """
    if not isinstance(payload, dict):
        raise _malformed(manifest, "it is no object")
    _check_metadata(manifest, payload.get("metadata"))
    operations = _names(manifest, [_name_of(o) for o in _list(payload, "operations")])
    handles = _names(manifest, _list(payload, "handles"))
    foreign = [name for name in handles if name not in manifest.events]
    if foreign:
        text = f"it handles {clean(foreign[0], _MAX_NAME)!r}, which plugin.json's events lack"
        raise _malformed(manifest, text)
    warnings = [clean(text, 500) for text in _list(payload, "warnings")[:_MAX_WARNINGS]]
    return Interface(operations, handles, clean(payload.get("kind"), 32), tuple(warnings))


def _list(payload: dict[str, Any], key: str) -> list[Any]:
    value = payload.get(key)
    return value if isinstance(value, list) else []


def _name_of(operation: Any) -> Any:
    return operation.get("name") if isinstance(operation, dict) else None


def _names(manifest: Manifest, values: list[Any]) -> tuple[str, ...]:
    good = [v for v in values if isinstance(v, str) and 0 < len(v) <= _MAX_NAME and v.isprintable()]
    if len(good) != len(values) or len(good) > _MAX_OPERATIONS:
        raise _malformed(manifest, f"its names are not up to {_MAX_OPERATIONS} short texts")
    return tuple(dict.fromkeys(good))  # a type told twice would be delivered twice


def _check_metadata(manifest: Manifest, metadata: Any) -> None:
    if not isinstance(metadata, dict):
        raise _malformed(manifest, "get_metadata() returned no dict")
    for key in _COMPARED:
        if key in metadata and metadata[key] != getattr(manifest, key):
            raise _mismatch(manifest, key, metadata[key], getattr(manifest, key))
    if "dependencies" in metadata:
        told = metadata["dependencies"]
        if not isinstance(told, list) or set(map(str, told)) != set(manifest.dependencies):
            raise _mismatch(manifest, "dependencies", told, list(manifest.dependencies))
    if "capabilities" in metadata:
        told = metadata["capabilities"]
        if _capabilities(told) != set(manifest.capabilities):
            raise _mismatch(manifest, "capabilities", told, list(manifest.capabilities))


def _capabilities(told: Any) -> set[str] | None:
    """Return the names in either shape: a list, or an object of booleans."""
    if isinstance(told, dict):
        told = [name for name, has in told.items() if has is True]
    if not isinstance(told, list) or not all(isinstance(name, str) for name in told):
        return None
    return set(told)


def _mismatch(manifest: Manifest, key: str, told: Any, signed: Any) -> MetadataMismatchError:
    text = (
        f"{manifest.identity}: get_metadata() and the signed plugin.json differ in {key!r}: "
        f"{clean(repr(told), 200)} and {clean(repr(signed), 200)}."
    )
    remedy = "Make them agree and sign the plugin again."
    return MetadataMismatchError(text, plugin=manifest.identity, remedy=remedy)


def _malformed(manifest: Manifest, why: str) -> StartError:
    text = f"{manifest.identity} described itself in a way that is not understood: {why}."
    return StartError(text, plugin=manifest.identity)
