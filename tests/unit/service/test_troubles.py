"""Why something in a plugin directory does not run."""

from __future__ import annotations

from pathlib import Path

from sandbox_host.service.troubles import Troubles


def test_of_a_plugin_and_of_its_instances(tmp_path: Path) -> None:
    troubles, one, gone = Troubles(), tmp_path, tmp_path / "gone"
    troubles.add(one, "no luck\x1b", "model@b")
    troubles.add(one, "no city", "model@a")
    troubles.add(gone, "unsigned")
    assert troubles.get(one, "model@a") == "no city"
    assert troubles.get(one) == troubles.get(one, "model@c") == ""
    assert troubles.get(gone, "model@a") == "unsigned"  # of all that lies there
    assert troubles.all() == {str(one): r"model@a: no city model@b: no luck\x1b"}
    assert troubles.get(gone) == ""
    troubles.forget(one, "model@a")
    assert troubles.all() == {str(one): r"model@b: no luck\x1b"}
    troubles.forget(one)
    assert troubles.all() == {}
