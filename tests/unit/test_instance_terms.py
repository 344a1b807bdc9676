"""The operator's words about instances and replicas."""

from __future__ import annotations

import pytest

from sandbox_host.config import HostConfig
from sandbox_host.errors import ConfigError
from sandbox_host.instance_terms import MAX_INSTANCES, InstanceTerms
from sandbox_host.runtime.config_digest import config_digests

WHOLE = """
[instances.weather_model.tenant_a]
config = { city = "Oslo", days = [1, 2] }
limits = { memory = "64 MiB", wall_time = "2 s" }

[instances.weather_model.tenant_b]

[replicas]
word_counter = 3
"""


def test_from_toml(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text(WHOLE)
    config = HostConfig.from_toml(file)
    assert list(config.instances) == ["weather_model"]
    a, b = config.instances["weather_model"].values()
    assert a.config == {"city": "Oslo", "days": [1, 2]}
    assert a.limits == {"memory": "64 MiB", "wall_time": "2 s"}
    assert b == InstanceTerms()
    assert config.replicas == {"word_counter": 3}
    # The same, made in Python; and a change is one for whoever compares configurations.
    made = {"weather_model": dict(config.instances["weather_model"])}
    assert HostConfig(instances=made).instances == config.instances
    assert config_digests(config)["instances"] != config_digests(HostConfig())["instances"]


def test_nothing_is_declared_by_default():
    assert (HostConfig().instances, HostConfig().replicas) == ({}, {})


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"instances": []}, r"such as \[instances.weather_model.tenant_a\], got a list"),
        ({"instances": {"weather_*": {"a": {}}}}, "expected a plugin's identity in lower case"),
        ({"instances": {"m": {}}}, "instances.m: names no instance"),
        ({"instances": {"m": {"a": 1}}}, "instances.m.a: expected an object, got 1"),
        ({"instances": {"m": {"A": {}}}}, "instances.m.A: expected a name of an instance"),
        ({"instances": {"m": {"a" * 33: {}}}}, "up to 32 of a-z"),
        (
            {"instances": {"m": {"a": {"limit": {}}}}},
            'm.a.limit: unknown key; did you mean "limits"',
        ),
        ({"instances": {"m": {"a": {"limits": {"memry": 1}}}}}, "limits.memry: unknown key"),
        ({"instances": {"m": {"a": {"limits": {"memory": "64"}}}}}, "m.a.limits.memory: expected"),
        ({"instances": {"m": {"a": {"config": {"x": object()}}}}}, "m.a.config.x: expected text"),
        ({"instances": {"m": {f"a{n}": {} for n in range(MAX_INSTANCES + 1)}}}, "at most 1024"),
        ({"replicas": {"m": 0}}, "replicas.m: expected a whole number from 1 to 64, got 0"),
        ({"replicas": {"m": 65}}, "from 1 to 64, got 65"),
        ({"replicas": {"m": True}}, "replicas.m: expected a whole number, got true"),
        ({"replicas": {"M": 1}}, "in lower case"),
        ({"replicas": {"m": 1}, "instances": {"m": {"a": {}}}}, "m has .instances. as well"),
    ],
)
def test_what_is_refused(fields, told):
    with pytest.raises(ConfigError, match=told):
        HostConfig(**fields)
