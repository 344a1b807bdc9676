"""The unit that `sandbox-host unit` prints, under a real systemd where one can be run here."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_host.service.unit import unit_text
from tests.support import ordinary_user, real_systemd
from tests.support.bundles import make_key, signed_plugin, trust_store

SHARED = real_systemd.SHARED
_ADDS = """
from plugin_sdk import operation

@operation
def add(left, right):
    return left + right
"""
_TARGET = """
[Unit]
DefaultDependencies=no
Wants=sandbox-host.service check.service
"""
_CHECK = f"""
[Unit]
DefaultDependencies=no
After=sandbox-host.service
[Service]
Type=oneshot
WorkingDirectory=/tmp
Environment=XDG_STATE_HOME=/var/lib PYTHONPATH={SHARED}/tree
ExecStart=-/bin/sh {SHARED}/check.sh
ExecStopPost=systemctl exit
"""
_CHECKS = """
cd {shared}
facts=ActiveState,SubState,StatusText,NRestarts
show() {{ systemctl show sandbox-host -p $facts --value; }}
show > at-start
{python} -s -m sandbox_host status one --format json > status 2>&1
systemctl reload sandbox-host; echo $? > reloaded
for _ in $(seq 300); do grep -q "read again" log && break; sleep 0.1; done
pid=$(systemctl show sandbox-host -p MainPID --value)
kill -KILL $pid
for _ in $(seq 300); do
    sleep 0.1
    again=$(systemctl show sandbox-host -p MainPID --value)
    state=$(systemctl show sandbox-host -p ActiveState --value)
    [ "$again" != "$pid" ] && [ "$state" = active ] && break
