"""What surrounds a signed plugin: what it asks for, the host's places, journal and neighbours."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from sandbox_host import HostConfig, SandboxHost
from sandbox_host.errors import (
    AdmissionError,
    ConfigError,
    JournalError,
    ManifestError,
    PluginDisabledError,
    SandboxHostError,
)
from tests.support.bundles import plugin_files, signed_contents
from tests.support.forgeries import KEY, signed_as
from tests.support.tampering import FILES, Bench, Case, Tamper, named

pytestmark = [pytest.mark.timeout(60), pytest.mark.needs("landlock", "seccomp")]


def asking(**asks: Any) -> Tamper:
    """Sign a plugin that asks for something."""

    def do(bench: Bench) -> None:
        bench.put(signed_contents(KEY, FILES, **asks))

    return do


def called(name: str) -> Tamper:
    """Sign one of another name, without the checks of our tools."""

    def do(bench: Bench) -> None:
        bench.put(signed_as(plugin_files(FILES, name), name))

    return do


def permission(name: str, value: Any, words: str = "") -> Case:
    asked = asking(permissions={name: value})
    return Case(f"{name} without a grant", asked, AdmissionError, words or f"permissions.{name}")


ASKING: Final = [
    permission("env", ["TOKEN"]),
    permission("read", ["/etc"]),
    permission("write", ["/tmp"]),
    permission("network", ["example.org:443"]),
    permission("native_code", True),
    permission("subprocess", True),
    Case(
        "the host's own files",
        asking(permissions={"read": ["/"]}),
        AdmissionError,
        "permissions.read",
    ),
    permission("services", ["prices"]),
    Case("more memory", asking(limits={"memory": "900 GiB"}), AdmissionError, "limits.memory"),
    Case("more time", asking(limits={"cpu_time": 1e6}), AdmissionError, "limits.cpu_time"),
    Case("another interface", asking(plugin_api="9.0"), AdmissionError, "plugin_api: asks for"),
    Case(
        "another framework",
        asking(dependencies=["core_framework >= 99"]),
        AdmissionError,
        "dependencies[0]: asks for",
    ),
    Case("disabled", asking(config={"enabled": False}), PluginDisabledError, "is disabled"),
    *(
        Case(f"called {name}", called(name), ManifestError, "reserved")
        for name in ("json", "os", "plugin_sdk", "sandbox_host", "host", "Numpy")
    ),
    Case("called a keyword", called("Import"), ManifestError, "is a Python keyword"),
    Case("nothing more", asking()),
    Case("events", asking(permissions={"publish": ["a_*"]})),
    Case("less memory", asking(limits={"memory": "64 MiB"})),
]


# -- where the host keeps things ------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Something of the host's that is not as it was, and what `load` says."""

    name: str
    change: Callable[[Bench], None]
    error: type[SandboxHostError]
    words: str

    def __str__(self) -> str:
        return self.name


def bundles(bench: Bench) -> Path:
    return bench.host._core._launcher._workspace.bundles


def data_dir(bench: Bench) -> Path:
    return bench.config.state_dir / "data" / "sample"


def _linked(path: Callable[[Bench], Path]) -> Callable[[Bench], None]:
    def do(bench: Bench) -> None:
        target = bench.scene / "elsewhere"
        target.mkdir(mode=0o700)
        if path(bench).is_dir():
            path(bench).rename(bench.scene / "moved")
        path(bench).symlink_to(target)

    return do


def _gone(bench: Bench) -> None:
    bundles(bench).rmdir()


def _foreign(path: Callable[[Bench], Path]) -> Callable[[Bench], None]:
    def do(bench: Bench) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root can give a directory away")
        os.chown(path(bench), 12_345, -1)

    return do


PLACES: Final = [
    Place(
        "copies that others may see", lambda b: bundles(b).chmod(0o755), ConfigError, "ours alon"
    ),
    Place(
        "copies that others may make", lambda b: bundles(b).chmod(0o777), ConfigError, "not ours"
    ),
    Place("copies of another user", _foreign(bundles), ConfigError, "is not ours alone"),
    Place("copies elsewhere", _linked(bundles), ConfigError, "cannot be made"),
    Place("no place for copies", _gone, ConfigError, "cannot be made"),
    Place("data elsewhere", _linked(data_dir), ConfigError, "cannot be used"),
    Place("a file for data", lambda b: data_dir(b).write_text("x") and None, ConfigError, "used"),
]


@pytest.fixture
def restored(bench: Bench) -> Iterator[Bench]:
    """The bench, whose places are put back afterwards."""
    bench.reset()
    yield bench
    for path in (bundles(bench), data_dir(bench)):
        if path.is_symlink() or path.is_file():
            path.unlink()
    bundles(bench).mkdir(mode=0o700, exist_ok=True)
    bundles(bench).chmod(0o700)
    os.chown(bundles(bench), os.geteuid(), -1)
    assert bench.answer_of(bench.plugin) == "signed"


