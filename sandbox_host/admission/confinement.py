"""Which layers confine a plugin here, and whether they keep every guarantee; pure.

A layer that the machine lacks is no refusal by itself: another way may keep the guarantees. What is
refused is a guarantee that nothing keeps, and a layer that the operator switched off, unless the
operator accepted either by its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox_host.errors import ConfinementError
from sandbox_host.guarantees import PROMISES, WAYS, restricted, standing
from sandbox_host.model import Guarantee, GuaranteeReport, Layer, LayerStatus

if TYPE_CHECKING:
    from sandbox_host.admission.policy import Policy


@dataclass(frozen=True, slots=True)
class Confinement:
    """The part of a plan that is about confinement.

    Attributes:
        layers: to be applied, in their order.
        disabled: switched off by the operator, who accepted that by name.
        accepted_missing: guarantees that nothing keeps here, accepted by name.
        notes: what the operator should be told of it at every load.
    """

    layers: tuple[Layer, ...]
    disabled: tuple[Layer, ...]
    accepted_missing: tuple[Guarantee, ...]
    notes: tuple[str, ...]


def confine(
    identity: str,
    policy: Policy,
    offered: frozenset[Layer],
    required: frozenset[Guarantee] = frozenset(Guarantee),
) -> Confinement:
    """Decide what confines a plugin, or refuse it.

    Args:
        identity: the plugin's, for the refusal's text.
        policy: what the operator switched off and accepted.
        offered: layers that are active on this machine.
        required: guarantees that have to be kept unless the operator accepted their absence.

    Raises:
        ConfinementError: a layer is switched off, or a required guarantee missing, and that was
            not accepted by name. All of them are told; ``layer`` is the first.
    """
    in_force = offered - policy.disabled
    disabled = tuple(layer for layer in Layer if layer in policy.disabled)
    lost = tuple(r for r in standing(in_force) if r.status is LayerStatus.UNAVAILABLE)
    accepted = policy.accept_missing
    refused_layers = [layer for layer in disabled if layer not in accepted]
    refused = [r for r in lost if r.guarantee in required and r.guarantee not in accepted]
    if refused_layers or refused:
        raise _refusal(identity, policy, refused_layers, refused)
    without = tuple(r for r in lost if r.guarantee in accepted)
    notes = [f"layer {layer} is switched off, and the operator accepted that" for layer in disabled]
    notes += [f"{_missing(report)}; the operator accepted that" for report in without]
    notes += [
        f"guarantee {report.guarantee} is kept with a restriction, by {report.detail}"
        for report in restricted(in_force)
    ]
    return Confinement(
        layers=tuple(layer for layer in Layer if layer in in_force),
        disabled=disabled,
        accepted_missing=tuple(report.guarantee for report in without),
        notes=tuple(notes),
    )


def _missing(report: GuaranteeReport) -> str:
    promise = PROMISES[report.guarantee]
    return f"guarantee {report.guarantee} ({promise}) is missing: it {report.detail}"


def _refusal(
    identity: str, policy: Policy, layers: list[Layer], reports: list[GuaranteeReport]
) -> ConfinementError:
    told = [f"layer {layer} is switched off by disable_layers" for layer in layers]
    told += [_missing(report) for report in reports]
    return ConfinementError(
        f"Plugin {identity} is not admitted: {'; '.join(told)}.",
        layer=layers[0] if layers else reports[0].guarantee,
        remedy=_remedy(policy, layers, [report.guarantee for report in reports]),
    )


def _remedy(policy: Policy, layers: list[Layer], guarantees: list[Guarantee]) -> str:
    would_help = {layer for one in guarantees for way in WAYS[one] for layer in way.layers}
    switched = policy.disabled & (would_help | set(layers))
    steps = []
    if switched:
        names = ", ".join(layer for layer in Layer if layer in switched)
        steps.append(f"Remove {names} from disable_layers in the host's TOML.")
    if guarantees:
        steps.append("Run sandbox-host doctor to see what this machine offers, and why not more.")
    # The line replaces the one that is there, so it names what was accepted before as well.
    every = {*layers, *guarantees} | policy.accept_missing
    line = ", ".join(f'"{name}"' for name in (*Layer, *Guarantee) if name in every)
    steps.append(f"To do without knowingly, write in the host's TOML: accept_missing = [{line}].")
    return " ".join(steps)
