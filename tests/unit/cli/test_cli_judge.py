from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_host.bundle.contents import Contents
from sandbox_host.bundle.envelope import Envelope, Signature, render_envelope
from sandbox_host.cli.candidates import Candidate
from sandbox_host.cli.exits import Exit
from sandbox_host.cli.judge import claimed_signers, judge, refused_path
from sandbox_host.cli.reports.model import VERIFIED, Signer
from sandbox_host.errors import BundleError
from tests.support.bundles import NOW, make_key, signed_plugin, store_of

KEY = make_key(1)


def test_the_first_differing_file_is_told_apart_from_the_text(tmp_path: Path) -> None:
    directory = signed_plugin(tmp_path / "sample", KEY, {"a.py": "1", "b.py": "2"})
    candidate = Candidate(directory, "plugin.json")
    assert judge(candidate, store_of(KEY), NOW).code == VERIFIED
    (directory / "b.py").write_text("changed")
    (directory / "a.py").unlink()
    verdict = judge(candidate, store_of(KEY), NOW)
    assert verdict.file is not None
    assert (verdict.file.path, verdict.file.found) == ("a.py", "")
    assert verdict.file.signed in verdict.reason
    assert [one.key for one in verdict.signers] == [KEY.key_id]


def test_of_a_bad_signature_no_file_is_blamed(tmp_path: Path) -> None:
    directory = signed_plugin(tmp_path / "sample", KEY)
    (directory / "__init__.py").write_text("changed")
    envelope = Envelope(b"{}", (Signature(KEY.key_id, bytes(64)),))
    (directory / "plugin.dsse.json").write_bytes(render_envelope(envelope))
    verdict = judge(Candidate(directory), store_of(KEY), NOW)
    assert (verdict.code, verdict.file) == ("tampered", None)


@pytest.mark.parametrize("envelope", [None, b"", b"{}", b"\xff"], ids=ascii)
def test_without_a_well_formed_envelope_nobody_is_claimed(envelope: bytes | None) -> None:
    assert claimed_signers(Contents({}, envelope, "memory"), store_of(KEY)) == ()
    assert claimed_signers(None, store_of(KEY)) == ()


def test_a_claim_names_what_the_store_says_and_no_more() -> None:
    signatures = (Signature(KEY.key_id, bytes(64)), Signature("somebody's", bytes(64)))
    envelope = render_envelope(Envelope(b"{}", signatures))
    claimed = claimed_signers(Contents({}, envelope, "memory"), store_of(KEY, patterns=["a*"]))
    assert claimed == (
        Signer(KEY.key_id, "test key (publisher)", ("a*",)),
        Signer("somebody's"),
    )


def test_a_path_without_a_plugin_is_a_verdict_too() -> None:
    verdict = refused_path(Path("x"), BundleError("nothing there.", remedy="Look."))
    assert (verdict.path, verdict.code, verdict.exit_code) == ("x", "bundle", Exit.REFUSED)
    assert (verdict.reason, verdict.remedy, verdict.command) == ("nothing there.", "Look.", "")
