"""``subprocess`` is admitted where something counts, ends and confines what is started."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.admission import Policy, SandboxPlan, admit
from sandbox_host.bundle.plugin_json import parse_manifest
from sandbox_host.errors import AdmissionError
from sandbox_host.model import Layer, Permissions

ALL = frozenset(Layer)
NEEDED = frozenset(
    {Layer.CGROUP, Layer.PID_NAMESPACE, Layer.OWN_ROOT, Layer.LANDLOCK, Layer.SECCOMP}
)
GRANT = Policy(grants={"sample": Permissions(subprocess=True)})


def plan(
    offered: frozenset[Layer] = ALL, policy: Policy = GRANT, **permissions: Any
) -> SandboxPlan:
    keys = {"name": "sample", "version": "1.0.0", "description": "d", "author": "a"}
    keys |= {"permissions": {"subprocess": True} | permissions, "limits": {"threads": 7}}
    bundle: Any = SimpleNamespace(
        manifest=parse_manifest(json.dumps(keys).encode()),
        files={"__init__.py": b"", "plugin.json": b"{}"},
        root_digest="ab" * 32,
        key_id="cd" * 32,
        signers=(SimpleNamespace(id="cd" * 32),),
    )
    return admit(bundle, policy, offered, required=frozenset())


def test_granted() -> None:
    made = plan()
    assert made.permissions == Permissions(subprocess=True)
    # Tasks: processes and threads together, whether it may start threads or not.
    assert made.limits.threads == 7
    assert made.notes == ()


def test_not_granted() -> None:
    with pytest.raises(AdmissionError, match="starting processes is not granted") as caught:
        plan(policy=Policy())
    assert 'under [grants."sample"]: subprocess = true' in caught.value.remedy


def test_refusal_names_what_is_missing_and_what_to_do() -> None:
    with pytest.raises(AdmissionError) as caught:
        plan(ALL - {Layer.CGROUP})
    assert caught.value.message == (
        "Plugin sample is not admitted: it is to start processes, and what would count what they "
        "use, end them with the plugin and keep them to its own interpreter is not all in force: "
        "cgroup is missing."
    )
    assert "sandbox-host doctor" in caught.value.remedy
    with pytest.raises(AdmissionError, match="cgroup, seccomp are missing"):
        plan(ALL - {Layer.CGROUP, Layer.SECCOMP})


@given(st.frozensets(st.sampled_from(sorted(Layer))))
def test_admitted_exactly_where_all_of_it_is_in_force(offered: frozenset[Layer]) -> None:
    if offered >= NEEDED:
        assert plan(offered).permissions.subprocess
    else:
        with pytest.raises(AdmissionError) as caught:
            plan(offered)
        lacking = NEEDED - offered
        assert all(layer in caught.value.message for layer in lacking)