done
show > after-kill
systemctl stop sandbox-host
systemctl show sandbox-host -p ActiveState,Result,ExecMainStatus --value > at-end
"""


def test_systemd_takes_the_unit_as_it_is(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    unit = tmp_path / "sandbox-host.service"
    unit.write_text(unit_text("/bin/true", user="daemon"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """What the machine inside sees: packages, configuration, a plugin, for every user."""
    if why := real_systemd.why_not() or ordinary_user.why_not():
        pytest.skip(why)
    directory = tmp_path / "shared"
    plugins, config = directory / "plugins", directory / "config" / "sandbox-host"
    config.mkdir(parents=True)
    store = trust_store(directory, make_key())
    signed_plugin(plugins / "one", make_key(), {"main.py": _ADDS})
    inside = f"{SHARED}/{store.relative_to(directory)}"
    (config / "config.toml").write_text(
        f'plugin_directory = "{SHARED}/plugins"\ntrust_store = "{inside}"\n'
    )
    with ordinary_user.readable_copy() as copy:
        shutil.copytree(copy / "tree", directory / "tree")
        for path in (directory, *directory.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield directory


@pytest.mark.needs
def test_a_real_systemd_runs_it(shared: Path) -> None:
    """Installed from its unit file: started, ready, reloaded, replaced after SIGKILL, stopped."""
    python = ordinary_user.system_python()
    unit = unit_text(f"{python} -s -m sandbox_host", user="nobody")
    # Its home is not /etc, its modules are nowhere that Python looks, and it writes to files.
    unit = unit.replace(
        "XDG_CONFIG_HOME=/etc", f"XDG_CONFIG_HOME={SHARED}/config PYTHONPATH={SHARED}/tree"
    )
    unit = unit.replace("[Unit]\n", "[Unit]\nDefaultDependencies=no\n")
    unit = unit.replace(
        "[Install]", f"StandardOutput=append:{SHARED}/log\nStandardError=append:{SHARED}/log\n"
    )
    (shared / "check.sh").write_text(_CHECKS.format(shared=SHARED, python=python))
    units = {"sandbox-host.service": unit, "check.service": _CHECK, "test.target": _TARGET}
    real_systemd.run(shared, units, 90)
    log = (shared / "log").read_text() if (shared / "log").exists() else "no log"
    assert (shared / "at-end").exists(), log + (shared / "boot.log").read_text()
    assert told(shared, "at-start") >= {"active", "running", "1 of 1 plugins running", "0"}, log
    # Root asks the service of another user; the plugin is confined as anywhere.
    status = (shared / "status").read_text()
    assert '"state": "ready"' in status, status + log
    assert '"own-root"' in status
    assert '"status": "degraded"' not in status
    assert told(shared, "reloaded") == {"0"}
    assert "configuration read again" in log
    assert told(shared, "after-kill") >= {"active", "running", "1 of 1 plugins running", "1"}, log
    assert told(shared, "at-end") == {"inactive", "success", "0"}, log


# What a unit may add, the layers that doctor misses then, and what it names as the reason.
HARDENED = {
    "ProtectHostname=yes": ({"uts-namespace"}, "ProtectHostname="),
    "RestrictSUIDSGID=yes": ({"own-root"}, "RestrictSUIDSGID="),
    "RestrictNamespaces=yes": (
        {
            *("user-namespace", "pid-namespace", "network-namespace", "ipc-namespace"),
            *("uts-namespace", "cgroup-namespace", "own-root"),
        },
        "RestrictNamespaces=",
    ),
    "SystemCallFilter=~pivot_root sethostname": (
        {"uts-namespace", "own-root"},
        "SystemCallFilter=",
    ),
    "SystemCallFilter=~@privileged": (
        {"uts-namespace", "own-root", "capabilities"},
        "SystemCallFilter=",
    ),
    "MemoryDenyWriteExecute=yes": (set(), "MemoryDenyWriteExecute="),
}
_ONCE = """
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
User=nobody
StateDirectory=s{number}
Environment=XDG_STATE_HOME=/var/lib/s{number} XDG_CONFIG_HOME={shared}/config
Environment=PYTHONPATH={shared}/tree
{option}
WorkingDirectory={shared}
ExecStart=-/bin/sh -c '{program} doctor --format json > out/doctor{number}'
ExecStart=-/bin/sh -c '{program} call plugins/one add 1 2 > out/call{number} 2>&1'
"""
_ALL = """
[Unit]
DefaultDependencies=no
Wants={units}
After={units}
[Service]
Type=oneshot
ExecStart=systemctl exit
"""


_ALL_TARGET = "[Unit]\nDefaultDependencies=no\nWants=check.service\n"


@pytest.mark.needs
@pytest.mark.timeout(120)
def test_doctor_sees_what_a_unit_takes_away_and_names_it(shared: Path) -> None:
    """Plugins load all the same where other layers keep the guarantees, and are refused else."""
    python = ordinary_user.system_python()
    (shared / "out").mkdir()
    (shared / "out").chmod(0o777)
    units = {
        f"hard{number}.service": _ONCE.format(
            number=number,
            option=option,
            program=f"{python} -s -m sandbox_host",
            shared=SHARED,
        )
        for number, option in enumerate(HARDENED)
    }
    all_units = {"test.target": _ALL_TARGET, "check.service": _ALL.format(units=" ".join(units))}
    real_systemd.run(shared, units | all_units, 90)
    for number, (option, (layers, named)) in enumerate(HARDENED.items()):
        diagnosis = json.loads((shared / "out" / f"doctor{number}").read_text())
        reports = {one["layer"]: one for one in diagnosis["layers"]}
        missing = {name for name, one in reports.items() if one["status"] != "active"}
        assert missing - {"own-uid", "cgroup"} == layers, option
        told = " ".join(reports[name]["remedy"] for name in layers)
        told += " ".join(one["detail"] for one in diagnosis["findings"])
        assert named in told, option
        called = (shared / "out" / f"call{number}").read_text()
        assert diagnosis["loads"] == ("capabilities" not in layers), option
        wanted = "3\n" if diagnosis["loads"] else "guarantee kernel-surface"
        assert wanted in called, option


def told(shared: Path, name: str) -> set[str]:
    return set((shared / name).read_text().split("\n")) - {""}
