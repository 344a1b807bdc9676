"""Who may have refused a layer, and what to do about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox_host.backends.linux import surroundings as room
from sandbox_host.backends.linux.surroundings import (
    CONTAINER_CALLS,
    Surroundings,
    remedy,
    surroundings,
)

REFUSED = {
    "[Errno 1] sethostname: Operation not permitted": "take ProtectHostname= and System",
    "[Errno 38] openat2 /dev/null: Function not implemented": "take RestrictSUIDSGID=",
    "[Errno 1] unshare: Operation not permitted": "take RestrictNamespaces= and SystemCallFilter=",
    "[Errno 1] setns: Operation not permitted": "take RestrictNamespaces= and SystemCallFilter=",
    "[Errno 1] pivot_root: Operation not permitted": "take SystemCallFilter= out",
    "a system call filter ends whoever tries it (SIGSYS)": "take SystemCallFilter= out",
    "nobody knows": "take RestrictNamespaces=, RestrictSUIDSGID=, ProtectHostname=, SystemCall",
}


@pytest.mark.parametrize("reason", REFUSED)
def test_the_option_of_a_unit_is_named(reason: str) -> None:
    told = remedy(reason, Surroundings.UNIT)
    assert told.startswith(f"In systemd, {REFUSED[reason]}")
    assert "container" not in told


def test_the_calls_of_a_container_are_named() -> None:
    told = remedy("[Errno 1] mount: Operation not permitted", Surroundings.CONTAINER)
    assert ", ".join(CONTAINER_CALLS) in told
    assert "systemd" not in told


def test_the_calls_are_those_of_the_profile_that_is_handed_out() -> None:
    docs = Path(__file__).parents[3] / "docs"
    (rule,) = json.loads((docs / "container-seccomp.json").read_text())["syscalls"]
    assert rule == {"names": list(CONTAINER_CALLS), "action": "SCMP_ACT_ALLOW"}
    page = (docs / "operations.md").read_text()
    reasons = page.partition("\n## Docker\n")[2].partition("\n## ")[0]
    assert [name for name in CONTAINER_CALLS if f"`{name}`" not in reasons] == []


def test_where_nothing_is_known_both_are() -> None:
    told = remedy("[Errno 1] mount: Operation not permitted", Surroundings.UNKNOWN)
    assert "In a container, allow" in told
    assert "in systemd, take" in told


def test_what_a_host_runs_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mark = tmp_path / "a container's"
    monkeypatch.setattr(room, "_CONTAINERS_LEAVE", (str(mark),))
    for name in ("INVOCATION_ID", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    assert surroundings() is Surroundings.UNKNOWN
    mark.touch()
    assert surroundings() is Surroundings.CONTAINER
    mark.unlink()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert surroundings() is Surroundings.CONTAINER
    monkeypatch.setenv("INVOCATION_ID", "0" * 32)
    assert surroundings() is Surroundings.UNIT
