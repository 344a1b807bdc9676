"""Requested x granted is never wider than either side; limits are never above the ceilings."""

from __future__ import annotations

import json
from dataclasses import fields
from fnmatch import fnmatchcase
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.admission import Policy, admit
from sandbox_host.admission.policy import HARMLESS, effective_limits, effective_permissions
from sandbox_host.admission.requests import in_force
from sandbox_host.config import HostConfig
from sandbox_host.errors import AdmissionError, ConfinementError
from sandbox_host.guarantees import missing
from sandbox_host.model import HOST_EVENTS, Grant, Guarantee, Layer, Limits, Manifest, Permissions

PATHS = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=3).map(lambda p: "/" + "/".join(p))
EVENTS = st.sampled_from(["data_processed", "model_updated", "plugin_loaded", "weather"])
PATTERNS = EVENTS | st.sampled_from(["*", "model_*", "plugin_*"])


WISHES = PATTERNS | st.sampled_from(["model_?", "m*", "weather?", "?*"])
FLAGS = [f.name for f in fields(Permissions) if f.default is False]
VARIABLES = st.sampled_from(["TOKEN", "TOKEN_2", "token", "T*"])


def tuples(items):
    return st.lists(items, max_size=3, unique=True).map(tuple)


def permissions(events):
    return st.builds(
        Permissions,
        publish=tuples(events),
        subscribe=tuples(events),
        read=tuples(PATHS),
        write=tuples(PATHS),
        network=tuples(st.sampled_from(["h:1", "h:2", "g:1"])),
        unix=tuples(PATHS),
        services=tuples(st.sampled_from(["a", "a.b"])),
        env=tuples(VARIABLES),
        **{flag: st.booleans() for flag in FLAGS},
    )


LIMITS = st.builds(
    Limits,
    memory_bytes=st.integers(2**24, 2**40),
    cpu_seconds=st.floats(0.001, 1e6),
    cpu_total_seconds=st.integers(1, 10**6),
    wall_seconds=st.floats(0.001, 1e6),
    descriptors=st.integers(16, 10**5),
    threads=st.integers(1, 1000),
    file_bytes=st.integers(0, 2**40),
    scratch_bytes=st.integers(2**16, 2**40),
)
REQUESTED = st.dictionaries(
    st.sampled_from(["memory_bytes", "descriptors", "threads"]), st.integers(16, 2**40)
)


def manifest(**keys):
    return Manifest(name="p", identity="p", version="1", description="d", author="a", **keys)


def allowed_paths(path, roots):
    parts = path.strip("/").split("/") if path != "/" else []
    parents = {"/" + "/".join(parts[:n]) for n in range(len(parts) + 1)}
    return bool(parents & set(roots))


@given(permissions(WISHES), st.dictionaries(st.sampled_from("*pq"), permissions(WISHES)))
def test_never_wider_than_either_side(requested, grants):
    policy = Policy(grants=grants)
    got = effective_permissions(manifest(permissions=requested), policy)
    mine = [g for pattern, g in grants.items() if pattern in {"*", "p"}]
    for one in fields(Permissions):
        if one.name not in FLAGS:
            assert set(getattr(got, one.name)) <= set(getattr(requested, one.name))
    for key in ("read", "write"):
        paths = getattr(got, key)
        assert all(any(allowed_paths(path, getattr(g, key)) for g in mine) for path in paths)
    assert not (got.network and got.unix)
    for key in ("env", "network", "unix", "services"):
        assert set(getattr(got, key)) <= {name for g in mine for name in getattr(g, key)}
    for flag in FLAGS:
        assert getattr(got, flag) <= getattr(requested, flag)
    for flag in set(FLAGS) - {"threads"}:
        assert getattr(got, flag) <= any(getattr(g, flag) for g in mine)


@given(permissions(WISHES), permissions(WISHES), st.text("abdehlmorstwx_.", max_size=14))
def test_no_event_beyond_what_both_sides_name(requested, granted, event):
    got = in_force(requested, granted)
    for key in ("publish", "subscribe"):
        if any(fnmatchcase(event, pattern) for pattern in getattr(got, key)):
            for side in (requested, granted):
                assert any(fnmatchcase(event, pattern) for pattern in getattr(side, key))


@given(permissions(EVENTS))
def test_nothing_granted_is_nothing_but_what_is_harmless(requested):
    got = effective_permissions(manifest(permissions=requested), Policy())
    assert got == Permissions(
        publish=tuple(e for e in requested.publish if e not in HOST_EVENTS),
        subscribe=requested.subscribe,
        threads=requested.threads,
    )


@given(permissions(EVENTS))
def test_what_a_table_leaves_empty_is_not_granted(requested):
    empty = Grant(named=frozenset(f.name for f in fields(Permissions)))
    got = effective_permissions(manifest(permissions=requested), Policy(grants={"p": empty}))
    assert got == Permissions()


@given(st.dictionaries(st.sampled_from("*p"), permissions(PATTERNS)))
def test_nothing_requested_is_nothing(grants):
    assert effective_permissions(manifest(), Policy(grants=grants)) == Permissions()


