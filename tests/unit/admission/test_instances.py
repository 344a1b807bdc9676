"""Names of instances, and what one may have: never more than the plugin."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.admission.instances import Instance
from sandbox_host.errors import ConfigError, UsageError
from sandbox_host.model import MIB, Limits, identity_of, plugin_of


@pytest.mark.parametrize("name", ["a", "tenant_a", "t1", "a" * 32])
def test_names(name: str) -> None:
    identity = f"weather_model@{Instance(name).name}"
    assert plugin_of(identity) == ("weather_model", name)
    assert identity_of(identity) == identity


@pytest.mark.parametrize(
    "name",
    [
        "",
        "A",
        "Tenant",
        "1a",
        "_a",
        "a-b",
        "a@b",
        "a/b",
        "..",
        "a b",
        "a" * 33,
        "ä",
        "a\n",
        "\u017f",
    ],
    ids=ascii,
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(UsageError, match="no name of an instance"):
        Instance(name)


@pytest.mark.parametrize("name", [None, 5, b"a"], ids=str)
def test_a_name_is_text(name: Any) -> None:
    with pytest.raises(UsageError, match="no name of an instance"):
        Instance(name)


@pytest.mark.parametrize("value", [[1], "a", None, 5], ids=str)
def test_tables_are_tables(value: Any) -> None:
    with pytest.raises(UsageError, match="The config of instance a is no mapping"):
        Instance("a", value)
    with pytest.raises(UsageError, match="The limits of instance a is no mapping"):
        Instance("a", limits=value)


@pytest.mark.parametrize(
    "config",
    [{"x": object()}, {"x": {1: 2}}, {"x": "y" * (1 << 20)}, {"x": "y" * (20 << 20)}],
    ids=["an object", "a key that is no text", "1 MiB", "20 MiB"],
)
def test_a_configuration_can_be_sent(config: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="configuration of instance a cannot be sent"):
        Instance("a", config)


def test_a_plugin_is_no_instance() -> None:
    assert plugin_of("weather_model") == ("weather_model", "")


@pytest.mark.parametrize(
    "limits",
    [{"memory": "a lot"}, {"memory": -1}, {"cpu_total": 10}, {"no_such": 1}, {"memory": True}],
    ids=str,
)
def test_limits_are_read_as_those_of_a_plugin(limits: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="limits of instance a"):
        Instance("a", limits=limits)


@given(st.integers(MIB, 1 << 40), st.integers(16 * MIB, 1 << 32))
def test_limits_are_never_above_the_plugins(plugins: int, own: int) -> None:
    limits = Limits(memory_bytes=plugins)
    narrowed = Instance("a", limits={"memory": own}).narrowed(limits)
    assert narrowed.memory_bytes == min(plugins, own)
    assert narrowed == Limits(memory_bytes=narrowed.memory_bytes)


def test_nobody_changes_it_afterwards() -> None:
    config: dict[str, Any] = {"city": "Bergen", "near": ["Voss"]}
    one = Instance("a", config)
    config["city"] = "Oslo"
    config["near"].append("Odda")
    assert one.config == {"city": "Bergen", "near": ["Voss"]}
    with pytest.raises(TypeError):
        one.config["city"] = "Oslo"  # type: ignore[index]
    assert Instance.of("a") == Instance("a")
    assert Instance.of(None) is None
    assert Instance.of(one) is one
