from __future__ import annotations

import dataclasses

from sandbox_host.cli.reports.model import DifferingFile, Signer
from sandbox_host.cli.reports.text import render_text
from tests.support.verdicts import FOREIGN, GOOD, KEY, STRANGER, TAMPERED, mixed, report


def test_a_tampered_plugin_names_file_hashes_key_scope_and_the_next_command() -> None:
    text = render_text(report(TAMPERED))
    assert text.splitlines() == [
        "plugins/tampered: NOT VERIFIED (tampered)",
        f"  reason      {TAMPERED.reason}",
        "  file        main.py",
        f"  signed      {'11' * 32}",
        f"  found       {'22' * 32}",
        f"  claims key  {KEY}",
        "  which is    weather team (publisher)",
        "  for         weather_*",
        "  next        Get the bundle again.",
        "  command     sandbox-host inspect plugins/tampered",
    ]


def test_a_key_that_nobody_knows_has_neither_label_nor_scope() -> None:
    text = render_text(report(FOREIGN))
    assert f"claims key  {STRANGER}" in text
    assert "which is" not in text
    unnamed = dataclasses.replace(FOREIGN, signers=(Signer(""),))
    assert "claims key  none" in render_text(report(unnamed))


def test_every_signer_of_a_verified_plugin_is_named() -> None:
    second = Signer(STRANGER, "release manager (publisher)", ("*",))
    both = dataclasses.replace(
        GOOD, signers=(*GOOD.signers, second), disregarded=("the key x is unknown",)
    )
    text = render_text(report(both))
    for shown in (KEY, "weather_*, good", STRANGER, "release manager (publisher)"):
        assert shown in text
    assert "not counted the key x is unknown" in text
    assert "0d" * 32 in text


def test_a_file_that_only_one_side_has() -> None:
    added = dataclasses.replace(TAMPERED, file=DifferingFile("x.py", "", "22" * 32))
    removed = dataclasses.replace(TAMPERED, file=DifferingFile("x.py", "11" * 32, ""))
    assert "signed      not signed: the file was added" in render_text(report(added))
    assert "found       nothing: the file is not there" in render_text(report(removed))


def test_several_plugins_are_counted() -> None:
    assert render_text(mixed()).endswith(f"\n\n{mixed().summary}\n")
    assert mixed().summary not in render_text(report(GOOD))
