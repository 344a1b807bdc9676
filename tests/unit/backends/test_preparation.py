"""What is done before it is known for which plugin, and what is left then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox_host.backends.linux.compile import Compiled, Ids, compile_plan
from sandbox_host.backends.linux.preparation import (
    Preparation,
    SharedPlaces,
    preparation_for,
    rest_of,
)
from sandbox_host.model import Layer, Permissions
from tests.support.attested import MACHINE
from tests.support.plans import plan_and_places

IDS = Ids(host=1, pid=2, own_pid=True, uid=1, proc=True)
Case = tuple[Compiled, Preparation]


def made(root: Path, layers: tuple[Layer, ...], **grants: Any) -> Iterator[Case]:
    permissions = Permissions(**grants) if grants else None
    asked = {"permissions": {k: list(v) for k, v in grants.items()}} if grants else {}
    with plan_and_places(root, layers=layers, grants=permissions, **asked) as (plan, places):
        shared = SharedPlaces(places.python, places.sdk_dir, None)
        compiled = compile_plan(plan, places, MACHINE, IDS)
        yield compiled, preparation_for(shared, layers, root / "at", with_proc=True)


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    yield from made(tmp_path, tuple(Layer))


def entries(order: dict[str, Any]) -> list[Any]:
    return [tuple(map(str, entry.items())) for entry in order["root"]["mounts"]]


def test_both_together_are_the_whole_order(case: Case) -> None:
    compiled, preparation = case
    rest = rest_of(compiled, preparation)
    assert rest is not None
    done, whole = preparation.order, compiled.order
    assert sorted(done["namespaces"] + rest["namespaces"]) == sorted(whole["namespaces"])
    assert [layer for layer, _ in rest["namespaces"]] == [Layer.CGROUP_NAMESPACE]
    assert sorted(entries(done) + entries(rest)) == sorted(entries(whole))
    assert done["root"]["links"] == whole["root"]["links"]
    changed = {"namespaces", "hostname", "root"}
    assert {k: v for k, v in rest.items() if k not in changed} == {
        k: v for k, v in whole.items() if k not in changed
    }


def test_nothing_of_a_plugin_is_done_in_advance(case: Case) -> None:
    compiled, preparation = case
    told = repr(preparation)
    own = {compiled.order["cwd"], compiled.order["environment"]["HOME"], "sample"}
    assert not [name for name in own if name in told]


def test_layers_that_are_not_there(tmp_path: Path) -> None:
    for compiled, preparation in made(tmp_path, (Layer.LANDLOCK, Layer.SECCOMP)):
        assert preparation.order == {"namespaces": [], "hostname": "", "root": None}
        rest = rest_of(compiled, preparation)
        assert rest is not None
        assert rest["root"] is None


@pytest.mark.parametrize("layer", [Layer.NETWORK_NAMESPACE, Layer.UTS_NAMESPACE, Layer.OWN_ROOT])
def test_a_plan_of_other_layers_does_not_fit(tmp_path: Path, case: Case, layer: Layer) -> None:
    layers = tuple(one for one in Layer if one is not layer)
    for compiled, _ in made(tmp_path / "other", layers):
        assert rest_of(compiled, case[1]) is None


def test_a_mount_that_is_another_now_does_not_fit(case: Case) -> None:
    compiled, preparation = case
    mounts = list(compiled.mounts)
    at = mounts.index(next(m for m in preparation.mounts if m.kind == "bind"))
    mounts[at] = replace(mounts[at], source=(0, 1))
    assert rest_of(replace(compiled, mounts=tuple(mounts)), preparation) is None


def test_a_mount_above_what_is_mounted_does_not_fit(case: Case) -> None:
    """It would hide that."""
    compiled, preparation = case
    below = next(m for m in preparation.mounts if m.kind == "bind" and m.path.count("/") > 1)
    above = replace(below, path=str(Path(below.path).parent))
    if above.path in {mount.path for mount in compiled.mounts}:
        pytest.skip("it is mounted already")
    assert rest_of(replace(compiled, mounts=(*compiled.mounts, above)), preparation) is None


def test_a_granted_directory_beside_them_fits(tmp_path: Path) -> None:
    granted = tmp_path / "granted"
    granted.mkdir()
    for compiled, preparation in made(tmp_path, tuple(Layer), read=(str(granted),)):
        rest = rest_of(compiled, preparation)
        assert rest is not None
        assert str(granted) in {entry["path"] for entry in rest["root"]["mounts"]}
