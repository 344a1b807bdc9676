from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import LocalCommandLine


@pytest.fixture
def cli(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> LocalCommandLine:
    home = tmp_path / "a home"
    home.mkdir()
    return LocalCommandLine(home, capsys, monkeypatch)
