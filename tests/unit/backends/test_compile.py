"""A plan as plain data: what the child is told to apply."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk.wire.codec import pack, unpack
from sandbox_host.backends.linux.compile import (
    ADDRESS_SPACE_HEADROOM,
    LIMIT_NAMES,
    compile_plan,
    environment,
    rlimits,
)
from sandbox_host.backends.linux.landlock import OWN, READ
from sandbox_host.backends.linux.probe import Machine
from sandbox_host.errors import ConfinementError
from sandbox_host.model import MIB, Layer, Limits, Permissions
from tests.support.plans import plan_and_places

MACHINE = Machine("x86_64", 7, "", seccomp=True, seccomp_reason="")


@pytest.fixture
def prepared(tmp_path: Path) -> Iterator[Any]:
    with plan_and_places(tmp_path) as made:
        yield made


def test_compiled_plan_is_plain_data(prepared: Any) -> None:
    plan, places = prepared
    compiled = compile_plan(plan, places, MACHINE, 4_321, [5, 6, 7])
    assert unpack(pack(compiled)) == compiled
    assert compiled["keep"] == [5, 6, 7]
    assert len(compiled["seccomp"]) % 8 == 0


def test_only_own_directories_are_writable(prepared: Any) -> None:
    plan, places = prepared
    rules = compile_plan(plan, places, MACHINE, 1, [])["landlock"]["rules"]
    writable = {path for path, rights in rules if rights & OWN & ~READ}
    devices = {path for path in writable if path.startswith("/dev/")}
    assert writable - devices == {str(places.data_dir), str(places.scratch_dir)}
    assert devices <= {"/dev/null", "/dev/full", "/dev/urandom", "/dev/random"}


def test_nothing_of_the_hosts_is_readable(prepared: Any) -> None:
    plan, places = prepared
    rules = compile_plan(plan, places, MACHINE, 1, [])["landlock"]["rules"]
    state = places.canary.parents[2]
    private = [*Path(__file__).parents[:4], state, state / "logs", places.canary, Path("/etc")]
    private += [state / "data", state / "run", places.canary.parent, Path.home(), Path("/")]
    granted = [Path(path) for path, _ in rules]
    for path in private:
        assert not [g for g in granted if path == g or path.is_relative_to(g)], path
    assert not [g for g in granted if "site-packages" in g.parts or "dist-packages" in g.parts]


def test_layers_that_are_not_planned_are_not_compiled(tmp_path: Path) -> None:
    layers = frozenset(Layer) - {Layer.LANDLOCK, Layer.SECCOMP}
    with plan_and_places(tmp_path, layers=layers) as (plan, places):
        compiled = compile_plan(plan, places, MACHINE, 1, [])
    assert compiled["landlock"] is None
    assert compiled["seccomp"] is None


def test_limits_have_names_and_follow_the_budgets() -> None:
    limits = Limits(memory_bytes=64 * MIB, descriptors=50, file_bytes=7, cpu_total_seconds=9)
    found = rlimits(limits)
    assert set(found) == set(LIMIT_NAMES)
    assert found[resource.RLIMIT_NOFILE] == 50
    assert found[resource.RLIMIT_FSIZE] == 7
    assert found[resource.RLIMIT_CPU] == 9
    assert found[resource.RLIMIT_CORE] == 0
    assert found[resource.RLIMIT_AS] == 64 * MIB + ADDRESS_SPACE_HEADROOM
    assert rlimits(Limits(memory_bytes=1 << 31))[resource.RLIMIT_AS] == 1 << 32


def test_environment_is_the_childs_own(prepared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, places = prepared
    monkeypatch.setenv("SECRET", "1")
    monkeypatch.setenv("LD_PRELOAD", "x")
    monkeypatch.setenv("PYTHONPATH", "x")
    child = environment(places)
    assert not {"SECRET", "LD_PRELOAD", "PYTHONPATH", "PATH"} & set(child)
    assert child["HOME"] == str(places.data_dir)
    assert child["TMPDIR"] == str(places.scratch_dir)


def test_granted_path(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    grants = Permissions(read=(str(shared),))
    request = {"permissions": {"read": [str(shared)]}}
    with plan_and_places(tmp_path, grants=grants, **request) as (plan, places):
        rules = compile_plan(plan, places, MACHINE, 1, [])["landlock"]["rules"]
    assert [str(shared), READ] in rules


@pytest.mark.parametrize("kind", ["link", "missing", "proc", "through a link"])
def test_granted_path_that_is_not_what_it_says(tmp_path: Path, kind: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / "real" / "file").write_text("")
    (tmp_path / "side").symlink_to(tmp_path / "real")
    path = {
        "link": str(tmp_path / "link"),
        "missing": str(tmp_path / "missing"),
        "proc": "/proc/self",
        "through a link": str(tmp_path / "side" / "file"),
    }[kind]
    request = {"permissions": {"read": [path]}}
    grants = Permissions(read=(path,))
    with (
        plan_and_places(tmp_path, grants=grants, **request) as prepared,
        pytest.raises(ConfinementError) as caught,
    ):
        compile_plan(*prepared, MACHINE, 1, [])
    assert caught.value.layer == Layer.LANDLOCK