@pytest.mark.parametrize("case", named(ASKING), ids=str)
def test_asking(bench: Bench, case: Case) -> None:
    bench.check_by_host(case)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_places(restored: Bench, place: Place) -> None:
    place.change(restored)
    with pytest.raises(SandboxHostError) as caught:
        restored.host.load(restored.plugin)
    assert type(caught.value) is place.error, caught.value
    assert place.words in caught.value.message
    assert restored.host.plugins == {}
    assert not (restored.scene / "elsewhere").exists() or not list(
        (restored.scene / "elsewhere").iterdir()
    )


# -- what is found when a host opens --------------------------------------------------------------


@dataclass(frozen=True)
class Opening:
    """A state directory that is not as a host left it, and what the next one says."""

    name: str
    change: Callable[[Path], object]
    error: type[SandboxHostError]
    words: str

    def __str__(self) -> str:
        return self.name


def lines(change: Callable[[list[bytes]], None]) -> Callable[[Path], None]:
    def do(state: Path) -> None:
        path = state / "journal.jsonl"
        found = path.read_bytes().splitlines(keepends=True)
        change(found)
        path.write_bytes(b"".join(found))

    return do


def _changed(found: list[bytes]) -> None:
    found[1] = found[1].replace(b'"history_started"', b'"nothing_started"')


def _removed(found: list[bytes]) -> None:
    del found[1]


def _reordered(found: list[bytes]) -> None:
    found[0], found[1] = found[1], found[0]


def _truncated(found: list[bytes]) -> None:
    del found[-1]


def in_place(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def do(state: Path) -> None:
        path = state / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return do


def to(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


OPENINGS: Final = [
    Opening("a journal's line changed", lines(_changed), JournalError, "line 2: "),
    Opening("a journal's line removed", lines(_removed), JournalError, "line 2: "),
    Opening("a journal's lines swapped", lines(_reordered), JournalError, "line 1: "),
    Opening("a journal cut", lines(_truncated), JournalError, "line 3: "),
    Opening("no journal", in_place("journal.jsonl", lambda _: None), JournalError, "line 1: "),
    Opening("a journal's link", in_place("journal.jsonl", to("x")), JournalError, "cannot be op"),
    Opening("a journal's FIFO", in_place("journal.jsonl", os.mkfifo), JournalError, "no regular"),
    Opening("others may write", lambda state: state.chmod(0o777), ConfigError, "by others"),
    Opening("the group may write", lambda state: state.chmod(0o770), ConfigError, "by others"),
    Opening("data elsewhere", in_place("data", to("/tmp")), ConfigError, "no directory of this"),
    Opening("copies elsewhere", in_place("run", to("/tmp")), ConfigError, "no directory of this"),
    Opening(
        "a file for locks",
        in_place("locks", lambda path: path.write_text("")),
        ConfigError,
        "File exists",
    ),
]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory as a host leaves it."""
    state = tmp_path_factory.mktemp("left") / "state"
    with SandboxHost.blocking(HostConfig(trust_store=Path("nowhere"), state_dir=state)):
        pass
    return state


@pytest.mark.parametrize("opening", OPENINGS, ids=str)
def test_opening(left: Path, tmp_path: Path, opening: Opening) -> None:
    state = tmp_path / "state"
    shutil.copytree(left, state)
    config = HostConfig(trust_store=Path("nowhere"), state_dir=state)
    opening.change(state)
    with pytest.raises(SandboxHostError) as caught:
        SandboxHost.blocking(config).__enter__()
    assert type(caught.value) is opening.error, caught.value
    assert opening.words in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    "switch", ["enable_sandboxing", "require_signatures", "restrict_permissions"]
)
def test_no_protection_has_a_switch(switch: str) -> None:
    with pytest.raises(ConfigError, match=f"{switch} = false is refused"):
        HostConfig(**{switch: False})
    assert HostConfig(**{switch: True})


@pytest.mark.parametrize("fixed", ["seccomp", "landlock"])
def test_no_layer_is_switched_off_in_silence(fixed: str, bench: Bench, tmp_path: Path) -> None:
    bench.reset()
    config = bench.config.model_copy(update={"state_dir": tmp_path / "state"})
    with (
        pytest.raises(SandboxHostError) as caught,
        SandboxHost.blocking(
            HostConfig(
                trust_store=config.trust_store, state_dir=config.state_dir, disable_layers=[fixed]
            )
        ) as host,
    ):
        host.load(bench.plugin)
    assert fixed in caught.value.message
