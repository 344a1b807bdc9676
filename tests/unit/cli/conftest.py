from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.bundles import make_key as make_signing_key
from tests.support.bundles import signed_plugin, trust_store, write_plugin
from tests.support.command_line import LocalCommandLine


@pytest.fixture
def cli(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> LocalCommandLine:
    return LocalCommandLine(tmp_path, capsys, monkeypatch)


@pytest.fixture
def store(cli: LocalCommandLine) -> Path:
    """A trust store that believes the tests' first key."""
    return trust_store(cli.home, make_signing_key())


@pytest.fixture
def plugin(cli: LocalCommandLine) -> Path:
    """An unsigned plugin."""
    return write_plugin(cli.home / "sample")


@pytest.fixture
def signed(cli: LocalCommandLine) -> Path:
    """A plugin signed by the tests' first key."""
    return signed_plugin(cli.home / "signed" / "sample", make_signing_key())
