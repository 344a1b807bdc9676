from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox_host.cli import doctor
from sandbox_host.errors import ConfinementError
from sandbox_host.model import Layer, LayerReport, LayerStatus
from tests.support.command_line import LocalCommandLine, snapshot


class Machine:
    """A backend that lacks some layers."""

    def __init__(self, *missing: Layer) -> None:
        self._missing = missing

    def offers(self) -> tuple[LayerReport, ...]:
        return tuple(
            LayerReport(layer, LayerStatus.UNAVAILABLE, "kernel too old", "Use a newer kernel.")
            if layer in self._missing
            else LayerReport(layer, LayerStatus.ACTIVE, "fine")
            for layer in Layer
            if layer is not Layer.WATCHDOG
        )


def machine(monkeypatch: pytest.MonkeyPatch, *missing: Layer) -> None:
    monkeypatch.setattr(doctor, "select_backend", lambda: Machine(*missing))


def document(cli: LocalCommandLine, *arguments: object) -> tuple[int, dict[str, Any]]:
    ran = cli("doctor", "--format", "json", *arguments)
    return ran.code, json.loads(ran.out)


def test_a_machine_with_everything(
    cli: LocalCommandLine, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch)
    before = snapshot(cli.home)
    ran = cli("doctor", "--trust-store", store)
    assert (ran.code, ran.err) == (0, "")
    assert "Plugins can be confined here." in ran.out
    for layer in Layer:
        assert layer in ran.out
    code, told = document(cli, "--trust-store", store)
    assert (code, told["confined"], told["loads"], told["missing"]) == (0, True, True, [])
    assert [one["layer"] for one in told["layers"]] == list(Layer)
    assert {one["what"] for one in told["findings"]} == {
        "python",
        "state",
        "trust store",
        "packages",
    }
    assert snapshot(cli.home) == before


def test_a_missing_layer_is_exit_6_with_cause_and_remedy(
    cli: LocalCommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, Layer.LANDLOCK)
    ran = cli("doctor")
    assert ran.code == 6
    assert "kernel too old. Use a newer kernel." in " ".join(ran.out.split())
    assert "missing: landlock" in ran.err
    code, told = document(cli)
    assert (code, told["confined"], told["missing"]) == (6, False, ["landlock"])


def test_unless_the_operator_accepted_it(
    cli: LocalCommandLine, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, Layer.LANDLOCK, Layer.SECCOMP)
    config = cli.home / "host.toml"
    options = ("--config", config, "--trust-store", store)
    config.write_text('accept_missing = ["landlock"]\n')
    code, told = document(cli, *options)
    assert (code, told["missing"]) == (6, ["seccomp"])
    config.write_text('accept_missing = ["landlock", "seccomp"]\n')
    assert document(cli, *options)[0] == 0


def test_what_keeps_every_plugin_from_loading_is_exit_6(
    cli: LocalCommandLine, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch)
    ran = cli("doctor")
    assert ran.code == 6
    assert "Plugins can be confined here, but none will load: trust store." in ran.out
    assert "`sandbox-host trust add` makes it" in " ".join(ran.out.split())
    config = cli.home / "host.toml"
    config.write_text('plugin_environment = "missing"\n')
    store.chmod(0o666)
    ran = cli("doctor", "--config", config, "--trust-store", store)
    assert ran.code == 6
    assert "none will load: trust store, packages." in ran.out
    assert ran.err.startswith("sandbox-host: not usable: trust store, packages. ")
    code, told = document(cli, "--config", config, "--trust-store", store)
    assert (code, told["confined"], told["loads"]) == (6, True, False)


def test_a_system_without_a_backend(cli: LocalCommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Machine:
        raise ConfinementError("not on Plan 9.", layer="backend", remedy="Use Linux.")

    monkeypatch.setattr(doctor, "select_backend", none)
    code, told = document(cli)
    assert code == 6
    assert {one["status"] for one in told["layers"]} == {"unavailable"}
    assert "not on Plan 9." in told["layers"][0]["detail"]


def finding(cli: LocalCommandLine, what: str, *arguments: object) -> dict[str, Any]:
    _, told = document(cli, *arguments)
    (found,) = [one for one in told["findings"] if one["what"] == what]
    return found


def test_the_trust_store(cli: LocalCommandLine, store: Path) -> None:
    assert finding(cli, "trust store")["usable"] is False
    found = finding(cli, "trust store", "--trust-store", store)
    assert found["usable"] is True
    assert "1 key, 0 revocations" in found["detail"]
    store.chmod(0o666)
    found = finding(cli, "trust store", "--trust-store", store)
    assert found["usable"] is False
    assert "chmod go-w" in found["detail"]


def test_the_state_directory(cli: LocalCommandLine) -> None:
    state = cli.home / "there" / "below"
    assert "will be made" in finding(cli, "state", "--state-dir", state)["detail"]
    assert not state.exists()
    state.mkdir(parents=True, mode=0o700)
    assert finding(cli, "state", "--state-dir", state)["usable"] is True
    state.chmod(0o777)
    found = finding(cli, "state", "--state-dir", state)
    assert found["usable"] is False
    assert "chmod go-w" in found["detail"]
    file = cli.home / "file"
    file.write_text("")
    assert finding(cli, "state", "--state-dir", file)["usable"] is False
    assert finding(cli, "state", "--state-dir", file / "below")["usable"] is False


def test_the_plugin_environment(cli: LocalCommandLine) -> None:
    assert "none given" in finding(cli, "packages")["detail"]
    environment = cli.home / "environment"
    (environment / "numpy-2.0.dist-info").mkdir(parents=True)
    found = finding(cli, "packages", "--plugin-environment", environment)
    assert found["usable"] is True
    assert found["detail"].endswith("1 installed")
    (environment / "x.cpython-310-x86_64-linux-gnu.so").write_bytes(b"")
    found = finding(cli, "packages", "--plugin-environment", environment)
    assert found["usable"] is False
    assert "was made for 3.10, this host is" in found["detail"]
