from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import HostConfig
from sandbox_host.cli import doctor
from sandbox_host.errors import ConfinementError
from sandbox_host.guarantees import PROMISES
from sandbox_host.model import FIXED_LAYERS, Guarantee, Layer, LayerReport, LayerStatus
from tests.support.command_line import LocalCommandLine, snapshot

REMEDY = "Use a newer kernel."


def machine(monkeypatch: pytest.MonkeyPatch, *missing: Layer) -> None:
    """Have the doctor find a machine that lacks some layers, and switches off what it is told."""

    def report(layer: Layer, config: HostConfig) -> LayerReport:
        if layer in config.disable_layers:
            return LayerReport(layer, LayerStatus.DISABLED, "by configuration")
        if layer in missing:
            return LayerReport(layer, LayerStatus.UNAVAILABLE, "kernel too old", REMEDY)
        return LayerReport(layer, LayerStatus.ACTIVE, "fine")

    def offers(config: HostConfig) -> tuple[LayerReport, ...]:
        return tuple(report(layer, config) for layer in Layer)

    monkeypatch.setattr(doctor, "machine_offers", offers)


def document(cli: LocalCommandLine, *arguments: object) -> tuple[int, dict[str, Any]]:
    ran = cli("doctor", "--format", "json", *arguments)
    return ran.code, json.loads(ran.out)


@pytest.fixture
def options(cli: LocalCommandLine, store: Path) -> tuple[object, ...]:
    """Options that name a trust store and a configuration, `host.toml`."""
    (cli.home / "host.toml").write_text("")
    return ("--config", cli.home / "host.toml", "--trust-store", store)


def test_a_machine_with_everything(
    cli: LocalCommandLine, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch)
    before = snapshot(cli.home)
    ran = cli("doctor", "--trust-store", store)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith("Plugins can be confined here.\n")
    for name in (*Guarantee, *Layer):
        assert name in ran.out
    code, told = document(cli, "--trust-store", store)
    assert (code, told["confined"], told["loads"], told["missing"]) == (0, True, True, [])
    assert told["attack"] is None
    assert [one["layer"] for one in told["layers"]] == list(Layer)
    assert [one["guarantee"] for one in told["guarantees"]] == list(Guarantee)
    assert [one["promise"] for one in told["guarantees"]] == list(PROMISES.values())
    assert {one["what"] for one in told["findings"]} == {
        "python",
        "state",
        "trust store",
        "packages",
    }
    assert snapshot(cli.home) == before


def test_guarantees_come_first_and_lines_fit_a_terminal(
    cli: LocalCommandLine, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, Layer.OWN_ROOT, Layer.CGROUP)
    out = cli("doctor", "--trust-store", store).out
    order = [out.index(heading) for heading in ("GUARANTEE", "LAYER", "BESIDE THEM", "Plugins can")]
    assert order == sorted(order)
    assert all(len(line) <= 80 for line in out.splitlines() if str(store) not in line)


def test_a_missing_layer_is_no_refusal_where_another_way_keeps_the_promise(
    cli: LocalCommandLine, options: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, Layer.OWN_ROOT)
    ran = cli("doctor", *options)
    assert ran.code == 0
    assert f"kernel too old. {REMEDY}" in " ".join(ran.out.split())
    _, told = document(cli, *options)
    (files,) = [one for one in told["guarantees"] if one["guarantee"] == "files"]
    assert files["status"] == "degraded"
    assert "can be found out" in files["detail"]


def test_a_missing_guarantee_is_exit_6_with_cause_and_remedy(
    cli: LocalCommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, Layer.RLIMITS)
    ran = cli("doctor")
    assert ran.code == 6
    assert f"kernel too old. {REMEDY}" in " ".join(ran.out.split())
    assert "No plugin can be loaded here: cpu, descriptors, disk are missing." in ran.out
    assert "missing: cpu, descriptors, disk" in ran.err
    code, told = document(cli)
    assert (code, told["confined"], told["loads"]) == (6, False, False)
    assert told["missing"] == ["cpu", "descriptors", "disk"]


def test_unless_the_operator_accepted_it(
    cli: LocalCommandLine, options: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, Layer.RLIMITS)
    config = cli.home / "host.toml"
    config.write_text('accept_missing = ["descriptors"]\n')
    code, told = document(cli, *options)
    assert (code, told["missing"], told["accepted_missing"]) == (
        6,
        ["cpu", "disk"],
        ["descriptors"],
    )
    config.write_text('accept_missing = ["descriptors", "cpu", "disk"]\n')
    ran = cli("doctor", *options)
    assert (ran.code, ran.err) == (0, "")
    assert "without cpu, descriptors, disk, as the configuration accepts." in ran.out
    assert ran.out.count("missing, accepted") == 3


