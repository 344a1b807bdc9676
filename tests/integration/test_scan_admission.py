"""Findings refuse a plugin where the operator says so, and admit none."""

from __future__ import annotations

import json

import pytest

from sandbox_host import SandboxHost
from sandbox_host.bundle.contents import ENVELOPE_NAME
from sandbox_host.errors import AdmissionError, UnsignedError
from tests.support.host import Workshop

pytestmark = pytest.mark.needs

HARMLESS = {"main.py": "from plugin_sdk import operation\n\n@operation\ndef one():\n    return 1\n"}
SUSPICIOUS = {"main.py": HARMLESS["main.py"] + "\n@operation\ndef two(x):\n    return eval(x)\n"}


def journal(workshop: Workshop) -> list[tuple[str, str]]:
    """Return the events of the journal that are about admission."""
    lines = (workshop.state_dir / "journal.jsonl").read_text().splitlines()
    told = [(line["event"], line["detail"]) for line in map(json.loads, lines)]
    return [one for one in told if one[0] in {"scanned", "admitted", "refused"}]


def test_a_finding_refuses_where_the_operator_says_so(workshop: Workshop) -> None:
    odd = workshop.write(name="odd", files=SUSPICIOUS)
    with SandboxHost.blocking(workshop.config(refuse_findings="high")) as host:
        with pytest.raises(AdmissionError, match=r"'main\.py', line 9: runs code from text: eval"):
            host.load(odd)
        assert host.plugins == {}
    (scanned, scan), (refused, why) = journal(workshop)
    assert (scanned, refused) == ("scanned", "refused")
    assert scan.endswith("1 high, 0 medium, 0 low, rules 1, refusing high")
    assert "SH201" in why


def test_a_finding_refuses_nothing_unless_the_operator_says_so(workshop: Workshop) -> None:
    odd = workshop.write(name="odd", files=SUSPICIOUS)
    with SandboxHost.blocking(workshop.config()) as host:
        assert host.load(odd).call("two", "1 + 1") == 2
    assert [event for event, _ in journal(workshop)] == ["admitted"]


def test_what_is_below_the_operator_s_severity_is_admitted_with_the_evidence(
    workshop: Workshop,
) -> None:
    plain = workshop.write(name="plain", files=HARMLESS)
    with SandboxHost.blocking(workshop.config(refuse_findings="low")) as host:
        assert host.load(plain).call("one") == 1
    assert [event for event, _ in journal(workshop)] == ["scanned", "admitted"]


def test_no_findings_admit_nothing(workshop: Workshop) -> None:
    plain = workshop.write(name="plain", files=HARMLESS)
    (plain / ENVELOPE_NAME).unlink()
    config = workshop.config(refuse_findings="high")
    with SandboxHost.blocking(config) as host, pytest.raises(UnsignedError):
        host.load(plain)
    assert [event for event, _ in journal(workshop)] == ["refused"]
