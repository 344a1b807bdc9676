"""What the fuzzer found worth keeping, once more: the inputs that reach the most code."""

from __future__ import annotations

import pytest

from tests.fuzz.targets import TARGETS, kept


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_found(target: str) -> None:
    inputs = kept(target)
    assert inputs
    for data in inputs:
        TARGETS[target](data)
