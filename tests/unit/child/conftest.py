from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from plugin_sdk.child.faults import Faults
from plugin_sdk.context import install_context


@pytest.fixture(autouse=True)
def _leave_no_plugin_behind() -> Iterator[None]:
    """Undo what loading a plugin does to an interpreter that is meant to load only one."""
    finders, paths, modules = list(sys.meta_path), list(sys.path), set(sys.modules)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    yield
    sys.dont_write_bytecode = writes
    sys.meta_path[:], sys.path[:] = finders, paths
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] in {"sample", "helper_in_environment"}:
            del sys.modules[name]
    install_context(None)


@pytest.fixture(autouse=True)
def reserves_are_given_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A child keeps a descriptor in reserve until it ends; here that would be for ever."""
    made: list[Faults] = []
    original = Faults.__init__

    def remember(self: Faults, *arguments: Any) -> None:
        original(self, *arguments)
        made.append(self)

    monkeypatch.setattr(Faults, "__init__", remember)
    yield
    for faults in made:
        faults._give_reserve()
