from __future__ import annotations

from typing import Any

import pytest

from sandbox_host.guarantees import standing
from sandbox_host.model import Layer, LayerReport, LayerStatus, Receipt
from sandbox_host.selftest import arena  # noqa: F401 - fills the collection
from sandbox_host.selftest.collection.registry import ATTACKS, SUCCEEDED, Attack, Boundary
from sandbox_host.selftest.report import (
    ANSWERS,
    NOT_MADE,
    Aftermath,
    AuditReport,
    Control,
    Verdict,
    given_up,
    judge,
)

WORKS = Control(SUCCEEDED)


def attack(**options: Any) -> Attack:
    return Attack(lambda _: None, Boundary.NETWORK, ("EPERM", "ended:memory"), **options)


@pytest.mark.parametrize(
    ("control", "met", "verdict"),
    [
        (WORKS, "EPERM", Verdict.HELD),
        (WORKS, "ended:memory", Verdict.HELD),
        (WORKS, SUCCEEDED, Verdict.NOT_STOPPED),
        (WORKS, "ENOSYS", Verdict.UNCLEAR),
        (WORKS, "ended:crashed", Verdict.UNCLEAR),
        (WORKS, NOT_MADE, Verdict.NOT_MADE),
        (Control("EACCES"), "EPERM", Verdict.NO_CONTROL),
        (Control("ENOSYS"), "ENOSYS", Verdict.NO_CONTROL),
        (Control("EACCES"), SUCCEEDED, Verdict.NOT_STOPPED),
        (Control("EACCES"), "ENOSYS", Verdict.UNCLEAR),
        (Control("EACCES"), NOT_MADE, Verdict.NOT_MADE),
    ],
)
def test_verdicts(control: Control, met: str, verdict: Verdict) -> None:
    judged = judge("x", attack(), control, met, ())
    assert (judged.name, judged.met, judged.verdict) == ("x", met, verdict)
    assert judged.boundary is Boundary.NETWORK
    assert judged.expected == ("EPERM", "ended:memory")


@pytest.mark.parametrize(
    ("met", "in_force", "verdict", "needs"),
    [
        (SUCCEEDED, ("seccomp",), Verdict.ACCEPTED, ("own-root",)),
        ("ENOSYS", ("seccomp",), Verdict.ACCEPTED, ("own-root",)),
        ("EPERM", ("seccomp",), Verdict.HELD, ("own-root",)),
        (SUCCEEDED, ("own-root",), Verdict.NOT_STOPPED, ()),
        ("ENOSYS", ("own-root",), Verdict.UNCLEAR, ()),
        (NOT_MADE, ("seccomp",), Verdict.NOT_MADE, ("own-root",)),
    ],
)
def test_layers_that_an_attack_needs(
    met: str, in_force: tuple[str, ...], verdict: Verdict, needs: tuple[str, ...]
) -> None:
    judged = judge("x", attack(needs=("own-root",)), WORKS, met, in_force)
    assert (judged.verdict, judged.needs) == (verdict, needs)


@pytest.mark.parametrize(
    ("expected", "without", "verdict", "needs"),
    [
        (("EPERM",), {Layer.SECCOMP}, Verdict.ACCEPTED, ("seccomp",)),
        (("EPERM", "OSError"), {Layer.SECCOMP}, Verdict.ACCEPTED, ("seccomp",)),
        # The namespace is in force, and has to answer.
        (("EPERM", "ESRCH"), {Layer.SECCOMP}, Verdict.NOT_STOPPED, ()),
        (
            ("EPERM", "ESRCH"),
            {Layer.SECCOMP, Layer.PID_NAMESPACE},
            Verdict.ACCEPTED,
            ("seccomp", "pid-namespace"),
        ),
        (("EACCES", "ENOENT"), {Layer.LANDLOCK}, Verdict.NOT_STOPPED, ()),
        (
            ("EACCES", "ENOENT"),
            {Layer.LANDLOCK, Layer.OWN_ROOT},
            Verdict.ACCEPTED,
            ("landlock", "own-root"),
        ),
        (("EMFILE",), {Layer.RLIMITS, Layer.SECCOMP}, Verdict.ACCEPTED, ("rlimits",)),
        # The watchdog is always in force.
        (("MemoryError", "ended:memory"), {Layer.RLIMITS}, Verdict.NOT_STOPPED, ()),
        (("EPERM",), {Layer.UTS_NAMESPACE}, Verdict.NOT_STOPPED, ()),
        (("EPERM",), set(), Verdict.NOT_STOPPED, ()),
    ],
)
def test_a_layer_that_was_given_up_explains_only_what_it_alone_stops(
    expected: tuple[str, ...], without: set[Layer], verdict: Verdict, needs: tuple[str, ...]
) -> None:
    one = Attack(lambda _: None, Boundary.NETWORK, expected)
    in_force = set(Layer) - without
    judged = judge("x", one, WORKS, SUCCEEDED, in_force, without)
    assert (judged.verdict, judged.needs) == (verdict, needs)
    assert judge("x", one, WORKS, expected[0], in_force, without).verdict is Verdict.HELD


