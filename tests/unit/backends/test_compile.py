"""A plan as plain data: what the child is told to apply."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk.wire.codec import pack, unpack
from sandbox_host.backends.linux.compile import (
    ADDRESS_SPACE_HEADROOM,
    HOSTNAME,
    KEEP,
    LIMIT_NAMES,
    TASKS_HEADROOM,
    Ids,
    compile_plan,
    rlimits,
)
from sandbox_host.backends.linux.landlock import OWN, READ, TRUNCATE, WRITE, WRITE_FILE
from sandbox_host.backends.linux.probe import Machine
from sandbox_host.backends.linux.seccomp import ALLOW, ARCHITECTURES
from sandbox_host.errors import ConfinementError
from sandbox_host.model import MIB, Layer, Limits, Permissions
from tests.support.bpf_simulator import Call, run
from tests.support.plans import plan_and_places

MACHINE = Machine("x86_64", 7, "", seccomp=True, seccomp_reason="")
IDS = Ids(host=100, pid=4_321, own_pid=True, uid=1, proc=True)
SHARED = Ids(host=100, pid=4_321)
NAMESPACES = (
    *(Layer.NETWORK_NAMESPACE, Layer.IPC_NAMESPACE, Layer.UTS_NAMESPACE, Layer.CGROUP_NAMESPACE),
    Layer.OWN_ROOT,
)


def order(prepared: Any, ids: Ids = IDS) -> dict[str, Any]:
    return compile_plan(*prepared, MACHINE, ids).order


@pytest.fixture
def prepared(tmp_path: Path) -> Iterator[Any]:
    with plan_and_places(tmp_path) as made:
        yield made


def test_compiled_plan_is_plain_data(prepared: Any) -> None:
    compiled = order(prepared)
    assert unpack(pack(compiled)) == compiled
    assert compiled["keep"] == list(KEEP)
    assert len(compiled["seccomp"]) % 8 == 0
    assert compiled["host_pid"] == 100


def test_everything_that_is_planned_is_compiled(prepared: Any) -> None:
    plan, places = prepared
    compiled = order(prepared)
    assert [layer for layer, _ in compiled["namespaces"]] == list(NAMESPACES)
    flags = [flag for _, flag in compiled["namespaces"]]
    assert len(set(flags)) == len(flags)
    assert compiled["hostname"] == HOSTNAME
    assert compiled["uid"] == 1
    assert compiled["root"]["cwd"] == compiled["cwd"] == str(places.scratch_dir)
    assert compiled["canary"] == str(places.canary)
    assert {number for number, _ in compiled["rlimits"]} == set(LIMIT_NAMES)
    mounts = compile_plan(plan, places, MACHINE, IDS).mounts
    assert [m["path"] for m in compiled["root"]["mounts"]] == [m.path for m in mounts]


def test_only_own_directories_are_writable(prepared: Any) -> None:
    _, places = prepared
    rules = order(prepared)["landlock"]["rules"]
    writable = {path for path, rights in rules if rights & OWN & ~READ}
    devices = {path for path in writable if path.startswith("/dev/")}
    assert writable - devices == {str(places.data_dir), str(places.scratch_dir)}
    assert devices <= {"/dev/null", "/dev/full", "/dev/urandom", "/dev/random"}


def test_nothing_of_the_hosts_is_readable(prepared: Any) -> None:
    """Neither by a rule of Landlock's nor by a mount."""
    _, places = prepared
    compiled = order(prepared)
    state = places.canary.parents[2]
    private = [*Path(__file__).parents[:4], state, state / "logs", places.canary, Path("/etc")]
    private += [state / "data", state / "run", places.canary.parent, Path.home(), Path("/")]
    granted = [Path(path) for path, _ in compiled["landlock"]["rules"]]
    granted += [Path(m["path"]) for m in compiled["root"]["mounts"] if m["kind"] == "bind"]
    for path in private:
        assert not [g for g in granted if path == g or path.is_relative_to(g)], path
    assert not [g for g in granted if "site-packages" in g.parts or "dist-packages" in g.parts]


