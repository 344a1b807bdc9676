"""The operator's words about plugins that run several times: ``[instances]`` and ``[replicas]``.

Readers of single fields of `HostConfig`; what they return is right, whoever wrote it. Which plugin
there is, and what its schema says of a configuration, is found out when it is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeVar

from sandbox_host.errors import ConfigError
from sandbox_host.reading import BadValueError, at, check_keys, describe, read_object, read_whole
from sandbox_host.terms import check_json_value, read_limits

INSTANCE_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
"""Small letters only: two names never differ by case alone, which some file systems do not see."""

MAX_INSTANCES: Final = 1_024
"""Of all plugins together: each is a process."""

MAX_REPLICAS: Final = 64
"""Of one plugin."""

_PLUGIN: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_KEYS: Final = ("config", "limits")

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class InstanceTerms:
    """What the operator says of one instance.

    Attributes:
        config: laid over the plugin's configuration.
        limits: as they were written, such as ``{"memory": "64 MiB"}``; never above the plugin's.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)


def read_instances(value: object) -> Mapping[str, Mapping[str, InstanceTerms]]:
    """Read the table ``[instances]``: by plugin, and then by the instance's name.

    Raises:
        BadValueError: naming the path of what is wrong.
    """
    if isinstance(value, list):
        what = "expected a table for each, such as [instances.weather_model.tenant_a], got a list"
        raise BadValueError("instances", what)
    table = _by_plugin(value, "instances", _read_ones)
    count = sum(map(len, table.values()))
    if count > MAX_INSTANCES:
        raise BadValueError("instances", f"expected at most {MAX_INSTANCES}, got {count}")
    return table


def read_replicas(value: object) -> Mapping[str, int]:
    """Read the table ``[replicas]``: how many processes a plugin has.

    Raises:
        BadValueError: naming the path of what is wrong.
    """
    return _by_plugin(value, "replicas", lambda one, path: read_whole(one, path, 1, MAX_REPLICAS))


def check_apart(instances: Mapping[str, object], replicas: Mapping[str, object]) -> None:
    """Refuse a plugin that has both: a call by its name would reach only some of them.

    Raises:
        ConfigError: naming it.
    """
    for plugin in sorted(instances.keys() & replicas.keys()):
        text = f"replicas.{plugin}: {plugin} has [instances] as well."
        remedy = "Keep one: replicas are all alike, and called by the plugin's name."
        raise ConfigError(text, remedy=remedy)


def _by_plugin(value: object, field_name: str, read: Callable[[object, str], V]) -> dict[str, V]:
    result: dict[str, V] = {}
    for plugin, entry in read_object(value, field_name).items():
        where = at(field_name, plugin)
        if not _PLUGIN.fullmatch(plugin):
            what = 'expected a plugin\'s identity in lower case, such as "weather_model"'
            raise BadValueError(where, f"{what}, got {describe(plugin)}")
        result[plugin] = read(entry, where)
    return result


def _read_ones(value: object, path: str) -> Mapping[str, InstanceTerms]:
    table = read_object(value, path)
    if not table:
        raise BadValueError(path, "names no instance; leave it out, or name one below it")
    result = {}
    for name, entry in table.items():
        where = at(path, name)
        if not INSTANCE_NAME.fullmatch(name):
            what = 'expected a name of an instance, up to 32 of a-z, 0-9 and "_", a letter first'
            raise BadValueError(where, f"{what}, got {describe(name)}")
        result[name] = _read_one(entry, where)
    return MappingProxyType(result)


def _read_one(value: object, path: str) -> InstanceTerms:
    if isinstance(value, InstanceTerms):
        value = {"config": value.config, "limits": value.limits}
    table = read_object(value, path)
    check_keys(table, path, _KEYS)
    config, limits = (read_object(table.get(key, {}), at(path, key)) for key in _KEYS)
    check_json_value(config, at(path, "config"))
    read_limits(limits, at(path, "limits"))
    return InstanceTerms(MappingProxyType(dict(config)), MappingProxyType(dict(limits)))
