"""What an operator's policy makes of findings, and the proof that there was a scan."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest

from sandbox_host.admission.plan import admit
from sandbox_host.admission.policy import Policy
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.verify import VerifiedBundle, verify
from sandbox_host.config import HostConfig
from sandbox_host.errors import AdmissionError, ConfigError
from sandbox_host.model import Layer
from sandbox_host.scan.finding import Confidence, Finding, Severity, counted, in_order
from sandbox_host.scan.rules import RULES_VERSION
from sandbox_host.scan.verdict import ScanEvidence, findings_refusal
from tests.support.bundles import NOW, make_key, signed_contents, trust_store


def finding(severity: Severity, line: int = 1, path: str = "main.py") -> Finding:
    """Return a finding."""
    return Finding("SH201", severity, Confidence.HIGH, path, line, 1, "runs code from text: eval")


EVERY = tuple(finding(severity, line) for line, severity in enumerate(Severity, 1))
REFUSED = {
    ("none", "high"): False,
    ("high", "high"): True,
    ("high", "medium"): False,
    ("medium", "high"): True,
    ("medium", "medium"): True,
    ("medium", "low"): False,
    ("low", "low"): True,
}


@pytest.mark.parametrize(("case", "refused"), REFUSED.items(), ids=map(str, REFUSED))
def test_a_finding_refuses_only_from_the_policy_s_severity_on(
    case: tuple[str, str], refused: bool
) -> None:
    policy, severity = case
    refusal = findings_refusal([finding(Severity(severity))], policy)  # type: ignore[arg-type]
    assert isinstance(refusal, AdmissionError) is refused


def test_no_findings_refuse_nothing() -> None:
    assert findings_refusal((), "low") is None


def test_a_refusal_names_the_first_findings_and_escapes_their_files() -> None:
    many = [finding(Severity.HIGH, line, "a\n.py") for line in range(1, 6)]
    text = str(findings_refusal(many, "high", "sample"))
    assert "Plugin sample is not admitted" in text
    assert "'a\\n.py', line 1: runs code from text: eval [SH201]" in text
    assert "and 2 more" in text
    assert "\n" not in text


def test_findings_are_in_order_and_counted() -> None:
    assert in_order(reversed(EVERY)) == EVERY
    assert counted(EVERY) == "1 high, 1 medium, 1 low"
    assert [one.level for one in EVERY] == ["error", "warning", "note"]


def verified(tmp_path) -> VerifiedBundle:
    """Return a plugin, verified."""
    key = make_key()
    store = TrustStore.load(trust_store(tmp_path, key))
    return verify(signed_contents(key), store, NOW + dt.timedelta(seconds=1))


def test_a_plan_where_findings_may_refuse_carries_the_evidence_of_a_scan(tmp_path) -> None:
    bundle = verified(tmp_path)
    policy = Policy(refuse_findings="high")
    offered = frozenset(Layer)
    evidence = ScanEvidence.of(bundle.root_digest, EVERY, "high")
    assert evidence == ScanEvidence(bundle.root_digest, RULES_VERSION, "high", 1, 1, 1)
    assert admit(bundle, policy, offered, scan=evidence).scan == evidence
    assert admit(bundle, Policy(), offered).scan is None
    others = {
        "none": None,
        "of-other-files": replace(evidence, root_digest="0" * 64),
        "under-another-policy": replace(evidence, policy="low"),
    }
    for other in others.values():
        with pytest.raises(AdmissionError, match="no scan of just these"):
            admit(bundle, policy, offered, scan=other)


def test_the_policy_is_the_operator_s_word() -> None:
    assert Policy.from_config(HostConfig(refuse_findings="medium")).refuse_findings == "medium"
    assert HostConfig().refuse_findings == "none"
    with pytest.raises(ConfigError, match="refuse_findings"):
        HostConfig(refuse_findings="all")