@pytest.mark.parametrize("layer", sorted(set(Layer) - FIXED_LAYERS))
def test_a_layer_that_is_switched_off_is_told_and_has_to_be_accepted(
    cli: LocalCommandLine,
    options: tuple[object, ...],
    monkeypatch: pytest.MonkeyPatch,
    layer: Layer,
) -> None:
    machine(monkeypatch)
    config = cli.home / "host.toml"
    config.write_text(f'disable_layers = ["{layer}"]\n')
    code, told = document(cli, *options)
    assert code == 6
    assert layer in told["missing"]
    assert [o["layer"] for o in told["layers"] if o["status"] == "disabled"] == [layer]
    every = ", ".join(f'"{name}"' for name in told["missing"])
    config.write_text(f'disable_layers = ["{layer}"]\naccept_missing = [{every}]\n')
    code, told = document(cli, *options)
    assert (code, told["missing"]) == (0, [])
    assert layer in told["accepted_missing"]
    assert layer in told["conclusion"]


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


def test_a_system_without_a_backend(
    cli: LocalCommandLine, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_: HostConfig) -> tuple[LayerReport, ...]:
        raise ConfinementError("not on Plan 9.", layer="backend", remedy="Use Linux.")

    monkeypatch.setattr(doctor, "machine_offers", none)
    code, told = document(cli, "--trust-store", store)
    assert (code, told["confined"], told["missing"]) == (6, False, list(Guarantee))
    assert [one["layer"] for one in told["layers"]] == list(Layer)
    said = {(one["status"], one["detail"], one["remedy"]) for one in told["layers"]}
    assert said == {("unavailable", "not on Plan 9.", "Use Linux.")}
    out = " ".join(cli("doctor", "--trust-store", store).out.split())
    assert "not on Plan 9. Use Linux." in out
    assert ".. " not in out


def test_a_control_group_that_the_configuration_names(
    cli: LocalCommandLine, options: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = cli.home / "host.toml"
    config.write_text('cgroup = "/sys/fs/cgroup/plugins"\n')
    machine(monkeypatch)
    code, told = document(cli, *options)
    assert (code, told["loads"]) == (0, True)
    assert told["findings"][-1]["detail"] == "/sys/fs/cgroup/plugins: fine"
    machine(monkeypatch, Layer.CGROUP)
    ran = cli("doctor", *options)
    assert ran.code == 6
    assert "here, but not as the configuration says: cgroup." in ran.out
    assert f"/sys/fs/cgroup/plugins: kernel too old. {REMEDY}" in " ".join(ran.out.split())
    assert ran.err.startswith("sandbox-host: not usable: cgroup. ")
    code, told = document(cli, *options)
    assert (code, told["confined"], told["loads"]) == (6, True, True)
    config.write_text('cgroup = "/x"\ndisable_layers = ["cgroup"]\naccept_missing = ["cgroup"]\n')
    code, told = document(cli, *options)
    assert (code, [one["what"] for one in told["findings"]][-1]) == (0, "packages")


def finding(cli: LocalCommandLine, what: str, *arguments: object) -> dict[str, Any]:
    _, told = document(cli, *arguments)
    (found,) = [one for one in told["findings"] if one["what"] == what]
    return found


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with every layer."""
    machine(monkeypatch)


@pytest.mark.usefixtures("complete")
def test_memory_that_cannot_become_code_is_told_and_no_fault(
    cli: LocalCommandLine, options: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MemoryDenyWriteExecute= of a systemd unit."""
    code, told = document(cli, *options)
    assert (code, "native code" in {one["what"] for one in told["findings"]}) == (0, False)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("sandbox_host.cli.doctor.mmap.mmap", refused)
    found = finding(cli, "native code", *options)
    assert "MemoryDenyWriteExecute=" in found["detail"]
    assert cli("doctor", *options).code == 0


@pytest.mark.usefixtures("complete")
def test_the_trust_store(cli: LocalCommandLine, store: Path) -> None:
    assert finding(cli, "trust store")["usable"] is False
    found = finding(cli, "trust store", "--trust-store", store)
    assert found["usable"] is True
    assert "1 key, 0 revocations" in found["detail"]
    store.chmod(0o666)
    found = finding(cli, "trust store", "--trust-store", store)
    assert found["usable"] is False
    assert "chmod go-w" in found["detail"]


@pytest.mark.usefixtures("complete")
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


@pytest.mark.usefixtures("complete")
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
