"""plugin.json: bytes from a stranger to a `Manifest`, or one `ManifestError` that names the path.

Two documents sketched this file, and both of their shapes are read: capabilities as a list or as
an object of booleans, configuration with or without ``enabled``. Nothing is coerced and nothing
unknown is passed over, so that a reviewer and the host read the same document.
"""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from sandbox_host.bundle.config_schema import ENABLED, check_schema, validate_config
from sandbox_host.bundle.contents import MANIFEST_NAME
from sandbox_host.bundle.document import parse_document
from sandbox_host.errors import ManifestError
from sandbox_host.model import PLUGIN_API_VERSION, Limits, Manifest, Permissions, identity_of
from sandbox_host.reading import (
    BadValueError,
    at,
    check_keys,
    describe,
    expected,
    read_flag,
    read_list,
    read_match,
    read_object,
    read_text,
    read_whole,
    sentence,
)
from sandbox_host.terms import (
    pattern_covers,
    read_event_type,
    read_limits,
    read_operation,
    read_permissions,
)

MAX_MANIFEST_BYTES: Final = 64 * 1024

MAX_CONCURRENCY: Final = 64
THREADS_BESIDE: Final = 3
"""One reads, one handles events, one runs what is ``async def``."""

_REQUIRED: Final = ("name", "version", "description", "author")
_OPTIONAL: Final = (
    "license",
    "capabilities",
    "dependencies",
    "permissions",
    "config",
    "config_schema",
    "events",
    "concurrency",
    "exports",
    "limits",
    "plugin_api",
)
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_CAPABILITY: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_DEPENDENCY: Final = re.compile(
    r"([A-Za-z][A-Za-z0-9_.-]{0,63}) ?([<>=!~][0-9A-Za-z.*+!<>=~, -]{0,120})?"
)
# semver.org's own expression for 2.0.0; PEP 440 lacks its dotted pre-releases.
_SEMVER: Final = re.compile(
    r"(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)"
    r"(?:-(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
    r"(?:\.(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*))*)?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
_MAX_VERSION: Final = 64
_MAX_LINE: Final = 256
_MAX_DESCRIPTION: Final = 2_000

RESERVED_IDENTITIES: Final = sys.stdlib_module_names | {
    "host",
    "main",
    "msgpack",
    "numpy",
    "plugin",
    "plugin_sdk",
    "sandbox_host",
}
"""Names that mean something else already: an event's source, or a module that the plugin's own
process imports, in front of which a plugin called so would stand."""

_ACCESS_CAPABILITIES: Final[Mapping[str, tuple[str, str]]] = {
    "file_system_access": ("read", "paths under permissions.read or permissions.write"),
    "network_access": ("network", "hosts under permissions.network"),
}


def _read_name(value: object, path: str) -> str:
    what = 'an identifier of at most 64 ASCII letters, digits and "_", such as "weather_model"'
    name = read_match(value, path, _NAME, what)
    identity = identity_of(name)
    if keyword.iskeyword(identity) or keyword.issoftkeyword(identity):
        raise BadValueError(path, f"expected another name, {describe(name)} is a Python keyword")
    if identity in RESERVED_IDENTITIES:
        which = " as a module of Python's own" if identity in sys.stdlib_module_names else ""
        raise BadValueError(path, f"expected another name, {describe(name)} is reserved{which}")
    return name


def is_version(text: str) -> bool:
    """Tell whether text is a version by PEP 440 or by Semantic Versioning 2.0.0."""
    if not text.isascii() or " " in text or not 0 < len(text) <= _MAX_VERSION:
        return False
    if _SEMVER.fullmatch(text):
        return True
    try:
        Version(text)
    except InvalidVersion:
        return False
    return text.isprintable()


def _read_version(value: object, path: str) -> str:
    if not isinstance(value, str) or not is_version(value):
        raise expected(path, 'a version such as "1.0.0"', value)
    return value


def split_dependency(text: str) -> tuple[str, SpecifierSet]:
    """Return the name and the range of a dependency such as ``ai_models >= 1.0.0``.

    Raises:
        ValueError: neither a bare name nor a name with a range by PEP 440.
    """
    match = _DEPENDENCY.fullmatch(text)
    if not match or "===" in text:
        raise ValueError(text)
    try:
        return match[1], SpecifierSet(match[2] or "")
    except InvalidSpecifier:
        raise ValueError(text) from None


def _read_dependencies(value: object, path: str) -> tuple[str, ...]:
    seen: set[str] = set()

    def read(entry: object, where: str) -> str:
        text = read_text(entry, where, limit=_MAX_LINE)
        try:
            name, _ = split_dependency(text)
        except ValueError:
            what = 'a name and a version range such as "core_framework >= 1.0.0"'
            raise expected(where, what, entry) from None
        if name in seen:
            raise BadValueError(
                where, f"{describe(name)} is listed twice; join the ranges by a comma"
            )
        seen.add(name)
        return text

    return read_list(value, path, read)


def api_range(text: str) -> SpecifierSet:
    """Return the range of plugin API versions that ``plugin_api`` asks for.

    A bare version means itself and what is compatible by Semantic Versioning: "1.2" accepts 1.2
    and every later 1.x.

    Raises:
        ValueError: neither a version nor a range by PEP 440.
    """
    try:
        version = Version(text)
    except InvalidVersion:
        _, specifiers = split_dependency(f"plugin_api {text}")
        if not specifiers:
            raise ValueError(text) from None
        return specifiers
    return SpecifierSet(f">={version.public},<{version.major + 1}")


def _read_api(value: object, path: str) -> str:
    text = read_text(value, path, limit=_MAX_VERSION)
    try:
        api_range(text)
    except ValueError:
        raise expected(path, 'a version or range such as "1.0" or ">= 1.0"', value) from None
    return text


def _read_capability(value: object, path: str) -> str:
    return read_match(value, path, _CAPABILITY, 'the name of a capability, such as "ai_model"')


def _read_capabilities(value: object, path: str) -> tuple[str, ...]:
    if not isinstance(value, Mapping):
        if not isinstance(value, list):
            raise expected(path, "a list of names, or an object of names and booleans", value)
        return read_list(value, path, _read_capability)
    names = read_list(list(value), path, lambda name, _: _read_capability(name, path))
    return tuple(name for name in names if read_flag(value[name], at(path, name)))


def _access_notes(capabilities: tuple[str, ...], permissions: Permissions) -> tuple[str, ...]:
    notes = []
    for name, (field, missing) in _ACCESS_CAPABILITIES.items():
        paths = getattr(permissions, field)
        if field == "read":
            paths += permissions.write
        if name in capabilities and not paths:
            notes.append(f"capabilities.{name} grants nothing by itself: list the {missing}")
    return tuple(notes)


def _read_config(table: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
    config = dict(read_object(table.get("config", {}), "config"))
    schema: Mapping[str, Any] | None = None
    if "config_schema" in table:
        check_schema(table["config_schema"])
        schema = table["config_schema"]
    validate_config(schema, config)
    return config, schema


def _subscribing(events: tuple[str, ...], value: object) -> Permissions:
    """Return the permissions; what is handled is requested, in its own words or as it is listed."""
    permissions = read_permissions(value, "permissions")
    if not isinstance(value, Mapping) or "subscribe" not in value:
        return replace(permissions, subscribe=events)
    for index, event in enumerate(events):
        if not any(pattern_covers(pattern, event) for pattern in permissions.subscribe):
            problem = f'"{event}" is handled, but permissions.subscribe does not have it'
            raise BadValueError(f"events[{index}]", problem)
    return permissions


def _read_concurrency(table: Mapping[str, Any], permissions: Permissions) -> int:
    """Return how many calls it works on at a time; more than one needs threads to do that."""
    many = read_whole(table.get("concurrency", 1), "concurrency", 1, MAX_CONCURRENCY)
    if many == 1:
        return many
    if not permissions.threads:
        problem = 'calls at a time run in threads: "permissions": {"threads": true} is missing'
        raise BadValueError("concurrency", problem)
    needed = many + THREADS_BESIDE
    limits = read_limits(table.get("limits", {}), "limits")
    if limits.get("threads", Limits().threads) < needed:
        problem = f'{many} calls at a time need "limits": {{"threads": {needed}}} or more'
        raise BadValueError("concurrency", problem)
    return many


def _manifest(table: Mapping[str, Any]) -> Manifest:
    check_keys(table, "", (*_REQUIRED, *_OPTIONAL), _REQUIRED)
    name = _read_name(table["name"], "name")
    capabilities = _read_capabilities(table.get("capabilities", []), "capabilities")
    events = read_list(table.get("events", []), "events", read_event_type)
    permissions = _subscribing(events, table.get("permissions", {}))
    config, schema = _read_config(table)
    return Manifest(
        name=name,
        identity=identity_of(name),
        version=_read_version(table["version"], "version"),
        description=read_text(table["description"], "description", limit=_MAX_DESCRIPTION),
        author=read_text(table["author"], "author", limit=_MAX_LINE),
        license=read_text(table.get("license", ""), "license", limit=_MAX_LINE, blank=True),
        capabilities=capabilities,
        dependencies=_read_dependencies(table.get("dependencies", []), "dependencies"),
        permissions=permissions,
        config=MappingProxyType(config),
        config_schema=None if schema is None else MappingProxyType(dict(schema)),
        events=events,
        concurrency=_read_concurrency(table, permissions),
        exports=read_list(table.get("exports", []), "exports", read_operation),
        limits=MappingProxyType(read_limits(table.get("limits", {}), "limits")),
        plugin_api=_read_api(table.get("plugin_api", PLUGIN_API_VERSION), "plugin_api"),
        enabled=config.get(ENABLED, True),
        notes=_access_notes(capabilities, permissions),
    )


def parse_manifest(data: bytes) -> Manifest:
    """Return the manifest that the bytes of a plugin.json hold.

    Args:
        data: the file's bytes; hostile. At most 64 KiB are looked at.

    Raises:
        ManifestError: anything that is not a plugin.json of this version, as
            ``plugin.json: limits.memory: expected ..., got ...``.
    """
    try:
        value = parse_document(data, max_bytes=MAX_MANIFEST_BYTES)
        return _manifest(read_object(value, ""))
    except BadValueError as error:
        raise ManifestError(sentence(f"{MANIFEST_NAME}: {error}")) from None
