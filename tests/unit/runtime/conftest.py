"""A host whose plugins are scripts in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import BlockingHost, BlockingPlugin, SandboxHost
from sandbox_host.runtime import watch, workspace
from sandbox_host.runtime.workspace import remove_tree
from tests.support.fake_backend import FakeBackend, Script
from tests.support.host import Workshop

Scripted = Callable[..., tuple[BlockingHost, BlockingPlugin]]
OpenHost = Callable[..., BlockingHost]


@pytest.fixture(autouse=True)
def _without_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody imports the SDK where plugins are scripts: no host has to copy it."""
    monkeypatch.setattr(workspace, "copy_sdk", lambda _: None)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def open_host(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenHost]:
    """Open a host whose children run a script; keywords are fields of its configuration."""
    # A script grows without running: its CPU clock stands, and says nothing of what it holds.
    monkeypatch.setattr(watch, "STILL_SECONDS", 0.1)
    with ExitStack() as stack:

        def opened(script: Script, **options: Any) -> BlockingHost:
            config = workshop.config(**{"stop_timeout_seconds": 0.5} | options)
            return stack.enter_context(SandboxHost.blocking(config, backend=FakeBackend(script)))

        yield opened


@pytest.fixture
def scripted(workshop: Workshop, open_host: OpenHost) -> Scripted:
    """Load a plugin that runs a script; return its host and it."""

    def loaded(
        script: Script, *, manifest: dict[str, Any] | None = None, **options: Any
    ) -> tuple[BlockingHost, BlockingPlugin]:
        host = open_host(script, **options)
        return host, host.load(workshop.write(**(manifest or {})))

    return loaded


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """Make a state directory, with what a host keeps data in."""
    directory = tmp_path / "state"
    for path in (directory, directory / "data", directory / "locks"):
        path.mkdir(mode=0o700)
    yield directory
    remove_tree(directory / "data")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Make a directory that nobody may touch."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "precious").write_text("precious")
    return directory


@pytest.fixture
def sample(state: Path) -> Path:
    """Make the data directory of the plugin sample."""
    directory = state / "data" / "sample"
    directory.mkdir(mode=0o700)
    return directory
