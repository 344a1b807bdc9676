"""An environment for another Python is told apart by the names of compiled modules."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sandbox_host.catalog.environment import environment_fault


def environment(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("pure.py",),
        ("libs/libblas.so", "fast.abi3.so", "__pycache__/pure.cpython-310.pyc"),
        ("fast/_x.cpython-312-x86_64-linux-gnu.so",),
        ("a/_x.cpython-311-x86_64-linux-gnu.so", "b/_x.cpython-312-x86_64-linux-gnu.so"),
    ],
)
def test_what_fits(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert environment_fault(environment(tmp_path, *names), "3.12") == ""


@pytest.mark.parametrize(
    ("tag", "version"), [("311", "3.11"), ("310", "3.10"), ("39", "3.9"), ("312t", "3.12t")]
)
def test_another_python(tmp_path: Path, tag: str, version: str) -> None:
    environment(tmp_path, f"deep/er/_x.cpython-{tag}-x86_64-linux-gnu.so", "pure.py")
    assert environment_fault(tmp_path, "3.12") == (
        f"was made for {version}, this host is 3.12: make it again with `pip install --target`"
    )


def test_the_hosts_own_version(tmp_path: Path) -> None:
    own = f"{sys.version_info[0]}{sys.version_info[1]}{getattr(sys, 'abiflags', '')}"
    assert environment_fault(environment(tmp_path, f"x.cpython-{own}-linux.so")) == ""


def test_no_directory(tmp_path: Path) -> None:
    assert environment_fault(tmp_path / "missing").startswith("is no directory")
