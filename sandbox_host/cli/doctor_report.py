"""What `doctor` shows of a machine, attacks aside: as tables, and as one document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from sandbox_host.cli.output import clean, print_table, say
from sandbox_host.cli.tables import layer_rows
from sandbox_host.guarantees import PROMISES, standing
from sandbox_host.model import LayerStatus

if TYPE_CHECKING:
    from sandbox_host.config import HostConfig
    from sandbox_host.model import Enforced, GuaranteeReport, LayerReport, Receipt


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing beside the layers.

    Attributes:
        what: what it is.
        usable: whether it can be used.
        detail: what was seen.
        demanded: no plugin loads without it.
    """

    what: str
    usable: bool
    detail: str
    demanded: bool = True


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that was found out, and what follows for plugins.

    Attributes:
        missing: guarantees that nothing keeps here, and layers that are switched off.
        accepted: names among them that the operator accepted.
    """

    guarantees: tuple[GuaranteeReport, ...]
    layers: tuple[LayerReport, ...]
    findings: tuple[Finding, ...]
    missing: tuple[str, ...]
    accepted: frozenset[str]

    @classmethod
    def of(
        cls, config: HostConfig, layers: tuple[LayerReport, ...], findings: tuple[Finding, ...]
    ) -> Self:
        """Judge as admission does: guarantees count, and layers that the operator switched off."""
        active = {r.layer for r in layers if r.status is LayerStatus.ACTIVE}
        guarantees = standing(active)
        off = [r.layer for r in layers if r.status is LayerStatus.DISABLED]
        lost = [r.guarantee for r in guarantees if r.status is LayerStatus.UNAVAILABLE]
        missing = tuple(str(name) for name in (*lost, *off))
        accepted = frozenset(missing) & frozenset(map(str, config.accept_missing))
        return cls(guarantees, layers, findings, missing, accepted)

    @property
    def refused(self) -> list[str]:
        """What is missing and not accepted: it refuses every plugin."""
        return [name for name in self.missing if name not in self.accepted]

    @property
    def unusable(self) -> list[str]:
        """What beside the layers cannot be used, and should be."""
        return [one.what for one in self.findings if not one.usable]

    @property
    def loads(self) -> bool:
        """Whether plugins load."""
        return not self.refused and all(one.usable for one in self.findings if one.demanded)

    def conclusion(self) -> str:
        """Return what follows, as one sentence or two."""
        if refused := self.refused:
            verb = "is" if len(refused) == 1 else "are"
            return f"No plugin can be loaded here: {', '.join(refused)} {verb} missing."
        without = ", ".join(name for name in self.missing if name in self.accepted)
        can = "Plugins can be confined here"
        can += f", without {without}, as the configuration accepts" if without else ""
        if not self.loads:
            return f"{can}, but none will load: {', '.join(self.unusable)}."
        if self.unusable:
            return f"{can}, but not as the configuration says: {', '.join(self.unusable)}."
        return f"{can}."

    def document(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        return {
            "confined": not self.refused,
            "loads": self.loads,
            "missing": self.refused,
            "accepted_missing": [name for name in self.missing if name in self.accepted],
            "guarantees": [guarantee_document(report) for report in self.guarantees],
            "layers": [layer_document(report) for report in self.layers],
            "findings": [
                {"what": one.what, "usable": one.usable, "detail": clean(one.detail)}
                for one in self.findings
            ],
            "conclusion": clean(self.conclusion()),
        }


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print guarantees, layers and findings as tables, and the conclusion."""
    rows = [
        (r.guarantee, _status(r, diagnosis), PROMISES[r.guarantee], r.detail)
        for r in diagnosis.guarantees
    ]
    print_table(("GUARANTEE", "STATUS", "PROMISE", "KEPT BY"), rows)
    say()
    print_table(("LAYER", "STATUS", "FOUND"), layer_rows(diagnosis.layers))
    say()
    print_table(
        ("BESIDE THEM", "USABLE", "FOUND"),
        [(one.what, "yes" if one.usable else "no", one.detail) for one in diagnosis.findings],
    )
    say()
    say(diagnosis.conclusion())


def _status(report: GuaranteeReport, diagnosis: Diagnosis) -> str:
    if report.status is LayerStatus.UNAVAILABLE:
        return "missing, accepted" if report.guarantee in diagnosis.accepted else "missing"
    return str(report.status)


def guarantee_document(report: GuaranteeReport) -> dict[str, str]:
    """Return one guarantee's standing as plain data."""
    return {
        "guarantee": report.guarantee,
        "status": report.status,
        "promise": PROMISES[report.guarantee],
        "detail": clean(report.detail),
    }


def layer_document(report: LayerReport) -> dict[str, str]:
    """Return one layer's standing as plain data."""
    return {
        "layer": report.layer,
        "status": report.status,
        "detail": clean(report.detail),
        "remedy": clean(report.remedy),
    }


def receipt_document(receipt: Receipt) -> dict[str, Any]:
    """Return a receipt as plain data."""
    return {
        "plugin": receipt.plugin,
        "pid": receipt.pid,
        "guarantees": [guarantee_document(report) for report in receipt.guarantees],
        "layers": [layer_document(report) for report in receipt.layers],
        "limits": [_enforced(entry) for entry in receipt.limits],
        "permissions": [_enforced(entry) for entry in receipt.permissions],
    }


def _enforced(entry: Enforced) -> dict[str, str]:
    return {
        "name": entry.name,
        "value": clean(entry.value),
        "mechanism": clean(entry.mechanism),
    }
