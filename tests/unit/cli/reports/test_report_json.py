from __future__ import annotations

import dataclasses
import json

from sandbox_host.cli.reports.json_ import render_json
from sandbox_host.cli.reports.model import DifferingFile, Signer
from tests.support.verdicts import GOOD, KEY, STRANGER, TAMPERED, mixed, report


def test_the_document() -> None:
    told = json.loads(render_json(mixed()))
    assert told["schema_version"] == 1
    assert (told["exit_code"], told["trust_store"]) == (1, "/etc/trust.toml")
    assert [(one["verdict"], one["exit_code"]) for one in told["verdicts"]] == [
        ("verified", 0),
        ("tampered", 1),
        ("unsigned", 3),
        ("untrusted", 4),
    ]
    good, tampered, unsigned, foreign = told["verdicts"]
    assert (good["plugin"], good["version"], good["files"]) == ("good", "1.0.0", 2)
    assert good["key"] == KEY
    assert tampered["file"] == {"path": "main.py", "signed": "11" * 32, "found": "22" * 32}
    assert tampered["command"] == "sandbox-host inspect plugins/tampered"
    assert unsigned["file"] is None
    assert unsigned["signers"] == []
    assert foreign["signers"] == [{"key": STRANGER, "signer": "", "scope": []}]


def test_there_may_be_several_signers() -> None:
    both = dataclasses.replace(GOOD, signers=(*GOOD.signers, Signer(STRANGER, "two", ("a",))))
    (one,) = json.loads(render_json(report(both)))["verdicts"]
    assert [signer["key"] for signer in one["signers"]] == [KEY, STRANGER]
    assert (one["key"], one["scope"]) == (KEY, ["weather_*", "good"])


def test_a_file_that_only_one_side_has() -> None:
    added = dataclasses.replace(TAMPERED, file=DifferingFile("x.py", "", "22" * 32))
    (one,) = json.loads(render_json(report(added)))["verdicts"]
    assert one["file"] == {"path": "x.py", "signed": None, "found": "22" * 32}
