"""An environment for another Python is told apart by the names of compiled modules."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sandbox_host.catalog import environment as module
from sandbox_host.catalog.environment import environment_fault, interpreter_fault, read_fault

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="plugins have the host's own user")


def environment(root: Path, *names: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o755)
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


# -- what root installed for itself alone ----------------------------------------------------------


def opened(root: Path) -> Path:
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root


@root_only
@pytest.mark.parametrize(
    ("closed", "mode"),
    [(".", 0o700), (".", 0o711), (".", 0o754), ("deep/er", 0o700), ("deep/er/x.py", 0o640)],
)
def test_closed_to_the_users_that_plugins_have(tmp_path: Path, closed: str, mode: int) -> None:
    opened(environment(tmp_path, "deep/er/x.py", "top.py"))
    assert environment_fault(tmp_path) == ""
    (tmp_path / closed).chmod(mode)
    fault = environment_fault(tmp_path)
    assert fault.startswith(f"is closed to plugins, which have user ids of their own: {tmp_path}")
    assert f"mode {mode:04o}" in fault
    assert fault.endswith(f"run `chmod -R a+rX {tmp_path}`")


@root_only
def test_links_and_caches_need_not_be_open(tmp_path: Path) -> None:
    opened(environment(tmp_path, "x.py", "__pycache__/x.cpython-311.pyc"))
    (tmp_path / "__pycache__").chmod(0o700)
    (tmp_path / "dangling").symlink_to("nowhere")
    assert environment_fault(tmp_path) == ""


@root_only
def test_a_sample_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(environment(tmp_path, "a.py", "b.py", "c.py"))
    (tmp_path / "b.py").chmod(0o600)
    seen = []
    lstat = os.lstat
    monkeypatch.setattr(module, "_MAX_SAMPLE", 3)
    monkeypatch.setattr(os, "lstat", lambda path: seen.append(path) or lstat(path))
    assert "b.py" in environment_fault(tmp_path)
    (tmp_path / "b.py").chmod(0o644)
    (tmp_path / "d.py").touch()
    seen.clear()
    assert environment_fault(tmp_path) == ""
    assert len([path for path in seen if str(path).endswith(".py")]) == 3


def test_modes_do_not_matter_where_plugins_have_the_hosts_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(tmp_path, "x.py")
    (tmp_path / "x.py").chmod(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    assert environment_fault(tmp_path) == ""


@pytest.mark.parametrize("closed", [".", "os.py", "encodings", "lib-dynload"])
@pytest.mark.parametrize("directory", ["lib", "lib64"])
def test_library_of_the_interpreter(tmp_path: Path, directory: str, closed: str) -> None:
    python = tmp_path / "bin" / "python3"
    library = tmp_path / directory / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    environment(library, "os.py", "encodings/__init__.py", "lib-dynload/_x.so")
    opened(tmp_path)
    assert interpreter_fault(python) == ""
    (library / closed).chmod(0o700 if closed != "os.py" else 0o600)
    fault = interpreter_fault(python)
    assert fault.startswith("has a library that is closed to plugins")
    assert os.path.normpath(library / closed) in fault
    assert f"chmod -R a+rX {library}" in fault


def test_library_that_is_not_there_is_another_fault(tmp_path: Path) -> None:
    assert interpreter_fault(tmp_path / "bin" / "python3") == ""


def test_read_fault(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    file.chmod(0o640)
    told = f"it has mode 0640 and belongs to user id {os.geteuid()}"
    assert read_fault(file) == told
    (tmp_path / "link").symlink_to(file)
    assert read_fault(tmp_path / "link") == told
    file.chmod(0o004)
    assert read_fault(file) == ""
    assert read_fault(tmp_path / "missing") == ""
