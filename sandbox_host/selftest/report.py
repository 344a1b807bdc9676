"""Verdicts on attacks. Pure: what was met goes in, a judgement and a sentence come out."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sandbox_host.guarantees import WAYS
from sandbox_host.model import Layer, LayerStatus
from sandbox_host.selftest.collection.registry import SUCCEEDED, Attack, Boundary

if TYPE_CHECKING:
    from sandbox_host.model import Receipt

NOT_MADE = "not made"
"""The outcome of an attack for which no time was left."""


ANSWERS: Final = MappingProxyType(
    {
        Layer.SECCOMP: frozenset({"EPERM", "ENOSYS", "ENOTTY", "OSError", "ValueError"}),
        Layer.LANDLOCK: frozenset({"EACCES"}),
        Layer.OWN_ROOT: frozenset({"ENOENT", "EROFS"}),
        Layer.PID_NAMESPACE: frozenset({"ESRCH"}),
        Layer.RLIMITS: frozenset({"EMFILE", "EFBIG", "ENOSPC", "ENOMEM", "MemoryError"}),
    }
)
"""How a layer answers what it stops, as the collection expects it."""


class Verdict(enum.StrEnum):
    """What one attack has shown."""

    HELD = "held"
    """It succeeds without the sandbox, and inside it met what it has to meet."""
    NOT_STOPPED = "not stopped"
    UNCLEAR = "unclear"
    """It failed inside, but not by what is known to stop it: that proves nothing."""
    ACCEPTED = "accepted"
    """What is known to stop it is not in force here: the machine lacks that layer and another one
    keeps the guarantee, or the operator gave it up by name."""
    NO_CONTROL = "no control"
    """It fails inside as it has to, but this user or machine cannot do it outside either."""
    NOT_MADE = "not made"


@dataclass(frozen=True, slots=True)
class Control:
    """What an attack met without the sandbox.

    Attributes:
        met: `SUCCEEDED`, or the name of an errno or exception.
        ended_by: the signal that ended the attacked parent; 0 for none.
    """

    met: str
    ended_by: int = 0

    def fault(self, attack: Attack) -> str:
        """Return why this is no positive control, or "" where the attack works."""
        if self.met != SUCCEEDED:
            return f"met {self.met}"
        if self.ended_by != attack.ends_parent:
            wanted, got = attack.ends_parent, self.ended_by
            return f"its parent should have ended by signal {wanted}, not {got}"
        return ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attack, made and judged.

    Attributes:
        met: what it met inside.
        expected: what it may meet there.
        control: why there is no positive control, as it was met without the sandbox; "" where
            there is one.
        needs: layers that are known to stop it and are not in force.
    """

    name: str
    boundary: Boundary
    verdict: Verdict
    met: str
    expected: tuple[str, ...]
    control: str = ""
    needs: tuple[str, ...] = ()


def given_up(receipt: Receipt) -> frozenset[Layer]:
    """Return the layers that this operator knowingly does without, by the names in the receipt.

    They are those that are switched off, and those that would keep a guarantee that is missing: a
    plugin runs only where both were accepted.
    """
    off = {one.layer for one in receipt.layers if one.status is LayerStatus.DISABLED}
    lost = (r.guarantee for r in receipt.guarantees if r.status is LayerStatus.UNAVAILABLE)
    would_keep = {layer for guarantee in lost for way in WAYS[guarantee] for layer in way.layers}
    return frozenset(off | (would_keep - set(receipt.active)))


def _lacking(
    attack: Attack, in_force: Collection[str], without: Collection[Layer]
) -> tuple[str, ...]:
    """Return the layers whose absence explains that an attack is not stopped; none: nothing does.

    One that was given up explains it where no other would answer as is expected. One that the
    machine lacks explains it only where the collection says so: the guarantees stand without it.
    """
    needs = tuple(layer for layer in attack.needs if layer not in in_force)
    expected = frozenset(attack.expected)
    found = [layer for layer in ANSWERS if layer in without and ANSWERS[layer] & expected]
    if needs or not expected <= frozenset().union(*(ANSWERS[layer] for layer in found)):
        return needs
    return tuple(found)