def receipt(disabled: set[Layer], missing: set[Layer]) -> Receipt:
    def status(layer: Layer) -> LayerStatus:
        if layer in disabled:
            return LayerStatus.DISABLED
        return LayerStatus.UNAVAILABLE if layer in missing else LayerStatus.ACTIVE

    layers = tuple(LayerReport(layer, status(layer), "") for layer in Layer)
    return Receipt("hostile", 1, layers, standing(set(Layer) - disabled - missing))


def test_what_the_operator_gave_up() -> None:
    assert given_up(receipt(set(), set())) == set()
    assert given_up(receipt({Layer.UTS_NAMESPACE}, set())) == {Layer.UTS_NAMESPACE}
    # No guarantee is lost with Landlock: nobody accepted anything.
    assert given_up(receipt(set(), {Layer.LANDLOCK})) == set()
    assert given_up(receipt(set(), {Layer.SECCOMP})) == {Layer.SECCOMP}


def test_every_answer_is_one_that_the_collection_expects() -> None:
    expected = {word for one in ATTACKS.values() for word in one.expected}
    assert frozenset().union(*ANSWERS.values()) <= expected


def test_a_control_that_ends_another_process_has_to() -> None:
    deadly = attack(ends_parent=15)
    assert Control(SUCCEEDED, 15).fault(deadly) == ""
    assert "signal 15, not 0" in Control(SUCCEEDED).fault(deadly)
    assert "signal 0, not 9" in Control(SUCCEEDED, 9).fault(attack())
    assert Control("EPERM").fault(attack()) == "met EPERM"


def report(*outcomes: tuple[str, str], control: Control = WORKS, **changes: Any) -> AuditReport:
    attacks = {
        name: attack(needs=("own-root",)) if name.startswith("needs") else attack()
        for name, _ in outcomes
    }
    given: dict[str, Any] = {
        "user": "somebody (uid 7)",
        "system": "Linux 9",
        "python": "3.11",
        "seconds": 1.0,
        "receipt": Receipt("hostile", 1, ()),
        "attempts": tuple(judge(name, attacks[name], control, met, ()) for name, met in outcomes),
        "aftermath": (Aftermath("all is quiet", True),),
    }
    return AuditReport(**{**given, **changes})


def test_all_held() -> None:
    told = report(("a", "EPERM"), ("b", "EPERM"))
    assert told.holds
    assert told.summary() == (
        "2 attacks were made in a real plugin by somebody (uid 7) on Linux 9. "
        "All 2 that work here without the sandbox failed inside it."
    )
    assert [one.what for one in told.by_class()] == list(Boundary)
    assert sum(one.held for one in told.by_class()) == told.total().held == 2


@pytest.mark.parametrize(
    ("met", "said"),
    [
        (SUCCEEDED, "1 of 2 failed inside as they have to. 1 GOT THROUGH."),
        ("ENOSYS", "1 failed otherwise than known, which proves nothing."),
        (NOT_MADE, "1 WERE NOT MADE: no time was left."),
    ],
)
def test_one_that_did_not_hold(met: str, said: str) -> None:
    told = report(("a", "EPERM"), ("b", met))
    assert not told.holds
    assert said in told.summary()


def test_one_that_is_not_made_is_not_attempted() -> None:
    told = report(("a", "EPERM"), ("b", NOT_MADE)).total()
    assert (told.attempted, told.held) == (1, 1)


def test_what_is_accepted_holds_and_is_told() -> None:
    told = report(("a", "EPERM"), ("needs_a_root", SUCCEEDED))
    assert told.holds
    assert "1 can be stopped only by layers that are not in force here (own-root)." in (
        told.summary()
    )


def test_what_has_no_control_holds_and_is_told() -> None:
    told = report(("a", "EPERM"), control=Control("EACCES"))
    assert told.holds
    assert "All 0 that work here" in told.summary()
    assert "1 failed inside too, but cannot be done here" in told.summary()


def test_an_aftermath_that_does_not_hold() -> None:
    told = report(("a", "EPERM"), aftermath=(Aftermath("all is quiet", False, "a noise"),))
    assert not told.holds
    assert told.summary().endswith("AFTERWARDS, NOT TRUE: all is quiet.")


def test_chosen_ones_are_in_the_order_of_classes() -> None:
    told = report(("z", SUCCEEDED), ("a", SUCCEEDED), ("b", "EPERM"))
    assert [one.name for one in told.of(Verdict.NOT_STOPPED, Verdict.HELD)] == ["a", "b", "z"]
    assert told.of(Verdict.ACCEPTED) == ()