@pytest.mark.parametrize("layer", [layer.value for layer in Layer])
def test_layer_that_is_not_planned_is_not_compiled(tmp_path: Path, layer: str) -> None:
    layers = frozenset(Layer) - {Layer(layer)}
    with plan_and_places(tmp_path, layers=layers) as prepared:
        compiled = compile_plan(*prepared, MACHINE, IDS)
    order = compiled.order
    assert layer not in [name for name, _ in order["namespaces"]]
    assert (order["hostname"] == "") == (layer == "uts-namespace")
    assert (order["root"] is None) == (layer == "own-root")
    assert (compiled.mounts == ()) == (layer == "own-root")
    assert (order["landlock"] is None) == (layer == "landlock")
    assert (order["seccomp"] is None) == (layer == "seccomp")
    assert (order["rlimits"] == []) == (layer == "rlimits")


@pytest.mark.parametrize(
    ("without", "probes"),
    [
        ((), {"open-canary", "stat-canary", "write-root", "list-root", "socket", "fork"}),
        ((Layer.OWN_ROOT,), {"open-canary", "list-root", "socket"}),
        ((Layer.LANDLOCK,), {"open-canary", "stat-canary", "write-root", "socket"}),
        ((Layer.OWN_ROOT, Layer.LANDLOCK), {"socket", "execute", "signal-host"}),
        ((Layer.SECCOMP,), {"open-canary", "stat-canary", "write-root", "list-root"}),
        ((Layer.SECCOMP, Layer.OWN_ROOT, Layer.LANDLOCK), set()),
    ],
    ids=["all", "no root", "no landlock", "only seccomp", "no seccomp", "none"],
)
def test_each_layer_has_its_probes(
    tmp_path: Path, without: tuple[Layer, ...], probes: set[str]
) -> None:
    with plan_and_places(tmp_path, layers=frozenset(Layer) - {*without}) as prepared:
        tried = order(prepared)["probes"]
    assert probes <= set(tried)
    assert len(set(tried)) == len(tried)
    by = set(BY_LANDLOCK) if Layer.LANDLOCK not in without else set()
    by |= BY_ROOT if Layer.OWN_ROOT not in without else set()
    assert {name for name in tried if name in LAYERED} == by
    assert bool(set(tried) - LAYERED) == (Layer.SECCOMP not in without)


BY_LANDLOCK = {"open-canary", "list-root", "make-link"}
BY_ROOT = {"open-canary", "stat-canary", "write-root", "change-program"}
LAYERED = BY_LANDLOCK | BY_ROOT


def test_filter_knows_the_child_by_its_own_number(prepared: Any) -> None:
    inside, outside = order(prepared)["seccomp"], order(prepared, SHARED)["seccomp"]
    audit, kill = ARCHITECTURES["x86_64"].audit, ARCHITECTURES["x86_64"].numbers["kill"]
    for program, own, other in ((inside, 1, 4_321), (outside, 4_321, 1)):
        assert run(program, Call(kill, audit, (own, 15))) == ALLOW
        assert run(program, Call(kill, audit, (other, 15))) != ALLOW


def test_proc_where_it_can_be_mounted(prepared: Any) -> None:
    with_proc, without = order(prepared), order(prepared, replace(IDS, proc=False))
    for compiled, there in ((with_proc, True), (without, False)):
        assert ("/proc" in [m["path"] for m in compiled["root"]["mounts"]]) == there
        assert ("/proc" in [path for path, _ in compiled["landlock"]["rules"]]) == there


def test_tasks_are_limited_where_they_are_counted_alone(prepared: Any) -> None:
    number = resource.RLIMIT_NPROC
    limit = prepared[0].limits.threads + TASKS_HEADROOM
    for ids in (IDS, replace(SHARED, nested_user=True)):
        assert dict(order(prepared, ids)["rlimits"])[number] == limit
    assert number not in dict(order(prepared, SHARED)["rlimits"])


