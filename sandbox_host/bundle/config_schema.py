"""The schema of a plugin's configuration: a small subset of JSON Schema (draft 2020-12).

Left out on purpose: ``pattern`` (a hostile regular expression can run for years), references and
combinators (a schema stays readable, and checking it takes time linear in its size). An unknown
keyword is refused rather than ignored: a check that silently does not happen is no check.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sandbox_host.reading import (
    BadValueError,
    at,
    check_keys,
    describe,
    expected,
    read_flag,
    read_list,
    read_object,
    read_text,
    read_whole,
)

ENABLED: Final = "enabled"
"""The host's own key in every plugin's configuration: false means discovered and disabled."""

_TYPE_TEXT: Final[Mapping[str, str]] = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_NUMERIC: Final = frozenset({"integer", "number"})
_APPLIES_TO: Final[Mapping[str, frozenset[str]]] = {
    "minimum": _NUMERIC,
    "maximum": _NUMERIC,
    "minLength": frozenset({"string"}),
    "maxLength": frozenset({"string"}),
    "minItems": frozenset({"array"}),
    "maxItems": frozenset({"array"}),
    "items": frozenset({"array"}),
    "properties": frozenset({"object"}),
    "required": frozenset({"object"}),
    "additionalProperties": frozenset({"object"}),
}
_KEYWORDS: Final = ("type", "enum", "default", "description", *_APPLIES_TO)
_MAX_COUNT: Final = 2**31
_MAX_DESCRIPTION: Final = 1_000
_MAX_ENTRIES: Final = 256
_SCALARS: Final = ("string", "integer", "number", "boolean", "null")
_MAX_STEPS: Final = 200_000


def _type_of(value: object) -> str:
    # bool first: to Python it is an int.
    for kind, name in (
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (str, "string"),
        (list, "array"),
        (tuple, "array"),
        (Mapping, "object"),
    ):
        if isinstance(value, kind):
            return name
    return "null" if value is None else type(value).__name__


def _is_a(value: object, types: tuple[str, ...]) -> bool:
    kind = _type_of(value)
    return kind in types or (kind == "integer" and "number" in types)


def _same(left: object, right: object) -> bool:
    """Tell equality of scalars as JSON sees it: 1 equals 1.0, but true never equals 1."""
    return isinstance(left, bool) is isinstance(right, bool) and left == right


class _Work:
    """How much checking one schema, or applying it, may still cost.

    A short list of empty objects against a schema with a large default would otherwise grow to
    gigabytes: document and schema multiply, and each alone is small.
    """

    def __init__(self) -> None:
        self.left = _MAX_STEPS

    def spend(self, steps: int, path: str) -> None:
        self.left -= steps
        if self.left < 0:
            raise BadValueError(path, "takes too much work to check; make it or the schema smaller")


# -- the schema itself ------------------------------------------------------------------------


def _read_type(value: object, path: str) -> str:
    if not isinstance(value, str) or value not in _TYPE_TEXT:
        raise expected(path, f"one of {', '.join(_TYPE_TEXT)}", value)
    return value


def _types(schema: Mapping[str, Any]) -> tuple[str, ...]:
    given = schema.get("type", ())
    return (given,) if isinstance(given, str) else tuple(given)


def _check_type(schema: Mapping[str, Any], path: str) -> None:
    if "type" in schema:
        given = schema["type"]
        where = at(path, "type")
        if isinstance(given, list):
            if not read_list(given, where, _read_type):
                raise BadValueError(where, "expected at least one type, got an empty list")
        else:
            _read_type(given, where)
    types = set(_types(schema))
    for keyword, applies in _APPLIES_TO.items():
        if keyword in schema and types and not types & applies:
            kinds = " or ".join(sorted(applies))
            raise BadValueError(at(path, keyword), f"applies to the type {kinds} only")


def _check_bounds(schema: Mapping[str, Any], path: str, low: str, high: str) -> None:
    for keyword in (low, high):
        if keyword not in schema:
            continue
        value, where = schema[keyword], at(path, keyword)
        if keyword not in {"minimum", "maximum"}:
            read_whole(value, where, 0, _MAX_COUNT)
        elif not _is_a(value, ("number",)):
            raise expected(where, "a number", value)
    if low in schema and high in schema and schema[low] > schema[high]:
        raise BadValueError(at(path, low), f"is greater than {high}, so that no value could pass")


def _check_object_keywords(schema: Mapping[str, Any], path: str, work: _Work) -> None:
    if "properties" in schema:
        where = at(path, "properties")
        for name, child in read_object(schema["properties"], where).items():
            _check(child, at(where, name), work)
    if "required" in schema:
        read_list(
            schema["required"],
            at(path, "required"),
            lambda value, where: read_text(value, where, limit=128),
            limit=_MAX_ENTRIES,
        )
    if "additionalProperties" in schema:
        read_flag(schema["additionalProperties"], at(path, "additionalProperties"))


def _check_enum(schema: Mapping[str, Any], path: str) -> None:
    values, where = schema["enum"], at(path, "enum")
    if not isinstance(values, list):
        raise expected(where, "a list", values)
    if not 0 < len(values) <= _MAX_ENTRIES:
        raise BadValueError(where, f"expected 1 to {_MAX_ENTRIES} values, got {len(values)}")
    for index, value in enumerate(values):
        if not _is_a(value, _SCALARS):
            raise expected(at(where, index), "text, a number, true, false or null", value)


def _check(schema: object, path: str, work: _Work) -> None:
    table = read_object(schema, path)
    check_keys(table, path, _KEYWORDS)
    _check_type(table, path)
    _check_bounds(table, path, "minimum", "maximum")
    _check_bounds(table, path, "minLength", "maxLength")
    _check_bounds(table, path, "minItems", "maxItems")
    _check_object_keywords(table, path, work)
    if "enum" in table:
        _check_enum(table, path)
    if "items" in table:
        _check(table["items"], at(path, "items"), work)
    if "description" in table:
        read_text(table["description"], at(path, "description"), limit=_MAX_DESCRIPTION, blank=True)
    if "default" in table:
        _apply(table, table["default"], at(path, "default"), work)


def check_schema(schema: object, path: str = "config_schema") -> None:
    """Refuse what is not a schema of this subset for an object.

    Args:
        schema: what plugin.json has under ``config_schema``; hostile, depth bounded by the caller.
        path: where it stands.

    Raises:
        BadValueError: an unknown keyword, a keyword on a type it does not apply to, bounds that
            nothing can meet, a default that its own schema refuses.
    """
    table = read_object(schema, path)
    _check(table, path, _Work())
    if "type" in table and "object" not in _types(table):
        raise expected(at(path, "type"), "object, because a configuration is one", table["type"])


# -- a value against it -----------------------------------------------------------------------


def _apply_bounds(schema: Mapping[str, Any], value: Any, path: str) -> None:
    kind = _type_of(value)
    if kind in _NUMERIC:
        size, low, high, unit = value, "minimum", "maximum", ""
    elif kind == "string":
        size, low, high, unit = len(value), "minLength", "maxLength", " characters"
    elif kind == "array":
        size, low, high, unit = len(value), "minItems", "maxItems", " entries"
    else:
        return
    if low in schema and size < schema[low]:
        raise BadValueError(path, f"expected at least {schema[low]}{unit}, got {size}")
    if high in schema and size > schema[high]:
        raise BadValueError(path, f"expected at most {schema[high]}{unit}, got {size}")


def _copied(value: Any, path: str, work: _Work) -> Any:
    work.spend(1, path)
    if isinstance(value, Mapping):
        return {key: _copied(entry, path, work) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(entry, path, work) for entry in value]
    return value


def _apply_object(
    schema: Mapping[str, Any], value: Mapping[str, Any], path: str, work: _Work
) -> dict[str, Any]:
    properties: Mapping[str, Any] = schema.get("properties", {})
    required = schema.get("required", ())
    work.spend(len(properties) + len(required), path)
    if not schema.get("additionalProperties", True):
        check_keys(value, path, properties)
    result: dict[str, Any] = {}
    for name, child in properties.items():
        if name in value:
            result[name] = _apply(child, value[name], at(path, name), work)
        elif "default" in child:
            result[name] = _apply(child, child["default"], at(path, name), work)
    for name, entry in value.items():
        if name not in properties:
            result[name] = _copied(entry, at(path, name), work)
    for name in required:
        if name not in result:
            raise BadValueError(at(path, name), "missing; the schema requires it")
    return result


def _apply(schema: Mapping[str, Any], value: Any, path: str, work: _Work) -> Any:
    work.spend(1, path)
    types = _types(schema)
    if types and not _is_a(value, types):
        raise expected(path, " or ".join(_TYPE_TEXT[t] for t in types), value)
    if "enum" in schema:
        choices = schema["enum"]
        work.spend(len(choices), path)
        if not any(_same(value, one) for one in choices):
            raise expected(path, f"one of {', '.join(describe(one) for one in choices)}", value)
    _apply_bounds(schema, value, path)
    if isinstance(value, Mapping):
        return _apply_object(schema, value, path, work)
    if isinstance(value, list | tuple) and "items" in schema:
        items = schema["items"]
        return [_apply(items, entry, at(path, i), work) for i, entry in enumerate(value)]
    return _copied(value, path, work)


def apply_schema(schema: Mapping[str, Any], value: Any, path: str = "config") -> Any:
    """Return a copy of `value` that meets `schema`, with the defaults of missing properties.

    Args:
        schema: one that `check_schema` accepted.
        value: what plugin.json or the operator configured.
        path: where it stands.

    Raises:
        BadValueError: the value does not meet the schema; names the path and what was expected.
    """
    return _apply(schema, value, path, _Work())


def validate_config(
    schema: Mapping[str, Any] | None, config: Mapping[str, Any], path: str = "config"
) -> dict[str, Any]:
    """Return a plugin's whole configuration as the plugin will see it.

    The host's own key ``enabled`` is allowed beside whatever the schema names, so an author need
    not repeat it there.

    Args:
        schema: a checked schema, or None for any configuration.
        config: what was configured.
        path: where it stands.

    Raises:
        BadValueError: ``enabled`` is not a bool, or the rest does not meet the schema.
    """
    if ENABLED in config:
        read_flag(config[ENABLED], at(path, ENABLED))
    if schema is None:
        schema = {}
    own: set[str] = set() if ENABLED in schema.get("properties", {}) else {ENABLED}
    result: dict[str, Any] = apply_schema(
        schema, {key: value for key, value in config.items() if key not in own}, path
    )
    result.update({key: config[key] for key in own if key in config})
    return result
