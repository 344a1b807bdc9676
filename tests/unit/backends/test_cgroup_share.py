"""A group's share of the CPU, lowered and restored."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_host.backends.linux import cgroup_directory
from sandbox_host.backends.linux.cgroup_share import Share


@pytest.fixture(autouse=True)
def _kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a write replace what is there, as the kernel's files do."""

    def write(path: Path, value: str) -> None:
        if not path.exists():
            raise FileNotFoundError(path)
        path.write_text(f"{value}\n")

    monkeypatch.setattr(cgroup_directory, "write", write)


@pytest.mark.parametrize(
    ("name", "whole", "lowered"),
    [
        ("cpu.weight", 100, 10),
        ("cpu.weight", 1, 1),
        ("cpu.weight", 10_000, 1_000),
        ("cpu.shares", 1024, 102),
        ("cpu.shares", 10, 2),
    ],
)
def test_a_share_is_lowered_and_restored(
    tmp_path: Path, name: str, whole: int, lowered: int
) -> None:
    file = tmp_path / name
    file.write_text(f"{whole}\n")
    share = Share([tmp_path])
    for _ in range(2):
        share.lower()
        share.lower()  # once
        assert (share.lowered, int(file.read_text())) == (True, lowered)
        share.restore()
        share.restore()
        assert not share.lowered
        assert int(file.read_text()) == whole


def test_a_group_without_the_controller_has_none(tmp_path: Path) -> None:
    share = Share([tmp_path, tmp_path / "gone"])
    share.lower()
    share.restore()
    assert not share.lowered


def test_a_group_that_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "cpu.shares"
    file.write_text("1024\n")
    share = Share([tmp_path])
    share.lower()
    file.unlink()
    share.restore()
    share.lower()
    assert not share.lowered
