"""Who compiles may be hostile: what it says is bytes of this bundle's, or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.messages import Load, Publish, Ready
from sandbox_host.admission.plan import SandboxPlan, admit
from sandbox_host.admission.policy import Policy
from sandbox_host.bundle.verify import VerifiedBundle, verify
from sandbox_host.config import HostConfig
from sandbox_host.model import Layer, Permissions
from sandbox_host.runtime import bytecode as room
from sandbox_host.runtime.bytecode import Bytecode
from sandbox_host.runtime.launch import base_python
from sandbox_host.runtime.workspace import Workspace
from tests.support.bundles import NOW, make_key, signed_contents, store_of
from tests.support.fake_backend import FakeBackend, Peer, Script

KEY = make_key()
FILES = {"main.py": "x = 1\n", "sub/deep.py": "y = 2\n", "data.bin": b"\0"}
PATHS = ["__init__.py", "main.py", "sub/deep.py"]


@pytest.fixture(autouse=True)
def small_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "WORTH_BYTES", 1)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    made = Workspace(tmp_path / "state")
    yield made
    made.close()


def bundle_and_plan(**options: object) -> tuple[SandboxPlan, VerifiedBundle]:
    permissions = {"publish": ["news"]}
    contents = signed_contents(KEY, {**FILES, **options}, permissions=permissions)
    bundle = verify(contents, store_of(KEY), NOW)
    config = HostConfig(grants={"*": Permissions(publish=("news",))})
    return admit(bundle, Policy.from_config(config), frozenset(Layer)), bundle


def compiling(
    workspace: Workspace, script: Script, timeout: float = 20.0
) -> tuple[FakeBackend, Bytecode]:
    backend = FakeBackend(script)
    return backend, Bytecode(backend, workspace, base_python(), timeout)


def asked(peer: Peer) -> dict[str, object]:
    message = peer.receive()
    assert isinstance(message, Load)
    told: dict[str, object] = unpack(message.payload)
    return told


def saying(*results: tuple[str, bytes], ends: bool = True) -> Script:
    """Return a script that says these, and perhaps that this is all."""

    def script(peer: Peer) -> None:
        asked(peer)
        for name, data in results:
            peer.send(Publish(name, payload=data))
        if ends:
            peer.send(Ready(payload=pack({})))

    return script


def test_every_source_is_compiled_and_placed_where_python_looks(workspace: Workspace) -> None:
    orders: list[dict[str, object]] = []

    def script(peer: Peer) -> None:
        orders.append(asked(peer))
        os.write(peer.out1, b"noise " * 1_000)
        for number in range(3):
            peer.send(Publish(f"{number}.cpython-311", payload=b"code %d" % number))
        peer.send(Ready(payload=pack({})))

    backend, bytecode = compiling(workspace, script)
    plan, bundle = bundle_and_plan()
    expected = {
        "__pycache__/__init__.cpython-311.pyc": b"code 0",
        "__pycache__/main.cpython-311.pyc": b"code 1",
        "sub/__pycache__/deep.cpython-311.pyc": b"code 2",
    }
    assert bytecode.of(plan, bundle) == expected
    assert orders[0]["compile"] == PATHS
    assert [child._closed for child in backend.children] == [True]
    # The second time nobody is asked, by another host of the same state directory either.
    assert bytecode.of(plan, bundle) == expected
    assert compiling(workspace, script)[1].of(plan, bundle) == expected
    assert len(orders) == 1


def test_who_compiles_has_nothing_of_the_plugins(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, bytecode = compiling(workspace, saying())
    plan, bundle = bundle_and_plan()
    seen: list[tuple[Permissions, Path, Path]] = []
    real = backend.start

    def start(plan: SandboxPlan, places: object, timeout: float) -> object:
        seen.append((plan.permissions, places.data_dir, places.package_dir))  # type: ignore[attr-defined]
        return real(plan, places, timeout)  # type: ignore[arg-type]

    monkeypatch.setattr(backend, "start", start)
    bytecode.of(plan, bundle)
    assert plan.permissions.publish == ("news",)
    ((permissions, data_dir, package_dir),) = seen
    assert permissions == Permissions()
    assert data_dir != workspace.data_dir(plan.identity)
    assert not data_dir.exists()
    assert not package_dir.exists()
    assert list((workspace.run_dir / "scratch").iterdir()) == []


def test_few_sources_are_not_worth_a_process(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    backend, bytecode = compiling(workspace, saying())
    assert bytecode.of(*bundle_and_plan()) == {}
    assert backend.children == []


@pytest.mark.parametrize(
    ("results", "kept"),
    [
        ([("3.cpython-311", b"x")], set()),
        (
            [("0.cpython-311", b"x"), ("-1.cpython-311", b"x"), ("1.cpython-311", b"x")],
            {"__init__"},
        ),
        ([("0.cpython-311/../../x", b"x")], set()),
        ([("0", b"x")], set()),
        ([("0.", b"x")], set()),
        ([("٣.cpython-311", b"x")], set()),
        ([("9999999999.cpython-311", b"x")], set()),
        ([("0.CPYTHON", b"x")], set()),
        ([("0.a" + "b" * 200, b"x")], set()),
        ([("1.cpython-311", b"x"), ("1.cpython-311", b"y")], {"main"}),
    ],
)
def test_what_is_said_is_taken_for_a_known_source_or_not_at_all(
    workspace: Workspace, results: list[tuple[str, bytes]], kept: set[str]
) -> None:
    _, bytecode = compiling(workspace, saying(*results))
    plan, bundle = bundle_and_plan()
    assert {Path(path).name.partition(".")[0] for path in bytecode.of(plan, bundle)} == kept
    assert set(bytecode.of(plan, bundle)).isdisjoint(bundle.files)


def test_a_process_that_dies_has_said_something_before(workspace: Workspace) -> None:
    script = saying(("0.cpython-311", b"x"), ends=False)
    backend, bytecode = compiling(workspace, script)
    plan, bundle = bundle_and_plan()
    assert list(bytecode.of(plan, bundle)) == ["__pycache__/__init__.cpython-311.pyc"]
    bytecode.of(plan, bundle)
    assert len(backend.children) == 1  # what it died of, it would die of again


def _late(peer: Peer) -> None:
    asked(peer)
    peer.send(Publish("0.cpython-311", payload=b"x"))
    peer.sleep()


def _nonsense(peer: Peer) -> None:
    asked(peer)
    peer.send(Publish("0.cpython-311", payload=b"x"))
    peer.write(b"\xff" * 100)
    peer.sleep()


@pytest.mark.parametrize("script", [_late, _nonsense])
def test_who_is_late_or_talks_nonsense_is_ended(workspace: Workspace, script: Script) -> None:
    backend, bytecode = compiling(workspace, script, timeout=0.3)
    # How much of what was said before counts is a matter of time.
    assert set(bytecode.of(*bundle_and_plan())) <= {"__pycache__/__init__.cpython-311.pyc"}
    assert [child._closed for child in backend.children] == [True]


def test_who_says_too_much_is_ended(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_ENTRY_BYTES", 100_000)

    def script(peer: Peer) -> None:
        asked(peer)
        while True:
            peer.send(Publish("0.cpython-311", payload=b"x" * 50_000))

    backend, bytecode = compiling(workspace, script)
    bytecode.of(*bundle_and_plan())
    assert [child._closed for child in backend.children] == [True]


def _no_process(workspace: Workspace) -> Bytecode:
    return Bytecode(FakeBackend(saying(), refuses=True), workspace, base_python(), 1.0)


def _unconfined(workspace: Workspace) -> Bytecode:
    backend = FakeBackend(saying(("0.cpython-311", b"x")), unapplied=tuple(Layer))
    return Bytecode(backend, workspace, base_python(), 20.0)


def _no_interpreter(workspace: Workspace) -> Bytecode:
    return Bytecode(FakeBackend(saying()), workspace, Path("/no/such/python"), 20.0)


def _open_store(workspace: Workspace) -> Bytecode:
    (workspace.state_dir / "bytecode").mkdir()
    (workspace.state_dir / "bytecode").chmod(0o777)
    return compiling(workspace, saying(("0.cpython-311", b"x")))[1]


@pytest.mark.parametrize("made", [_no_process, _unconfined, _no_interpreter, _open_store])
def test_what_goes_wrong_costs_the_byte_code_and_no_more(
    workspace: Workspace, made: Callable[[Workspace], Bytecode]
) -> None:
    assert made(workspace).of(*bundle_and_plan()) == {}
    assert list(workspace.bundles.iterdir()) == []


def test_twins_by_content_share_what_was_compiled(workspace: Workspace) -> None:
    _, bytecode = compiling(workspace, saying(("1.cpython-311", b"x")))
    plan, bundle = bundle_and_plan(**{"copy.py": FILES["main.py"]})
    assert set(bytecode.of(plan, bundle)) == {
        "__pycache__/copy.cpython-311.pyc",
        "__pycache__/main.cpython-311.pyc",
    }
