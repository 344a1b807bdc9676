"""The terms that plugin.json and the operator's configuration share: limits and permissions.

A plugin requests in the same words in which the operator grants, so both are read here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

from sandbox_host.model import MIB, Limits, Permissions
from sandbox_host.reading import (
    BadValueError,
    at,
    check_keys,
    expected,
    is_printable,
    parse_bytes,
    parse_seconds,
    read_flag,
    read_list,
    read_match,
    read_object,
    read_whole,
    shown_bytes,
    shown_seconds,
)

_MAX_BYTES: Final = 2**50
_MAX_SECONDS: Final = 366 * 86_400
_MAX_PATH_LENGTH: Final = 1_024

EVENT_TYPE: Final = re.compile(r"(?=.{1,64}\Z)[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*")
EVENT_TYPE_TEXT: Final = 'an event type such as "data_processed" (letters, digits, "_" and ".")'
_EVENT_PATTERN: Final = re.compile(r"[A-Za-z0-9_.*?]{1,64}")
_SERVICE: Final = re.compile(r"(?=.{1,64}\Z)[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*")
_CALL_PATTERN: Final = re.compile(r"[a-z0-9_*?]{1,128}\.[A-Za-z0-9_*?]{1,64}")
_OPERATION: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
RESERVED_VARIABLES: Final[tuple[tuple[str, str], ...]] = (
    # What a library or an interpreter obeys could undo the lock-down from inside it.
    ("LD_*", "the dynamic linker obeys it, and would load other code"),
    ("DYLD_*", "the dynamic linker of macOS obeys it, and would load other code"),
    ("GLIBC_TUNABLES", "the C library obeys it"),
    ("MALLOC_*", "the C library's allocator obeys it, and the host sets it"),
    *((name, "the C library loads or reads what it names") for name in ("GCONV_PATH", "LOCPATH")),
    *((name, "the C library reads what it names") for name in ("NLSPATH", "GETCONF_DIR", "TZDIR")),
    ("HOSTALIASES", "the C library's resolver obeys it"),
    ("LOCALDOMAIN", "the C library's resolver obeys it"),
    ("RES_OPTIONS", "the C library's resolver obeys it"),
    ("RESOLV_*", "the C library's resolver obeys it"),
    ("NIS_PATH", "the C library's resolver obeys it"),
    ("PYTHON*", "the interpreter obeys it"),
    ("__PYVENV_LAUNCHER__", "the interpreter obeys it"),
    ("OPENSSL_*", "the TLS library loads the modules and the configuration that it names"),
    ("SSLKEYLOGFILE", "the TLS library writes the keys of every connection to the file it names"),
    *((f"{name}SAN_OPTIONS", "a sanitizer obeys it") for name in ("?", "UB", "HWA")),
    # Libraries of linear algebra: threads, and (OMP_TOOL_LIBRARIES) libraries to load.
    *((f"{name}_*", "a numerical library obeys it") for name in ("OMP", "KMP", "GOMP", "MKL")),
    *((f"{name}_*", "a numerical library obeys it") for name in ("OPENBLAS", "GOTO", "BLIS")),
    *((f"{name}_*", "a numerical library obeys it") for name in ("NUMEXPR", "VECLIB")),
    ("*_NUM_THREADS", "the host sets how many threads a library starts"),
    # What the host sets itself, the same for every plugin.
    ("HOME", "the host sets it to the plugin's data directory"),
    *((name, "temporary files go to the scratch directory") for name in ("TMPDIR", "TEMP", "TMP")),
    ("PATH", "a plugin has no programs to look for"),
    ("TZ", "the host sets it to UTC"),
    *((name, "the host sets the locale") for name in ("LANG", "LANGUAGE", "LC_*")),
    ("SANDBOX_HOST_*", "it is the host's own"),
)
"""Environment variables that nobody may request or grant: a shell pattern of the name, and why.

