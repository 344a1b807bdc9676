from __future__ import annotations

import itertools

import pytest

from sandbox_host import errors
from sandbox_host.cli.exits import Exit, exit_for, worst

TABLE = [
    (errors.BundleError("x"), 1),
    (errors.ManifestError("x"), 1),
    (errors.VerificationError("x"), 1),
    (errors.AdmissionError("x"), 1),
    (errors.PluginDisabledError("x"), 1),
    (errors.OperationError("x", plugin="p"), 1),
    (errors.PluginEndedError("x", plugin="p", cause="crashed"), 1),
    (errors.StartError("x", plugin="p"), 1),
    (errors.UsageError("x"), 2),
    (errors.UnsignedError("x"), 3),
    (errors.UntrustedError("x"), 4),
    (errors.RollbackError("x"), 5),
    (errors.EquivocationError("x"), 5),
    (errors.ClockError("x"), 5),
    (errors.HeldError("x", plugin="p", changes=()), 1),
    (errors.HistoryError("x"), 6),
    (errors.TrustStoreError("x"), 6),
    (errors.PassphraseError("x"), 6),
    (errors.ConfigError("x"), 6),
    (errors.ConfinementError("x", layer="landlock"), 6),
    (errors.AttestationError("x"), 6),
    (errors.JournalError("x"), 6),
]


@pytest.mark.parametrize(("error", "code"), TABLE, ids=lambda v: type(v).__name__)
def test_every_error_has_its_exit_code(error: errors.SandboxHostError, code: int) -> None:
    assert exit_for(error) == code


def test_no_error_of_the_tree_is_without_an_exit_code() -> None:
    tree = [v for v in vars(errors).values() if isinstance(v, type)]
    for kind in tree:
        assert exit_for(kind.__new__(kind)) in {1, 2, 3, 4, 5, 6}


def test_the_gravest_verdict_wins_in_any_order() -> None:
    by_weight = [Exit.REFUSED, Exit.UNTRUSTED, Exit.UNSIGNED, Exit.OK]
    for count in range(1, 5):
        for some in itertools.permutations(by_weight, count):
            assert worst(some) is min(some, key=by_weight.index)
