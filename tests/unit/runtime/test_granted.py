"""What was granted and will not be had all the same, as notes for the operator."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sandbox_host.model import Layer, Permissions
from sandbox_host.runtime.granted import shortfalls, unset_variables

OWN_UID = (Layer.OWN_UID, Layer.OWN_ROOT)


def plan(*layers: Layer, **permissions: Any) -> Any:
    return SimpleNamespace(layers=layers, permissions=Permissions(**permissions))


def test_nothing_granted_is_nothing_to_tell() -> None:
    assert shortfalls(plan(*OWN_UID)) == ()


@pytest.mark.parametrize(
    ("mode", "told"), [(0o755, True), (0o757, False), (0o752, True), (0o773, False), (0o700, True)]
)
def test_directory_that_the_plugins_user_cannot_write(
    tmp_path: Path, mode: int, told: bool
) -> None:
    tmp_path.chmod(mode)
    notes = shortfalls(plan(*OWN_UID, write=(str(tmp_path),)))
    assert bool(notes) is told
    for note in notes:
        assert note.endswith(f"to open it: chmod o+wx {tmp_path}")
        assert f"it has mode {mode:04o} and belongs to user id {os.geteuid()}" in note


@pytest.mark.parametrize(("mode", "told"), [(0o644, True), (0o646, False), (0o642, False)])
def test_file_that_the_plugins_user_cannot_write(tmp_path: Path, mode: int, told: bool) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(mode)
    notes = shortfalls(plan(*OWN_UID, write=(str(path),)))
    assert [note.rpartition("chmod ")[2] for note in notes] == [f"o+w {path}"] * told


def test_without_a_user_of_its_own_it_writes_where_the_host_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = plan(write=(str(tmp_path), str(tmp_path / "missing")))
    tmp_path.chmod(0o700)
    assert shortfalls(there) == ()
    monkeypatch.setattr(os, "access", lambda *_: False)
    (note,) = shortfalls(there)
    assert note == f"it is granted to write to {tmp_path}, where this host itself may not write"


def test_what_cannot_be_read_is_told_beside(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir(mode=0o700)
    path = str(tmp_path / "in")
    read, write = shortfalls(plan(*OWN_UID, read=(path,), write=(path,)))
    assert "cannot read it" in read
    assert "granted to write" in write


def test_variables_that_are_not_set() -> None:
    asked = plan(env=("A", "B", "EMPTY"))
    (note,) = unset_variables(asked, {"A": "value", "EMPTY": "", "C": "x"})
    assert " B, which is not set" in note