def test_no_limit_is_above_the_hosts_own(prepared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody but root may raise a hard limit: it would be refused in the child."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (5, 7))
    assert {value for _, value in order(prepared)["rlimits"]} <= {0, 7}
    monkeypatch.setattr(resource, "getrlimit", lambda _: (5, resource.RLIM_INFINITY))
    assert dict(order(prepared)["rlimits"])[resource.RLIMIT_NOFILE] == 1_000


def test_limits_have_names_and_follow_the_budgets() -> None:
    limits = Limits(memory_bytes=64 * MIB, descriptors=50, file_bytes=7, cpu_total_seconds=9)
    found = rlimits(limits, own_count=True)
    assert set(found) == set(LIMIT_NAMES)
    assert found[resource.RLIMIT_NOFILE] == 50
    assert found[resource.RLIMIT_FSIZE] == 7
    assert found[resource.RLIMIT_CPU] == 9
    assert found[resource.RLIMIT_CORE] == 0
    assert found[resource.RLIMIT_AS] == 64 * MIB + ADDRESS_SPACE_HEADROOM
    assert rlimits(Limits(memory_bytes=1 << 31), own_count=False)[resource.RLIMIT_AS] == 1 << 32


def granted(tmp_path: Path, **permissions: Any) -> Any:
    """Return what is compiled for a plugin that requests, and is granted, all of it."""
    grants = Permissions(**{key: tuple(value) for key, value in permissions.items()})
    with plan_and_places(tmp_path, grants=grants, permissions=permissions) as prepared:
        return order(prepared)


def place_of(path: Path, rights: int) -> list[Any]:
    status = path.stat()
    return [str(path), rights, [status.st_dev, status.st_ino]]


def test_environment_is_compiled_from_what_was_granted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "value")
    monkeypatch.setenv("SECRET", "1")
    variables = granted(tmp_path, env=["TOKEN", "UNSET"])["environment"]
    assert variables == {**variables, "TOKEN": "value"}
    assert not {"SECRET", "UNSET", "PATH"} & set(variables)


def test_path_that_was_granted_for_reading(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    compiled = granted(tmp_path, read=[str(shared)])
    rule = place_of(shared, READ)
    assert rule in compiled["landlock"]["rules"]
    (mount,) = [m for m in compiled["root"]["mounts"] if m["path"] == str(shared)]
    assert (mount["kind"], mount["flags"], mount["source"]) == ("bind", 15, rule[2])


def test_path_that_was_granted_for_writing(tmp_path: Path) -> None:
    shared, file = tmp_path / "shared", tmp_path / "file"
    shared.mkdir()
    file.touch()
    compiled = granted(tmp_path, write=[str(shared), str(file)])
    rules = {rule[0]: rule for rule in compiled["landlock"]["rules"]}
    assert rules[str(shared)] == place_of(shared, WRITE)
    assert rules[str(file)] == place_of(file, WRITE_FILE | TRUNCATE)
    for path in (shared, file):
        (mount,) = [m for m in compiled["root"]["mounts"] if m["path"] == str(path)]
        assert (mount["kind"], mount["flags"]) == ("bind", 14)
        assert mount["source"] == rules[str(path)][2]


def test_path_that_was_granted_for_both(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    compiled = granted(tmp_path, read=[str(shared)], write=[str(shared)])
    rules = [rule for rule in compiled["landlock"]["rules"] if rule[0] == str(shared)]
    assert rules == [place_of(shared, READ), place_of(shared, WRITE)]
    (mount,) = [m for m in compiled["root"]["mounts"] if m["path"] == str(shared)]
    assert mount["flags"] == 14


@pytest.mark.parametrize(
    "kind", ["link", "missing", "proc", "sys", "dev", "root", "through a link"]
)
def test_granted_path_that_is_not_what_it_says(tmp_path: Path, kind: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / "real" / "file").write_text("")
    (tmp_path / "side").symlink_to(tmp_path / "real")
    path = {
        "link": str(tmp_path / "link"),
        "missing": str(tmp_path / "missing"),
        "proc": "/proc/self",
        "sys": "/sys/kernel",
        "dev": "/dev",
        "root": "/",
        "through a link": str(tmp_path / "side" / "file"),
    }[kind]
    request = {"permissions": {"read": [path]}}
    grants = Permissions(read=(path,))
    with (
        plan_and_places(tmp_path, grants=grants, **request) as prepared,
        pytest.raises(ConfinementError) as caught,
    ):
        order(prepared)
    assert caught.value.layer == Layer.LANDLOCK
