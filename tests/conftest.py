"""Fixtures that need a host, and what a test can demand of the machine it runs on."""

from __future__ import annotations

import compileall
import functools
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from sandbox_host import BlockingHost, HostConfig, Layer, SandboxHost
from sandbox_host.budget import enforce
from sandbox_host.errors import ConfinementError
from sandbox_host.model import LayerReport, LayerStatus
from sandbox_host.runtime.offers import machine_offers
from sandbox_host.runtime.workspace import remove_tree
from tests.support import ordinary_user
from tests.support.host import Load, Workshop, nothing_left_in
from tests.support.thrift import be_thrifty, spread

REQUIRED = "SANDBOX_HOST_REQUIRED_LAYERS"
"""Layers that the machine must have, by name, or "all": a test that lacks one fails, not skips."""


# How long an example takes says something about the machine, which may be busy.
_BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples each time, so that whom a test refuses can try again; others to look for more.
settings.register_profile("same", _BUSY, derandomize=True)
settings.register_profile("others", _BUSY, max_examples=1000)
settings.load_profile("same")

be_thrifty()


@functools.cache
def _offers() -> tuple[LayerReport, ...]:
    return machine_offers(HostConfig())


def _missing(wanted: frozenset[Layer]) -> list[Layer]:
    try:
        offers = _offers()
    except ConfinementError:
        return sorted(wanted)
    active = {offer.layer for offer in offers if offer.status is LayerStatus.ACTIVE}
    return sorted(wanted - active - {Layer.WATCHDOG})


def pytest_sessionstart(session: pytest.Session) -> None:
    """Leave byte code for the processes that tests start: pytest's own is for itself alone."""
    if not (sys.dont_write_bytecode or hasattr(session.config, "workerinput")):
        for package in ("sandbox_host", "plugin_sdk", "tests/support"):
            compileall.compile_dir(session.config.rootpath / package, quiet=2)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or fail, a test whose layers of confinement this machine does not offer."""
    marker = item.get_closest_marker("needs")
    if marker is None:
        return
    missing = _missing(frozenset(Layer(name) for name in marker.args))
    if not missing:
        return
    text = f"this machine lacks {', '.join(missing)}"
    required = os.environ.get(REQUIRED, "").split(",")
    if "all" in required or set(missing) & set(required):
        pytest.fail(f"{text}, which {REQUIRED} demands", pytrace=False)
    pytest.skip(text)


@pytest.fixture(scope="session", autouse=True)
def _temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    spread(tmp_path_factory.getbasetemp())
    yield
    ordinary_user.remove_copies()


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    """Where a test writes its plugins."""
    made = Workshop(tmp_path)
    yield made
    # What plugins left may be deeper than pytest's own removal goes.
    remove_tree(made.state_dir / "data")


@pytest.fixture
def host(workshop: Workshop) -> Iterator[BlockingHost]:
    """A blocking host that trusts the workshop's key."""
    with SandboxHost.blocking(workshop.config()) as opened:
        yield opened


@pytest.fixture
def long_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let who is late and listens always be in time to say so, on a busy machine too."""
    monkeypatch.setattr(enforce, "INTERRUPT_GRACE_SECONDS", 20.0)


@pytest.fixture
def load(workshop: Workshop, host: BlockingHost) -> Load:
    """Write, sign and load a plugin from the source of its ``main.py``: `Workshop.write`."""
    return workshop.loader(host)


# -- for tests that look at a plugin, and leave its host as it was ------------------------------


@pytest.fixture(scope="module")
def shared_workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Where the tests of a module write the plugins that they load in the same host."""
    return Workshop(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def shared_host(shared_workshop: Workshop) -> Iterator[BlockingHost]:
    """A blocking host that the tests of a module share: a test of its own takes longer to open."""
    with SandboxHost.blocking(shared_workshop.config()) as opened:
        yield opened


@pytest.fixture
def shared_load(shared_workshop: Workshop, shared_host: BlockingHost) -> Iterator[Load]:
    """As `load`, in the shared host; a test leaves no plugin and no data there."""
    with nothing_left_in(shared_host, shared_workshop):
        yield shared_workshop.loader(shared_host)


@pytest.fixture
def own_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the host put what is temporary where no other test leaves anything."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory
