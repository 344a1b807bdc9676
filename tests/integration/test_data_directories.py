"""A plugin's own directory, whatever it did there and whoever had it before."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path
from typing import NoReturn

import pytest

from sandbox_host import BlockingPlugin, HostConfig, SandboxHost
from sandbox_host.backends.linux import compile as compile_
from sandbox_host.backends.linux import uids
from sandbox_host.backends.linux.grants import granted_place
from sandbox_host.errors import ConfigError, ConfinementError, SandboxHostError
from sandbox_host.model import Guarantee, Layer
from sandbox_host.runtime import launch
from sandbox_host.runtime.workspace import remove_tree
from tests.support.host import Workshop

pytestmark = pytest.mark.needs("landlock", "seccomp")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")

SOURCE = """
@operation
def write(name, text):
    with open(f"{context().data_dir}/{name}", "w") as file:
        file.write(text)

@operation
def read(name):
    with open(f"{context().data_dir}/{name}") as file:
        return file.read()

@operation
def open_to_all(mode):
    os.chmod(context().data_dir, mode)

@operation
def dig(levels):
    os.chdir(context().data_dir)
    for _ in range(levels):
        os.mkdir("d")
        os.chdir("d")

@operation
def entries(path):
    return sorted(os.listdir(path))
"""


def without_own_uid(workshop: Workshop) -> HostConfig:
    accepted = frozenset({*Guarantee, Layer.OWN_UID})
    return workshop.config(disable_layers=frozenset({Layer.OWN_UID}), accept_missing=accepted)


@pytest.mark.parametrize("mode", [0o777, 0o000, 0o570])
def test_mode_that_the_plugin_changed(workshop: Workshop, mode: int) -> None:
    bundle = workshop.write(SOURCE)
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = host.load(bundle)
        plugin.call("write", "note", "kept")
        plugin.call("open_to_all", mode)
        host.unload("sample")
        assert host.load(bundle).call("read", "note") == "kept"
    assert workshop.data_dir("sample").stat().st_mode & 0o7777 == 0o700


@root_only
def test_range_of_user_ids_that_was_changed(workshop: Workshop) -> None:
    bundle = workshop.write(SOURCE)
    try:
        with SandboxHost.blocking(workshop.config()) as host:
            plugin = host.load(bundle)
            plugin.call("write", "note", "kept")
            plugin.call("dig", 1_500)
        with SandboxHost.blocking(workshop.config(plugin_uids=(90_000, 10))) as host:
            assert host.load(bundle).call("read", "note") == "kept"
        assert workshop.data_dir("sample").stat().st_uid == 90_000
        assert (workshop.data_dir("sample") / "d" / "d").stat().st_uid == 90_000
    finally:
        remove_tree(workshop.data_dir("sample"))


@root_only
@pytest.mark.needs("landlock", "seccomp", "own-uid")
def test_with_a_user_of_its_own_and_without_and_with_one(workshop: Workshop) -> None:
    bundle = workshop.write(SOURCE)
    with SandboxHost.blocking(workshop.config()) as host:
        host.load(bundle).call("write", "first", "1")
    owner = workshop.data_dir("sample").stat().st_uid
    assert owner != 0
    with SandboxHost.blocking(without_own_uid(workshop)) as host:
        plugin = host.load(bundle)
        assert plugin.call("read", "first") == "1"
        plugin.call("write", "second", "2")
        assert workshop.data_dir("sample").stat().st_uid == 0
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = host.load(bundle)
        assert [plugin.call("read", name) for name in ("first", "second")] == ["1", "2"]
        plugin.call("write", "second", "3")


@root_only
@pytest.mark.needs("landlock", "seccomp", "own-uid")
def test_two_hosts_with_one_state_directory(workshop: Workshop) -> None:
    bundles = {name: workshop.write(SOURCE, name=name) for name in ("one", "two", "three", "four")}
    with (
        SandboxHost.blocking(workshop.config()) as first,
        SandboxHost.blocking(workshop.config()) as second,
    ):
        threads = [
            threading.Thread(target=(first, second)[number % 2].load, args=(bundle,))
            for number, bundle in enumerate(bundles.values())
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        owners = {workshop.data_dir(name).stat().st_uid for name in bundles}
    assert len(owners) == 4
    assert 0 not in owners


def _break(workshop: Workshop, how: str) -> None:
    path = workshop.data_dir("sample")
    if how == "nothing may be locked":
        return
    shutil.rmtree(path)
    if how == "a file":
        path.touch()
    elif how == "a link":
        path.symlink_to("/etc")
    else:
        shutil.rmtree(path.parent)


def fail_locking(*_: object) -> NoReturn:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.mark.parametrize("how", ["a file", "a link", "no parent", "nothing may be locked"])
def test_no_error_comes_as_it_was_raised(
    workshop: Workshop, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = workshop.write(SOURCE)
    with SandboxHost.blocking(workshop.config()) as host:
        host.load(bundle)
        host.unload("sample")
        _break(workshop, how)
        with monkeypatch.context() as patched:
            if how == "nothing may be locked":
                if os.geteuid() != 0:
                    pytest.skip("only a host that is root locks")
                patched.setattr(uids, "_locked", fail_locking)
            with pytest.raises(SandboxHostError, match="sample"):
                host.load(bundle)
        if how in {"a file", "a link"}:
            workshop.data_dir("sample").unlink()
        workshop.data_dir("sample").parent.mkdir(exist_ok=True)
        assert host.load(bundle).call("echo", 1) == 1


@pytest.mark.needs("landlock", "seccomp", "own-root")
def test_grant_that_vanishes_meanwhile(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workshop.root / "granted"
    path.mkdir()
    bundle = workshop.write(permissions={"read": [str(path)]})

    def then_remove(*arguments: object, **options: object) -> object:
        place = granted_place(*arguments, **options)  # type: ignore[arg-type]  # handed on
        path.rmdir()
        return place

    monkeypatch.setattr(compile_, "granted_place", then_remove)
    with SandboxHost.blocking(granted(workshop, path)) as host:
        with pytest.raises(ConfinementError, match="was not started") as caught:
            host.load(bundle)
        assert str(path) in str(caught.value)
        assert host.plugins == {}


# -- what a user of its own cannot read ------------------------------------------------------------


@pytest.fixture
def shared(workshop: Workshop) -> Path:
    directory = workshop.root / "shared"
    directory.mkdir()
    directory.chmod(0o755)
    (directory / "file").touch()
    return directory


def granted(workshop: Workshop, path: Path) -> HostConfig:
    return workshop.config(grants={"sample": {"read": [str(path)]}})


@root_only
@pytest.mark.needs("landlock", "seccomp", "own-root", "own-uid")
def test_granted_path_that_the_plugins_user_cannot_read_is_told(
    workshop: Workshop, shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = workshop.write(SOURCE, permissions={"read": [str(shared)]})

    def load(plugin_is: str) -> BlockingPlugin:
        caplog.clear()
        plugin = host.load(bundle)
        assert ("cannot read it with a user id of its own" in caplog.text) is (plugin_is == "kept")
        return plugin

    with SandboxHost.blocking(granted(workshop, shared)) as host:
        assert load("let in").call("entries", str(shared)) == ["file"]
        host.unload("sample")
        shared.chmod(0o750)
        with pytest.raises(SandboxHostError, match="Permission denied"):
            load("kept").call("entries", str(shared))
        assert f"{shared}, it has mode 0750 and belongs to user id 0" in caplog.text


@root_only
@pytest.mark.needs("landlock", "seccomp", "own-uid")
def test_interpreter_that_the_plugins_user_cannot_run(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = workshop.write()
    monkeypatch.setattr(launch, "interpreter_fault", lambda python: "has a library: chmod it")
    with (
        SandboxHost.blocking(workshop.config()) as host,
        pytest.raises(ConfigError, match=r"The interpreter .* has a library: chmod it"),
    ):
        host.load(bundle)
    with SandboxHost.blocking(without_own_uid(workshop)) as host:
        assert host.load(bundle).call("echo", 1) == 1


@root_only
def test_plugin_environment_that_root_made_for_itself(workshop: Workshop) -> None:
    environment = workshop.root / "environment"
    environment.mkdir(mode=0o700)
    config = workshop.config(plugin_environment=environment)
    with pytest.raises(ConfigError, match=rf"chmod -R a\+rX {environment}"):
        SandboxHost.blocking(config).__enter__()
    environment.chmod(0o755)
    with SandboxHost.blocking(config) as host:
        assert host.load(workshop.write()).call("echo", 1) == 1


# -- what cannot be granted ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["state", "state/data", ".", "/proc/sys", "/"])
def test_the_hosts_own_and_the_kernels_cannot_be_granted(workshop: Workshop, name: str) -> None:
    path = os.path.normpath(workshop.root / name)
    bundle = workshop.write(permissions={"read": [path]})
    with SandboxHost.blocking(granted(workshop, Path(path))) as host:
        with pytest.raises(ConfinementError, match=f"granted path {path} cannot be granted"):
            host.load(bundle)
        assert host.plugins == {}
