"""The operator's policy: what is granted, and every difference to what is requested."""

from __future__ import annotations

import pytest

from sandbox_host.admission.policy import (
    Policy,
    effective_limits,
    effective_permissions,
    limit_differences,
    permission_differences,
)
from sandbox_host.config import HostConfig
from sandbox_host.model import MIB, Guarantee, Layer, Limits, Manifest, Permissions


def manifest(**keys):
    return Manifest(
        name="Sample",
        identity="sample",
        version="1",
        description="d",
        author="a",
        **keys,
    )


def differences(requested, *, grants=None):
    found = permission_differences(manifest(permissions=requested), Policy(grants=grants or {}))
    return [(d.path, d.key, d.value) for d in found]


def test_nothing_requested_nothing_differs():
    assert differences(Permissions()) == []


def test_publishing_is_granted_except_the_hosts_own_events():
    requested = Permissions(publish=("model_updated", "plugin_loaded"))
    assert differences(requested) == [("permissions.publish[1]", "", "")]
    # Not even an operator can lend the host's voice.
    everything = {"*": Permissions(publish=("*", "plugin_loaded"))}
    assert differences(requested, grants=everything) == [("permissions.publish[1]", "", "")]


def test_a_table_that_names_publish_replaces_the_default():
    grants = {"sam*": Permissions(publish=("weather_*",))}
    assert differences(Permissions(publish=("weather_new",)), grants=grants) == []
    assert differences(Permissions(publish=("model_updated",)), grants=grants) == [
        ("permissions.publish[0]", "publish", '"model_updated"')
    ]


@pytest.mark.parametrize(
    ("granted", "ok"),
    [
        ("/srv", True),
        ("/srv/data", True),
        ("/", True),
        ("/srv/dat", False),
        ("/srv/data/x", False),
        ("/other", False),
    ],
)
def test_a_granted_path_covers_what_is_below_it(granted, ok):
    found = differences(
        Permissions(read=("/srv/data",)), grants={"sample": Permissions(read=(granted,))}
    )
    assert found == ([] if ok else [("permissions.read[0]", "read", '"/srv/data"')])


def test_a_grant_for_another_plugin_is_none():
    grants = {"samples": Permissions(native_code=True), "Sample": Permissions(native_code=True)}
    assert differences(Permissions(native_code=True), grants=grants) == [
        ("permissions.native_code", "native_code", "true")
    ]


def test_sockets_of_both_kinds_are_refused_even_if_granted():
    asked = Permissions(unix=("/run/db/socket",), network=("db.example.org:5432",))
    for granted in (asked, Permissions()):
        policy = Policy(grants={"sample": granted})
        found = permission_differences(manifest(permissions=asked), policy)
        assert found[0].path == "permissions.unix"
        assert "never given to the same plugin" in found[0].problem
        assert not found[0].table
    assert effective_permissions(manifest(permissions=asked), policy) == Permissions()


@pytest.mark.parametrize(
    ("granted", "ok"),
    [
        (Permissions(write=("/srv",)), True),
        (Permissions(write=("/srv/out",)), True),
        (Permissions(read=("/srv",)), False),
        (Permissions(write=("/srv/ou",)), False),
        (Permissions(write=("/srv/OUT",)), False),
        (Permissions(write=("/srv/out/x",)), False),
        (Permissions(), False),
    ],
    ids=["above", "itself", "read", "beside", "case", "below", "nothing"],
)
def test_writing_is_granted_apart_from_reading(granted, ok):
    asked = Permissions(write=("/srv/out",))
    found = differences(asked, grants={"sample": granted})
    assert found == ([] if ok else [("permissions.write[0]", "write", '"/srv/out"')])
    policy = Policy(grants={"sample": granted})
    got = effective_permissions(manifest(permissions=asked), policy)
    assert got == (asked if ok else Permissions())


def test_variables_are_granted_by_their_exact_names():
    asked = Permissions(env=("TOKEN", "token", "TOKEN_2"))
    grants = {"sample": Permissions(env=("TOKEN", "OTHER")), "s*": Permissions(env=("TOKEN_*",))}
    assert differences(asked, grants=grants) == [
        ("permissions.env[1]", "env", '"token"'),
        ("permissions.env[2]", "env", '"TOKEN_2"'),
    ]
    got = effective_permissions(manifest(permissions=asked), Policy(grants=grants))
    assert got == Permissions(env=("TOKEN",))


def test_limits_above_the_ceiling():
    asked = manifest(limits={"memory_bytes": 768 * MIB, "threads": 8, "cpu_seconds": 90.0})
    found = limit_differences(asked, Policy())
    assert [(d.path, d.table, d.key, d.value) for d in found] == [
        ("limits.memory", "[limits]", "memory", '"768 MiB"'),
        ("limits.cpu_time", "[limits]", "cpu_time", '"90 s"'),
    ]


def test_a_low_ceiling_lowers_the_defaults_without_complaint():
    ceilings = Limits(memory_bytes=64 * MIB)
    asked = manifest(limits={"threads": 2})
    assert limit_differences(asked, Policy(ceilings=ceilings)) == ()
    assert effective_limits(asked, ceilings) == Limits(memory_bytes=64 * MIB, threads=2)


def test_a_high_ceiling_gives_nothing_that_was_not_asked_for():
    assert effective_limits(manifest(), Limits(memory_bytes=4096 * MIB)) == Limits()


def test_an_exact_name_overrides_a_pattern():
    policy = Policy(plugin_config={"sample": {"a": 1}, "*": {"a": 2, "b": 2}, "other": {"c": 3}})
    assert policy.overrides("sample") == {"a": 1, "b": 2}


def test_from_config():
    config = HostConfig(
        accept_missing=["landlock", "files"],
        disable_layers=["landlock"],
        grants={"a": {"native_code": True}},
    )
    policy = Policy.from_config(config)
    assert policy.accept_missing == {Layer.LANDLOCK, Guarantee.FILES}
    assert policy.disabled == {Layer.LANDLOCK}
    assert policy.granted("a").native_code
    assert not policy.granted("b").native_code


# -- calls of other plugins, and the host's own services ------------------------------------------


def test_the_store_is_granted_without_a_word():
    requested = Permissions(services=("store",))
    assert differences(requested) == []
    assert effective_permissions(manifest(permissions=requested), Policy()) == requested
    # A table that names services replaces that, as everywhere.
    other = {"*": Permissions(services=("prices.latest",))}
    assert differences(requested, grants=other) == [
        ("permissions.services[0]", "services", '"store"')
    ]
    both = {"*": Permissions(services=("prices.latest", "store"))}
    assert differences(requested, grants=both) == []


def test_calls_are_granted_by_patterns():
    requested = Permissions(calls=("weather.read", "features.*"))
    assert differences(requested) == [
        ("permissions.calls[0]", "calls", '"weather.read"'),
        ("permissions.calls[1]", "calls", '"features.*"'),
    ]
    narrow = {"*": Permissions(calls=("weather.*", "features.pro*"))}
    assert differences(requested, grants=narrow) == [
        ("permissions.calls[1]", "calls", '"features.*"')
    ]
    wide = Policy(grants={"*": Permissions(calls=("*.*",))})
    assert effective_permissions(manifest(permissions=requested), wide) == requested