@given(permissions(EVENTS), permissions(PATTERNS))
def test_a_signer_is_granted_what_a_plugin_would_be(requested, granted):
    asked = manifest(permissions=requested)
    by_signer = effective_permissions(asked, Policy(signer_grants={"k": granted}), ("k",))
    assert by_signer == effective_permissions(asked, Policy(grants={"p": granted}))
    other = effective_permissions(asked, Policy(signer_grants={"other": granted}), ("k",))
    assert other == effective_permissions(asked, Policy())


@given(
    permissions(EVENTS),
    st.dictionaries(st.sampled_from("*p"), permissions(PATTERNS)),
    permissions(PATTERNS),
)
def test_another_grant_takes_nothing_away(requested, grants, more):
    """But of what is harmless, where a table that names it replaces the default.

    And the two kinds of sockets are never in force together.
    """
    asked = manifest(permissions=requested)
    before = effective_permissions(asked, Policy(grants=grants))
    after = effective_permissions(asked, Policy(grants={**grants, "p*": more}))
    for one in fields(Permissions):
        less, much = getattr(before, one.name), getattr(after, one.name)
        if one.name in HARMLESS or (one.name == "unix" and after.network):
            continue
        if isinstance(less, bool):
            assert less <= much
        else:
            assert set(less) <= set(much)


@given(permissions(EVENTS), st.dictionaries(st.sampled_from("*pq"), permissions(PATTERNS)))
def test_admitted_with_all_that_was_requested_or_refused(requested, grants):
    asked = manifest(permissions=requested)
    policy = Policy(grants=grants, services=frozenset(requested.services))
    bundle = SimpleNamespace(manifest=asked, files={}, root_digest="", key_id="", signers=())
    if effective_permissions(asked, policy) == requested:
        plan = admit(bundle, policy, frozenset(Layer))
        assert plan.permissions == requested
    else:
        with pytest.raises(AdmissionError, match=r"plugin\.json: permissions\."):
            admit(bundle, policy, frozenset(Layer))


@given(REQUESTED, LIMITS)
def test_limits_are_the_requests_or_lower_and_never_above_a_ceiling(requested, ceilings):
    got = effective_limits(manifest(limits=requested), ceilings)
    for one in fields(Limits):
        value = getattr(got, one.name)
        wanted = requested.get(one.name, getattr(Limits(), one.name))
        assert value == min(wanted, getattr(ceilings, one.name))


@given(REQUESTED, LIMITS)
def test_a_request_above_a_ceiling_is_refused_by_name(requested, ceilings):
    bundle = SimpleNamespace(
        manifest=manifest(limits=requested), files={}, root_digest="", key_id="", signers=()
    )
    above = {key for key, value in requested.items() if value > getattr(ceilings, key)}
    policy = Policy(ceilings=ceilings)
    if not above:
        admit(bundle, policy, frozenset(Layer))
        return
    with pytest.raises(AdmissionError) as caught:
        admit(bundle, policy, frozenset(Layer))
    named = {"memory_bytes": "memory", "descriptors": "descriptors", "threads": "threads"}
    assert {key for key in named if f"limits.{named[key]}: " in caught.value.message} == above


LAYERS = st.frozensets(st.sampled_from(Layer))
ACCEPTED = st.frozensets(st.sampled_from([*Layer, *Guarantee]))


@given(LAYERS, LAYERS, ACCEPTED)
def test_no_plan_without_a_guarantee_that_was_not_accepted_by_name(offered, disabled, accepted):
    bundle = SimpleNamespace(manifest=manifest(), files={}, root_digest="", key_id="", signers=())
    policy = Policy(accept_missing=accepted, disabled=disabled)
    lost = set(missing(offered - disabled))
    refused = {*(disabled - accepted), *(lost - accepted)}
    if not refused:
        plan = admit(bundle, policy, offered)
        assert set(plan.layers) == offered - disabled
        assert set(plan.disabled) == disabled <= accepted
        assert set(plan.accepted_missing) == lost <= accepted
        assert set(missing(plan.layers)) == lost
        told = " ".join(plan.notes)
        assert all(f"layer {layer} is switched off" in told for layer in disabled)
        assert all(f"guarantee {one} " in told for one in lost)
        return
    with pytest.raises(ConfinementError) as caught:
        admit(bundle, policy, offered)
    assert caught.value.layer in refused
    for name in refused:
        assert f" {name} " in caught.value.message
        assert f'"{name}"' in caught.value.remedy


@given(LAYERS, LAYERS, ACCEPTED)
def test_what_the_remedy_says_admits(offered, disabled, accepted):
    bundle = SimpleNamespace(manifest=manifest(), files={}, root_digest="", key_id="", signers=())
    try:
        admit(bundle, Policy(accept_missing=accepted, disabled=disabled), offered)
    except ConfinementError as error:
        line = error.remedy.rpartition("accept_missing = ")[2].removesuffix(".")
        config = HostConfig(accept_missing=json.loads(line))
        assert config.accept_missing >= accepted
        policy = Policy(accept_missing=config.accept_missing, disabled=disabled)
        assert admit(bundle, policy, offered).disabled == tuple(x for x in Layer if x in disabled)
