from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sandbox_host import HostConfig
from sandbox_host.model import Layer, LayerReport, LayerStatus, Receipt
from sandbox_host.selftest import audit as module
from sandbox_host.selftest.collection.registry import ATTACKS, SUCCEEDED
from sandbox_host.selftest.report import Aftermath, Control, Verdict


class FakeArena:
    """Meets what each attack expects, but for those that are told otherwise."""

    receipt = Receipt("hostile", 1, (LayerReport(Layer.OWN_ROOT, LayerStatus.ACTIVE, ""),))

    def __init__(self, **otherwise: str) -> None:
        self._otherwise = otherwise
        self.closed = False
        self.controls = {
            name: Control(SUCCEEDED, attack.ends_parent) for name, attack in ATTACKS.items()
        }

    def attempt(self, name: str) -> str:
        assert not self.closed
        return self._otherwise.get(name, ATTACKS[name].expected[0])

    def aftermath(self) -> tuple[Aftermath, ...]:
        assert not self.closed
        return (Aftermath("all is quiet", True),)

    def left_behind(self) -> Aftermath:
        assert self.closed
        return Aftermath("nothing is left", True)


def audit(monkeypatch: pytest.MonkeyPatch, arena: FakeArena, **options: Any) -> Any:
    @contextmanager
    def open_fake(_: HostConfig, backend: object = None) -> Iterator[FakeArena]:
        yield arena
        arena.closed = True

    monkeypatch.setattr(module, "open_arena", open_fake)
    return module.audit(HostConfig(), **options)


def test_every_attack_is_made_and_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    told = audit(monkeypatch, FakeArena(fork=SUCCEEDED), progress=shown.append)
    assert {one.name for one in told.attempts} == set(ATTACKS)
    assert [one.name for one in told.of(Verdict.NOT_STOPPED)] == ["fork"]
    assert not told.holds
    assert [one.what for one in told.aftermath] == ["all is quiet", "nothing is left"]
    assert f"attack 1 of {len(ATTACKS)}: read environment" in shown
    assert f"uid {os.geteuid()}" in told.user
    assert told.seconds > 0


def test_none_is_made_when_no_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    told = audit(monkeypatch, FakeArena(), seconds=-1.0)
    assert {one.verdict for one in told.attempts} == {Verdict.NOT_MADE}
    assert told.total().attempted == 0
    assert not told.holds


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 4_000_000)
    assert audit(monkeypatch, FakeArena()).user == "uid 4000000"
