"""What an operator's policy makes of findings, and the proof for a plan that there was a scan."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal, get_args

from sandbox_host.errors import AdmissionError
from sandbox_host.scan.finding import Finding, Severity, counted, counts
from sandbox_host.scan.rules import RULES_VERSION

RefuseFindings = Literal["none", "low", "medium", "high"]
"""The least severity that refuses a plugin; "none" refuses none, and scans none."""

CHOICES: Final = get_args(RefuseFindings)
_MAX_TOLD: Final = 3


@dataclass(frozen=True, slots=True)
class ScanEvidence:
    """That a plugin was scanned, for its plan and the journal.

    Attributes:
        root_digest: of the files that were scanned.
        rules_version: of the rules.
        policy: the operator's word at that time.
        high: how many findings there are of this severity; `medium` and `low` likewise.
    """

    root_digest: str
    rules_version: int
    policy: RefuseFindings
    high: int
    medium: int
    low: int

    @classmethod
    def of(
        cls, root_digest: str, findings: Collection[Finding], policy: RefuseFindings
    ) -> ScanEvidence:
        """Return the evidence for findings."""
        number = counts(findings)
        return cls(
            root_digest=root_digest,
            rules_version=RULES_VERSION,
            policy=policy,
            high=number[Severity.HIGH],
            medium=number[Severity.MEDIUM],
            low=number[Severity.LOW],
        )

    def __str__(self) -> str:
        return (
            f"{self.high} high, {self.medium} medium, {self.low} low, "
            f"rules {self.rules_version}, refusing {self.policy}"
        )


def refusing(findings: Collection[Finding], policy: RefuseFindings) -> tuple[Finding, ...]:
    """Return the findings that a policy refuses a plugin for."""
    if policy == "none":
        return ()
    return tuple(one for one in findings if one.at_least(Severity(policy)))


def findings_refusal(
    findings: Collection[Finding], policy: RefuseFindings, plugin: str = ""
) -> AdmissionError | None:
    """Return why a plugin is not admitted for what was found in it, or None.

    No findings admit nothing: every other check is made all the same.

    Args:
        findings: all of them.
        policy: the operator's ``refuse_findings``.
        plugin: its identity, for the message.
    """
    grave = refusing(findings, policy)
    if not grave:
        return None
    first = "; ".join(
        f"{one.path!a}, line {one.line}: {one.message} [{one.rule}]" for one in grave[:_MAX_TOLD]
    )
    more = f"; and {len(grave) - _MAX_TOLD} more" if len(grave) > _MAX_TOLD else ""
    return AdmissionError(
        f"{f'Plugin {plugin}' if plugin else 'The plugin'} is not admitted: the scan of its "
        f'sources found what refuse_findings = "{policy}" does not let pass '
        f"({counted(findings)}): {first}{more}.",
        remedy="Review it with `sandbox-host scan`; if it is harmless, and you trust whoever "
        "signed it, set refuse_findings to a higher severity.",
    )


def check_evidence(
    evidence: ScanEvidence | None, root_digest: str, policy: RefuseFindings, plugin: str
) -> None:
    """Refuse a plugin that a policy wants scanned, and that was not, or not as it is now.

    Args:
        evidence: of the scan, or None where there was none.
        root_digest: of the files that are to be admitted.
        policy: the operator's ``refuse_findings``.
        plugin: its identity, for the message.

    Raises:
        AdmissionError: there is no scan of these files under this policy.
    """
    if policy == "none":
        return
    if evidence is None or (evidence.root_digest, evidence.policy) != (root_digest, policy):
        raise AdmissionError(
            f'Plugin {plugin} is not admitted: refuse_findings = "{policy}" wants its sources '
            "scanned, and there is no scan of just these.",
            remedy="Load it through the host, which scans it.",
        )
