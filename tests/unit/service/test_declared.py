"""Which processes of a plugin there are to be."""

from __future__ import annotations

from sandbox_host import HostConfig, Instance
from sandbox_host.service.declared import Declared

CONFIG = HostConfig(
    instances={"model": {"a": {"config": {"x": 1}}, "b": {}}}, replicas={"counter": 2}
)


def test_what_is_declared_is_instead_of_the_plugin() -> None:
    declared = Declared(CONFIG)
    assert declared.plugins == {"model", "counter"}
    assert declared.members("model") == {
        "model@a": Instance("a", {"x": 1}),
        "model@b": Instance("b"),
    }
    assert declared.members("counter") == {
        "counter@r1": Instance("r1"),
        "counter@r2": Instance("r2"),
    }
    assert declared.members("other") == {"other": None}
    assert declared.replicas("counter") == ("counter@r1", "counter@r2")
    assert (declared.replicas("model"), declared.replicas("other")) == ((), ())


def test_what_another_configuration_changes() -> None:
    declared, nothing = Declared(CONFIG), Declared()
    assert declared.differing(Declared(CONFIG)) == set()
    assert declared.differing(nothing) == nothing.differing(declared) == {"model", "counter"}
    other = HostConfig(instances={"model": {"a": {"config": {"x": 2}}, "b": {}}})
    assert declared.differing(Declared(other)) == {"model", "counter"}
    named = HostConfig(instances={"counter": {"r1": {}, "r2": {}}})
    alike = HostConfig(replicas={"counter": 2})
    assert Declared(named).differing(Declared(alike)) == {"counter"}
