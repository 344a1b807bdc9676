"""Fixtures that need a host, and what a test can demand of the machine it runs on."""

from __future__ import annotations

import functools
import os
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
from tests.support.host import Load, Workshop

REQUIRED = "SANDBOX_HOST_REQUIRED_LAYERS"
"""Layers that the machine must have, by name, or "all": a test that lacks one fails, not skips."""


# How long an example takes says something about the machine, which may be busy.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


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
