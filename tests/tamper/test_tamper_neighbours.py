"""What stands beside a verified plugin: others of its name, other users, modules in front of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_host import HostConfig, SandboxHost
from sandbox_host.errors import AlreadyLoadedError, MetadataMismatchError, UntrustedError
from tests.support.bundles import signed_contents, store_text
from tests.support.forgeries import KEY, OTHER_KEY
from tests.support.tampering import EVIL, FILES, GOOD, TRUST, Bench

pytestmark = [pytest.mark.timeout(60), pytest.mark.needs("landlock", "seccomp")]


def test_two_names_of_one_plugin(bench: Bench) -> None:
    bench.reset()
    bench.host.load(bench.plugin)
    twin = bench.put(signed_contents(KEY, FILES, name="Sample"), bench.scene / "twin")
    with pytest.raises(AlreadyLoadedError, match="sample is loaded already"):
        bench.host.load(twin)
    assert bench.host.plugin("Sample").call("who") == "signed"
    bench._unload()


def test_a_plugin_that_is_not_what_it_is_signed_as(bench: Bench) -> None:
    bench.reset()
    files = dict(GOOD.files)
    files["__init__.py"] = files["__init__.py"].replace(b"1.0.0", b"2.0.0")
    bench.put(signed_contents(KEY, {**files}))
    with pytest.raises(MetadataMismatchError, match="version"):
        bench.host.load(bench.plugin)
    assert bench.host.plugins == {}


def test_a_key_that_is_revoked_while_the_host_runs(bench: Bench) -> None:
    bench.reset()
    assert bench.answer_of(bench.plugin) == "signed"
    bench.write_trust(store_text(OTHER_KEY))
    assert "is not in" in bench.refusal_of(bench.plugin, UntrustedError)
    bench.write_trust(TRUST)
    assert bench.answer_of(bench.plugin) == "signed"


def test_modules_of_the_same_names_elsewhere(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Working directory, Python's variables, plugin environment: none stands in front."""
    bench.reset()
    evil = tmp_path / "evil"
    for name in ("sample", "plugin_sdk", "msgpack", "helper"):
        (evil / name).mkdir(parents=True)
        (evil / name / "__init__.py").write_text("raise SystemExit('evil')")
        (evil / name / "helper.py").write_text(EVIL)
    for name in ("sitecustomize.py", "usercustomize.py", "json.py"):
        (evil / name).write_text("raise SystemExit('evil')")
    ran = subprocess.run(
        [sys.executable, "-c", "import sample"],
        cwd=evil,
        env={"PYTHONPATH": str(evil)},
        capture_output=True,
        check=False,
    )
    assert b"evil" in ran.stderr  # without a sandbox they do
    for variable in ("PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONPYCACHEPREFIX"):
        monkeypatch.setenv(variable, str(evil))
    monkeypatch.chdir(evil)
    config = HostConfig(
        trust_store=bench.trust, state_dir=tmp_path / "state", plugin_environment=evil
    )
    with SandboxHost.blocking(config) as host:
        assert host.load(bench.plugin).call("who") == "signed"


OVERWRITE = """
import os
from plugin_sdk import operation
from . import helper

@operation
def overwrite():
    told = []
    for do in (
        lambda: open(helper.__file__, "w"),
        lambda: os.unlink(helper.__file__),
        lambda: os.rename(os.path.dirname(__file__), os.path.dirname(__file__) + "2"),
        lambda: open(os.path.dirname(__file__) + "/evil.py", "w"),
        lambda: os.chmod(helper.__file__, 0o666),
        lambda: os.symlink("/", os.path.dirname(__file__) + "/x"),
    ):
        try:
            do()
            told.append("done")
        except OSError as error:
            told.append("refused")
    return told
"""


def test_nobody_swaps_files_of_the_private_copy(bench: Bench) -> None:
    """Neither the plugin itself nor, where the host is root, another user of the machine."""
    bench.reset()
    bench.put(signed_contents(KEY, {**FILES, "main.py": OVERWRITE}))
    plugin = bench.host.load(bench.plugin)
    package = plugin._process.places.package_dir
    assert plugin.call("overwrite") == ["refused"] * 6
    found = {path.name: path.read_bytes() for path in package.iterdir() if path.is_file()}
    if os.geteuid() == 0:
        attack = "import os, sys; os.unlink(sys.argv[1])"
        for target in (package / "helper.py", package.parent.parent / "x"):
            ran = subprocess.run(
                ["/usr/bin/env", "python3", "-c", attack, str(target)],
                user=65_534,
                group=65_534,
                extra_groups=[],
                capture_output=True,
                check=False,
            )
            assert b"PermissionError" in ran.stderr, ran.stderr
    assert found == {p.name: p.read_bytes() for p in package.iterdir() if p.is_file()}
    assert found["helper.py"] == FILES["helper.py"].encode()
    bench._unload()
