"""What tells whether the configuration is the one of the last start: a digest for each field."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

if TYPE_CHECKING:
    from sandbox_host.config import HostConfig

_LENGTH: Final = 16


def config_digests(config: HostConfig) -> dict[str, str]:
    """Return the beginning of a SHA-256 for each field that the operator may set, by its name."""
    return {
        name: hashlib.sha256(json.dumps(_plain(getattr(config, name))).encode()).hexdigest()[
            :_LENGTH
        ]
        for name in type(config).model_fields
    }


def _plain(value: Any) -> Any:
    """Return a value as lists and texts that are the same whenever the values are."""
    if isinstance(value, BaseModel):
        return [[name, _plain(getattr(value, name))] for name in type(value).model_fields]
    if is_dataclass(value):
        return [[one.name, _plain(getattr(value, one.name))] for one in fields(value)]
    if isinstance(value, Mapping):
        return sorted([str(key), _plain(entry)] for key, entry in value.items())
    if isinstance(value, set | frozenset):
        return sorted(str(entry) for entry in value)
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return repr(value) if isinstance(value, int | float) else str(value)