The first that matches is told. Source: ``sysdeps/generic/unsecvars.h`` of the GNU C library (what
it drops from the environment of a set-user-id program), "Environment variables" in the
documentation of CPython and of OpenSSL, the specification of OpenMP.
"""

MAX_VARIABLE_BYTES: Final = 32 * 1024
"""Of the value of one environment variable that is handed on; a longer one is refused, not cut."""

_HOST_PORT: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})"
)
_MAX_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class LimitKey:
    """How one field of `Limits` is written.

    Attributes:
        key: its name in plugin.json and in the TOML table ``[limits]``.
        field: its name in `Limits`.
        kind: how its value is read.
        minimum: below it no Python process starts, or the limit means nothing.
        maximum: above it the value is a slip, and the kernel's integers are near their end.
        operator_only: it is the operator's alone; plugin.json may not name it.
    """

    key: str
    field: str
    kind: Literal["bytes", "seconds", "whole seconds", "count"]
    minimum: float
    maximum: float
    operator_only: bool = False

    def read(self, value: object, path: str) -> int | float:
        """Return the value of this limit, in the unit of the field's name.

        Raises:
            BadValueError: not of this kind, or out of range.
        """
        if self.kind == "count":
            return read_whole(value, path, int(self.minimum), int(self.maximum))
        number: int | float
        number = parse_bytes(value, path) if self.kind == "bytes" else parse_seconds(value, path)
        if not self.minimum <= number <= self.maximum:
            low, high = self.text(self.minimum), self.text(self.maximum)
            raise expected(path, f"a value from {low} to {high}", value)
        return math.ceil(number) if self.kind == "whole seconds" else number

    def text(self, value: float) -> str:
        """Return a value as plugin.json and TOML write it, such as ``"768 MiB"`` or ``64``."""
        if self.kind == "count":
            return str(int(value))
        if self.kind == "bytes":
            shown = shown_bytes(value)
            # What the operator is told to write must not be rounded.
            return f'"{shown}"' if parse_bytes(shown) == value else str(int(value))
        return f'"{shown_seconds(value)}"'


LIMIT_KEYS: Final = (
    LimitKey("memory", "memory_bytes", "bytes", 16 * MIB, _MAX_BYTES),
    LimitKey("cpu_time", "cpu_seconds", "seconds", 0.001, _MAX_SECONDS),
    LimitKey("wall_time", "wall_seconds", "seconds", 0.001, _MAX_SECONDS),
    LimitKey("descriptors", "descriptors", "count", 16, 1_048_576),
    LimitKey("threads", "threads", "count", 1, 32_768),
    LimitKey("file_size", "file_bytes", "bytes", 0, _MAX_BYTES),
    # A tmpfs takes the size 0 as "no limit"; below a few pages it holds no file.
    LimitKey("scratch", "scratch_bytes", "bytes", MIB // 16, _MAX_BYTES),
    LimitKey("data", "data_bytes", "bytes", 0, _MAX_BYTES),
    LimitKey("data_files", "data_files", "count", 0, 1_000_000),
    LimitKey("store", "store_bytes", "bytes", 1_024, _MAX_BYTES),
    LimitKey("cpu_time_per_minute", "cpu_seconds_per_minute", "seconds", 0.001, _MAX_SECONDS),
    LimitKey("cpu_weight", "cpu_weight", "count", 1, 10_000),
    LimitKey("messages_per_second", "messages_per_second", "count", 1, 1_000_000),
    LimitKey("message_bytes_per_second", "message_bytes_per_second", "bytes", 1_024, _MAX_BYTES),
    LimitKey("log_bytes_per_second", "log_bytes_per_second", "bytes", 1_024, _MAX_BYTES),
    LimitKey("network_bytes_per_minute", "network_bytes_per_minute", "bytes", 1_024, _MAX_BYTES),
    LimitKey(
        "cpu_total", "cpu_total_seconds", "whole seconds", 1, _MAX_SECONDS, operator_only=True
    ),
)


def read_limits(value: object, path: str, *, operator: bool = False) -> dict[str, int | float]:
    """Return the limits that a table names, by field of `Limits`.

    Args:
        value: the table.
        path: where it stands.
        operator: whether it is the operator's, who may also name ``cpu_total``.

    Raises:
        BadValueError: an unknown key, a wrong type or unit, or a value out of range.
    """
    table = read_object(value, path)
    keys = {k.key: k for k in LIMIT_KEYS if operator or not k.operator_only}
    check_keys(table, path, keys)
    return {keys[key].field: keys[key].read(given, at(path, key)) for key, given in table.items()}


def check_limits(limits: Limits, path: str) -> Limits:
    """Return `limits` if every field is in range; for limits made in Python, not read.

    Raises:
        BadValueError: a field of the wrong type or out of range.
    """
    for key in LIMIT_KEYS:
        key.read(getattr(limits, key.field), at(path, key.field))
    return limits


def _read_path(value: object, path: str) -> str:
    what = 'an absolute path without "..", "." or a "/" too many'
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_PATH_LENGTH:
        raise expected(path, what, value)
    parts = value[1:].split("/") if value != "/" else []
    clean = value.startswith("/") and not any(part in {"", ".", ".."} for part in parts)
    if not clean or not is_printable(value):
        raise expected(path, what, value)
    return value


def _read_variable(value: object, path: str) -> str:
    name = read_match(value, path, _ENV_NAME, "a name of an environment variable")
    for pattern, why in RESERVED_VARIABLES:
        if fnmatchcase(name, pattern):
            raise BadValueError(path, f'"{name}" can be neither requested nor granted: {why}')
    return name


def _read_address(value: object, path: str) -> str:
    what = 'a host and port such as "api.example.org:443"'
    text = read_match(value, path, _HOST_PORT, what)
    if not 1 <= int(text.rpartition(":")[2]) <= _MAX_PORT:
        raise expected(path, what, value)
    host, _, port = text.rpartition(":")
    # One way to write it, so that what was requested and what was granted can be compared.
    return f"{host.lower().removesuffix('.')}:{int(port)}"


def read_event_type(value: object, path: str) -> str:
    """Return `value` if it is the name of an event type, at most 64 characters."""
    return read_match(value, path, EVENT_TYPE, EVENT_TYPE_TEXT)


def _read_event_pattern(value: object, path: str) -> str:
    return read_match(value, path, _EVENT_PATTERN, f"{EVENT_TYPE_TEXT} or a pattern of one")


def read_service(value: object, path: str) -> str:
    """Return `value` if it is the name of a service, at most 64 characters."""
    return read_match(value, path, _SERVICE, 'the name of a service such as "prices.latest"')


def _read_call_pattern(value: object, path: str) -> str:
    what = 'an operation of a plugin such as "weather_source.read", or a pattern of one'
    return read_match(value, path, _CALL_PATTERN, what)


def read_operation(value: object, path: str) -> str:
    """Return `value` if it is the name of an operation, at most 64 characters."""
    return read_match(value, path, _OPERATION, 'the name of an operation such as "read"')


_LISTS: Final[Mapping[str, Callable[[object, str], str]]] = {
    "publish": _read_event_pattern,
    "subscribe": _read_event_pattern,
    "read": _read_path,
    "write": _read_path,
    "network": _read_address,
    "unix": _read_path,
    "env": _read_variable,
    "services": read_service,
    "calls": _read_call_pattern,
}
_FLAGS: Final = ("native_code", "subprocess", "threads")


def read_permissions(value: object, path: str) -> Permissions:
    """Return the permissions that a table requests, or grants: the words are the same.

    Args:
        value: the table.
        path: where it stands.

    Raises:
        BadValueError: an unknown key, a wrong type, a path that is not absolute and clean, a
            variable of `RESERVED_VARIABLES`.
    """
    table = read_object(value, path)
    check_keys(table, path, (*_LISTS, *_FLAGS))
    fields: dict[str, Any] = {}
    for key, given in table.items():
        where = at(path, key)
        read = _LISTS.get(key)
        fields[key] = read_list(given, where, read) if read else read_flag(given, where)
    return Permissions(**fields)


def pattern_covers(granted: str, requested: str) -> bool:
    """Tell whether every name that a requested pattern matches, a granted one matches as well.

    Both have ``*`` for anything and ``?`` for one character. Never true where it is not so; for
    patterns of several stars it may be false where it is.
    """
    first, *others = (
        "".join("[^*]" if char == "?" else re.escape(char) for char in part)
        for part in granted.split("*")
    )
    written = first
    if others:
        # Both may be a stranger's. What stands between two stars is taken where it comes first,
        # once and for all: going back to try later ones would take 2^60 steps and find no more.
        between = "".join(f"(?>.*?{part})" for part in others[:-1])
        written += f"{between}.*{others[-1]}"
    return re.fullmatch(written, requested) is not None


def check_json_value(value: object, path: str, depth: int = 32) -> None:
    """Refuse what plugin.json could not have carried: dates, numbers beyond 64 bits, deep nesting.

    Raises:
        BadValueError: naming the path of the value.
    """
    if depth == 0:
        raise BadValueError(path, "nested too deeply")
    match value:
        case Mapping():
            for key, entry in read_object(value, path).items():
                check_json_value(entry, at(path, key), depth - 1)
        case list() | tuple():
            for index, entry in enumerate(value):
                check_json_value(entry, at(path, index), depth - 1)
        case bool() | str() | None:
            return
        case int() if -(2**63) <= value < 2**63:
            return
        case float() if math.isfinite(value):
            return
        case _:
            raise expected(path, "text, a number, true, false, a list or an object", value)
