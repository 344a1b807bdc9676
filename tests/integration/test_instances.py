"""One plugin loaded several times: tenants, each with what is its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_host import BlockingHost, Instance, Permissions, RestartPolicy, SandboxHost, State
from sandbox_host.errors import (
    AlreadyLoadedError,
    ConfigError,
    HeldError,
    NeededError,
    OperationError,
    PluginEndedError,
    PluginNotFoundError,
)
from tests.support.host import Workshop
from tests.support.releases import Publisher
from tests.support.traces import eventually

SOURCE = """
@operation
def city():
    return context().config["city"]

@operation
def keep(text):
    with open(os.path.join(context().data_dir, "kept"), "a") as file:
        file.write(text)
    with open(os.path.join(context().data_dir, "kept")) as file:
        return file.read()

@operation
def peek(path):
    return os.listdir(path)

@operation
def stored(value):
    was = context().store.get("key")
    context().store.put("key", value)
    return was

@operation
def say(text):
    context().publish("rain", text)

@operation
def neighbour():
    return context().call("registry.city")

@operation
def die():
    os._exit(3)
"""
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
ASKED = {"services": ["store"], "publish": ["rain"], "calls": ["registry.city"]}
GRANTED = {"*": Permissions(services=("store",), publish=("rain",), calls=("registry.city",))}


@pytest.fixture
def host(workshop: Workshop) -> Iterator[BlockingHost]:
    with SandboxHost.blocking(workshop.config(grants=GRANTED)) as opened:
        yield opened


def bundle(workshop: Workshop, name: str = "weather", **more: object) -> Path:
    options = {
        "config": {"city": "Bergen"},
        "config_schema": CITY,
        "permissions": ASKED,
        "exports": ["city"],
    }
    return workshop.write(SOURCE, name=name, **options | more)


def test_each_has_its_own(host: BlockingHost, workshop: Workshop) -> None:
    path = bundle(workshop)
    plain = host.load(path)
    a = host.load(path, instance=Instance("a", {"city": "Oslo"}, {"memory": "96 MiB"}))
    b = host.load(path, instance="b")
    assert [one.name for one in (plain, a, b)] == ["weather", "weather@a", "weather@b"]
    assert sorted(host.plugins) == ["weather", "weather@a", "weather@b"]
    assert host.plugin("weather@a").receipt.pid == a.receipt.pid
    assert [one.call("city") for one in (plain, a, b)] == ["Bergen", "Oslo", "Bergen"]
    assert a.plan.limits.memory_bytes == 96 << 20 < b.plan.limits.memory_bytes
    assert [one.call("keep", one.name) for one in (plain, a, b)] == [
        *("weather", "weather@a", "weather@b")
    ]
    assert [one.call("stored", one.name) for one in (plain, a, b, a)] == [
        *(None, None, None, "weather@a")
    ]
    # What another one keeps is not there for it.
    for data in (workshop.data_dir("weather"), workshop.data_dir("weather@b")):
        with pytest.raises(OperationError):
            a.call("peek", str(data))
    with host.subscribe("rain") as events:
        a.call("say", "wet")
        event = events.get(20.0)
        assert event is not None
        assert (event.source, event.data) == ("weather@a", "wet")
    assert {one.identity for one in host.data()} == {"weather", "weather@a", "weather@b"}


def test_one_ends_and_the_others_serve(host: BlockingHost, workshop: Workshop) -> None:
    path = bundle(workshop)
    restart = RestartPolicy(first_delay_seconds=0.0)
    a, b = (host.load(path, instance=name, restart=restart) for name in ("a", "b"))
    c = host.load(path, instance="c")
    with pytest.raises(PluginEndedError):
        a.call("die")
    with pytest.raises(PluginEndedError):
        c.call("die")
    assert b.call("echo", 1) == 1
    assert a.call("echo", 1, deadline=20.0) == 1
    assert c.state is State.FAILED
    assert eventually(lambda: c.dossier is not None)
    assert c.dossier is not None
    assert "-weather@c-" in c.dossier.name
    with pytest.raises(AlreadyLoadedError, match="weather@b is loaded already"):
        host.load(path, instance="b")
    host.unload("weather@b")
    with pytest.raises(PluginNotFoundError):
        host.plugin("weather@b")
    assert a.call("keep", "x") == "x"


def test_a_reload_keeps_what_the_instance_is(host: BlockingHost, workshop: Workshop) -> None:
    a = host.load(bundle(workshop), instance=Instance("a", {"city": "Oslo"}))
    b = host.load(bundle(workshop), instance="b")
    host.reload("weather@a", bundle(workshop, version="1.1.0"))
    assert (a.version, b.version) == ("1.1.0", "1.0.0")
    assert (a.call("city"), a.name) == ("Oslo", "weather@a")


def test_admission_is_the_plugins(tmp_path: Path) -> None:
    """One more instance is no way around what was approved for the plugin."""
    publisher = Publisher(tmp_path)
    first = publisher.release("1.0", config={"city": "Bergen"}, config_schema=CITY)
    wider = publisher.release("1.1", permissions=ASKED, config_schema=CITY)
    config = publisher.config(grants=GRANTED)
    with SandboxHost.blocking(config) as host:
        host.load(first, instance="a")
        with pytest.raises(HeldError):
            host.load(wider, instance="b")
        with pytest.raises(ConfigError, match="does not meet its schema"):
            host.load(first, instance=Instance("b", {"city": 7}))
        assert list(host.plugins) == ["weather@a"]


def test_tenants_call_their_own_neighbours(host: BlockingHost, workshop: Workshop) -> None:
    weather, registry = bundle(workshop), bundle(workshop, "registry")
    for name in ("a", "b"):
        host.load(registry, instance=Instance(name, {"city": f"of {name}"}))
    host.load(registry)
    a, c = host.load(weather, instance="a"), host.load(weather, instance="c")
    assert a.call("neighbour") == "of a"
    assert c.call("neighbour") == "Bergen"  # it has none of its own
    host.unload("registry@a")
    assert a.call("neighbour") == "Bergen"


def test_what_a_plugin_takes_along_are_its_dependants_in_each_process(
    host: BlockingHost, workshop: Workshop
) -> None:
    needs = ["registry >= 1.0"]
    host.load(bundle(workshop, "registry"))
    path = bundle(workshop, dependencies=needs)
    host.load(path, instance="a")
    host.load(path, instance="b")
    with pytest.raises(NeededError, match="weather would lack it"):
        host.unload("registry")
    assert host.unload("registry", dependants=True) == ("weather@a", "weather@b", "registry")
    assert host.plugins == {}


def test_an_instance_does_not_stand_for_its_plugin(host: BlockingHost, workshop: Workshop) -> None:
    registry = bundle(workshop, "registry")
    needs = bundle(workshop, dependencies=["registry >= 1.0"])
    host.load(registry, instance="a")
    loaded = host.load_all([needs, registry])
    assert (list(loaded.plugins), loaded.failed) == (["registry", "weather"], {})
    again = host.load_all([registry])
    assert [type(error) for error in again.failed.values()] == [AlreadyLoadedError]


def test_a_plugin_goes_with_its_last_process(host: BlockingHost, workshop: Workshop) -> None:
    """Who needs it needs any of them; and one that needs it may be an instance itself."""
    base, user = bundle(workshop, "base"), bundle(workshop, "user", dependencies=["base"])
    host.load(base)
    host.load(base, instance="a")
    host.load(user, instance="a")
    assert host.unload("base") == ("base",)  # the other one is there
    assert host.lacking("user@a") == ()
    host.load(base)
    host.unload("base@a")
    with pytest.raises(NeededError, match="user would lack it"):
        host.unload("base")
    assert host.unload("base", dependants=True) == ("user@a", "base")
    assert host.plugins == {}