def judge(
    name: str,
    attack: Attack,
    control: Control,
    met: str,
    in_force: Collection[str],
    without: Collection[Layer] = (),
) -> Attempt:
    """Judge one attack.

    Args:
        name: what it is called.
        attack: the attack.
        control: what it met without the sandbox.
        met: what it met inside.
        in_force: the layers that confined it.
        without: the layers that the operator gave up, as `given_up` says.
    """
    needs = _lacking(attack, in_force, without)
    fault = control.fault(attack)
    if met == NOT_MADE:
        verdict = Verdict.NOT_MADE
    elif met in attack.expected:
        verdict = Verdict.NO_CONTROL if fault else Verdict.HELD
    elif met == control.met != SUCCEEDED:
        # What is refused inside as it is outside, this machine does not have.
        verdict = Verdict.NO_CONTROL
    elif needs:
        verdict = Verdict.ACCEPTED
    else:
        verdict = Verdict.NOT_STOPPED if met == SUCCEEDED else Verdict.UNCLEAR
    return Attempt(name, attack.boundary, verdict, met, attack.expected, fault, needs)


@dataclass(frozen=True, slots=True)
class Tally:
    """How many attacks of a class, or of all, have which verdict."""

    what: str
    attempted: int
    held: int
    not_stopped: int
    unclear: int
    accepted: int
    no_control: int


def tally(what: str, attempts: Iterable[Attempt]) -> Tally:
    """Count verdicts; those that were not made are not attempted."""
    verdicts = [one.verdict for one in attempts]
    return Tally(
        what,
        attempted=len(verdicts) - verdicts.count(Verdict.NOT_MADE),
        held=verdicts.count(Verdict.HELD),
        not_stopped=verdicts.count(Verdict.NOT_STOPPED),
        unclear=verdicts.count(Verdict.UNCLEAR),
        accepted=verdicts.count(Verdict.ACCEPTED),
        no_control=verdicts.count(Verdict.NO_CONTROL),
    )


@dataclass(frozen=True, slots=True)
class Aftermath:
    """Something that was looked at when the attacks were over.

    Attributes:
        what: what should hold, as a clause.
        holds: whether it does.
        detail: what was seen otherwise.
    """

    what: str
    holds: bool
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """Everything that the attacks on one machine have shown.

    Attributes:
        user: name and number of the user whose host was attacked.
        system: kernel and architecture.
        python: version of the interpreter.
        seconds: how long it took.
        receipt: what confined the attacked plugin.
    """

    user: str
    system: str
    python: str
    seconds: float
    receipt: Receipt
    attempts: tuple[Attempt, ...]
    aftermath: tuple[Aftermath, ...]

    def by_class(self) -> tuple[Tally, ...]:
        """Count verdicts by boundary, in their order."""
        return tuple(
            tally(boundary, (one for one in self.attempts if one.boundary is boundary))
            for boundary in Boundary
        )

    def total(self) -> Tally:
        """Count all verdicts."""
        return tally("all", self.attempts)

    def of(self, *verdicts: Verdict) -> tuple[Attempt, ...]:
        """Return the attempts with one of these verdicts, by class."""
        order = list(Boundary)
        chosen = [one for one in self.attempts if one.verdict in verdicts]
        return tuple(sorted(chosen, key=lambda one: (order.index(one.boundary), one.name)))

    @property
    def holds(self) -> bool:
        """Whether no attack got through, and none was left unclear or not made."""
        bad = self.of(Verdict.NOT_STOPPED, Verdict.UNCLEAR, Verdict.NOT_MADE)
        return not bad and all(one.holds for one in self.aftermath)

    def summary(self) -> str:
        """Return the outcome for somebody who reads nothing else."""
        total = self.total()
        # What works outside is stopped by the sandbox, and not by something else.
        proven = total.attempted - total.no_control
        told = [
            f"{total.attempted} attacks were made in a real plugin by {self.user} on {self.system}."
        ]
        if total.held == proven:
            told.append(f"All {proven} that work here without the sandbox failed inside it.")
        else:
            told.append(f"{total.held} of {proven} failed inside as they have to.")
        if total.not_stopped:
            told.append(f"{total.not_stopped} GOT THROUGH.")
        if total.unclear:
            told.append(f"{total.unclear} failed otherwise than known, which proves nothing.")
        if total.accepted:
            layers = sorted({layer for one in self.of(Verdict.ACCEPTED) for layer in one.needs})
            told.append(
                f"{total.accepted} can be stopped only by layers that are not in force here "
                f"({', '.join(layers)})."
            )
        if total.no_control:
            told.append(
                f"{total.no_control} failed inside too, but cannot be done here without the "
                "sandbox either."
            )
        if missed := len(self.attempts) - total.attempted:
            told.append(f"{missed} WERE NOT MADE: no time was left.")
        told += [f"AFTERWARDS, NOT TRUE: {one.what}." for one in self.aftermath if not one.holds]
        return " ".join(told)
