"""Swaps that are made at one moment of what a host or a command does, by a hook in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from sandbox_host.errors import SandboxHostError
from tests.support.archives import packed
from tests.support.command_line import snapshot
from tests.support.tampering import GOOD, LONG_AGO, Bench, Case

PACKED: Final = packed(GOOD.files, GOOD.envelope)
"""The archive that a race begins with, where it is about one."""

Swap = Callable[[Bench], None]
Moment = Callable[[pytest.MonkeyPatch, Bench, Callable[[], None]], None]
"""Arranges that the function is called when the moment comes."""


def before(owner: Any, name: str, now: Callable[..., bool] = lambda *_: True) -> Moment:
    """Return the moment before a function is called, the first time that `now` holds."""

    def arm(patch: pytest.MonkeyPatch, bench: Bench, swap: Callable[[], None]) -> None:
        real = getattr(owner, name)

        def hooked(*arguments: Any, **options: Any) -> Any:
            if now(*arguments):
                swap()
            return real(*arguments, **options)

        patch.setattr(owner, name, hooked)

    return arm


def after(owner: Any, name: str) -> Moment:
    """Return the moment after a function was called for the first time."""

    def arm(patch: pytest.MonkeyPatch, bench: Bench, swap: Callable[[], None]) -> None:
        real = getattr(owner, name)

        def hooked(*arguments: Any, **options: Any) -> Any:
            result = real(*arguments, **options)
            swap()
            return result

        patch.setattr(owner, name, hooked)

    return arm


@dataclass(frozen=True)
class Race:
    """A swap at a moment, and what has to come of it; no error: what was signed runs.

    Attributes:
        early: so early that the command `verify` comes by there as well.
        packed: it is an archive that is swapped.
    """

    name: str
    moment: Moment
    swap: Swap
    error: type[SandboxHostError] | None = None
    words: str = ""
    early: bool = True
    packed: bool = False

    def __str__(self) -> str:
        return self.name


class Armed:
    """Makes a race's swap when its moment comes, once."""

    def __init__(self, race: Race, patch: pytest.MonkeyPatch) -> None:
        self._race = race
        self._patch = patch
        self.swapped = False

    def __call__(self, bench: Bench) -> Path:
        """Wait for the moment; return what is to be judged."""
        path = bench.plugin
        if self._race.packed:
            bench.archive.write_bytes(PACKED)
            os.utime(bench.archive, LONG_AGO)
            path = bench.archive
        self._race.moment(self._patch, bench, partial(self._swap, bench, path))
        return path

    def _swap(self, bench: Bench, path: Path) -> None:
        if self.swapped:
            return
        self.swapped = True
        found = lying(path)
        self._race.swap(bench)
        # Where it passes all the same: who looked only now, or once more, would get this.
        assert self._race.error or lying(path) != found


def lying(path: Path) -> object:
    """Return what is at a path, for who follows links."""
    if path.is_dir():
        return snapshot(path)
    return path.read_bytes() if path.is_file() else None


def judged(race: Race, patch: pytest.MonkeyPatch, judge: Callable[[Case], None]) -> None:
    """Have a race judged, whose moment has to come."""
    armed = Armed(race, patch)
    judge(Case(race.name, armed, race.error, race.words))
    assert armed.swapped
