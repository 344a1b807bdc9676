"""What may be granted for reading and writing: files, not the kernel and not the host itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox_host.backends.base import Places
from sandbox_host.backends.linux import grants, procfs
from sandbox_host.backends.linux.grants import granted_place
from sandbox_host.backends.linux.landlock import READ, WRITE, Place
from sandbox_host.errors import ConfinementError
from sandbox_host.runtime.launch import base_python

ROOT_LINE = "1 0 8:1 / / rw - ext4 /dev/a rw"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    state = tmp_path / "state"
    (state / "data" / "sample").mkdir(parents=True)
    run = state / "run" / "1"
    return Places(
        python=base_python(),
        sdk_dir=run / "sdk",
        package_dir=run / "bundles" / "sample",
        data_dir=state / "data" / "sample",
        scratch_dir=run / "scratch",
        canary=run / "canary",
    )


def refused(path: str | Path, places: Places, *, write: bool = False) -> str:
    with pytest.raises(ConfinementError) as caught:
        granted_place(str(path), places, write=write)
    assert caught.value.remedy
    return str(caught.value)


def identity(path: str | Path) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def test_directory_and_file(tmp_path: Path, places: Places) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "file").touch()
    shared = str(tmp_path / "shared")
    for write, rights in ((False, READ), (True, WRITE)):
        assert granted_place(shared, places, write=write) == Place(
            shared, rights, is_directory=True, identity=identity(shared)
        )
        assert granted_place(f"{shared}/file", places, write=write) == Place(
            f"{shared}/file", rights, is_directory=False, identity=identity(f"{shared}/file")
        )
    assert granted_place(f"/{shared}/", places).path == shared


def test_links_and_missing_paths_are_told_apart(tmp_path: Path, places: Places) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").touch()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")
    told = refused(tmp_path / "link" / "file", places)
    assert f"{tmp_path}/link is a link to real" in told
    assert f"Grant {tmp_path}/real/file instead" in told
    assert "is a link to nowhere" in refused(tmp_path / "dangling", places)
    assert "there is nothing of that name" in refused(tmp_path / "missing", places)
    assert "an absolute path" in refused("real", places)
    assert "below cannot be reached: Not a directory" in refused(
        tmp_path / "real" / "file" / "below", places
    )
    assert "cannot be reached: File name too long" in refused(tmp_path / ("n" * 256), places)


def test_names_of_255_bytes_and_twins(tmp_path: Path, places: Places) -> None:
    for name in ("n" * 255, "Data"):
        (tmp_path / name).mkdir()
        assert granted_place(f"{tmp_path}/{name}", places).identity == identity(tmp_path / name)
    for name in ("n" * 254, "N" * 255, "data"):
        assert "there is nothing of that name" in refused(tmp_path / name, places)


def test_dots_lead_where_they_say(tmp_path: Path, places: Places) -> None:
    """Parsing lets none through; here they are not followed in the file system."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "state")
    assert granted_place(f"{tmp_path}/b/../a", places).path == f"{tmp_path}/a"


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
@pytest.mark.parametrize("kind", ["socket", "fifo"])
def test_what_is_no_file(
    tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch, kind: str, write: bool
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket has a limit
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "socket":
            listener.bind("it")
        else:
            os.mkfifo("it")
        told = refused(tmp_path / "it", places, write=write)
    assert "it is a socket, a FIFO or a device" in told


def test_what_is_granted_is_what_stood_there_then(tmp_path: Path, places: Places) -> None:
    path = tmp_path / "shared"
    path.mkdir()
    place = granted_place(str(path), places)
    path.rename(tmp_path / "old")
    path.mkdir()
    assert place.identity == identity(tmp_path / "old") != identity(path)


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
@pytest.mark.parametrize("where", ["etc", "etc/trust.toml", "etc/keys", "etc/keys/a.pem", "above"])
def test_nothing_of_the_hosts_configuration(
    tmp_path: Path, places: Places, where: str, write: bool
) -> None:
    etc = tmp_path / "above" / "etc"
    (etc / "keys").mkdir(parents=True)
    for name in ("trust.toml", "keys/a.pem", "other"):
        (etc / name).touch()
    (tmp_path / "link").symlink_to(etc / "keys")
    places = replace(places, private=(etc / "trust.toml", tmp_path / "link", etc / "missing"))
    path = tmp_path / "above" / where if where != "above" else tmp_path / "above"
    assert "of the host's configuration, trust store and keys" in refused(path, places, write=write)
    assert granted_place(str(etc / "other"), places, write=write)


RUN = {
    "the interpreter": lambda places: places.python,
    "its library": lambda _: Path(os.__file__).resolve().parent / "encodings",
    "above its library": lambda _: Path(os.__file__).resolve().parents[2],
    "a library beside": lambda _: Path("/usr/local/lib"),
    "the host": lambda _: Path(grants.__file__),
    "above the host": lambda _: Path(grants.__file__).parents[3],
    "the SDK": lambda _: Path(grants.__file__).parents[3] / "plugin_sdk" / "wire",
    "packages of the host": lambda _: Path(pytest.__file__).parent,
    "a bundle": lambda places: places.code[0],
    "in a bundle": lambda places: places.code[0] / "main.py",
    "above a bundle": lambda places: places.code[0].parent,
    "the plugin environment": lambda places: places.plugin_environment,
    "in it": lambda places: places.plugin_environment / "numpy",
    "the home directory": lambda _: Path.home(),
    "above it": lambda _: Path.home().parent,
}


@pytest.mark.parametrize("what", RUN)
def test_what_is_run_is_not_written(
    tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    home = tmp_path / "homes" / "me"
    (home / "data").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "plugins" / "sample").mkdir(parents=True)
    (tmp_path / "plugins" / "sample" / "main.py").touch()
    (tmp_path / "env" / "numpy").mkdir(parents=True)
    code = (tmp_path / "plugins" / "sample",)
    places = replace(places, plugin_environment=tmp_path / "env", code=code)
    path = Path(os.path.realpath(RUN[what](places)))
    if path == Path("/") or not path.exists():
        pytest.skip("there is none here, or it is the root, which is refused by itself")
    told = refused(path, places, write=True)
    assert "which the host or a plugin runs" in told or "looks for what it runs" in told
    assert granted_place(str(home / "data"), places, write=True)


def test_where_the_host_looks_for_modules_is_not_written(
    tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor where it was started, if it looks there; beside the modules there may well be data."""
    (tmp_path / "app" / "data").mkdir(parents=True)
    app = str(tmp_path / "app")
    assert granted_place(app, places, write=True)
    monkeypatch.syspath_prepend(app)
    assert "looks for what it runs" in refused(app, places, write=True)
    assert granted_place(f"{app}/data", places, write=True)
    assert granted_place(app, places)
    monkeypatch.undo()
    monkeypatch.chdir(app)
    monkeypatch.setattr("sys.path", ["", *sys.path])
    assert "looks for what it runs" in refused(app, places, write=True)


@pytest.mark.parametrize(
    "below", ["", "data", "data/sample", "data/other", "run", "journal.jsonl", "logs/sample.log"]
)
def test_nothing_of_the_hosts_own(places: Places, below: str) -> None:
    state = places.data_dir.parent.parent
    path = state / below
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert f"the host's own state directory {state}" in refused(path, places)


def test_nothing_above_the_hosts_own(tmp_path: Path, places: Places) -> None:
    assert "it contains the host's own state directory" in refused(tmp_path, places)
    # Beside it, whatever the names have in common.
    (tmp_path / "state2").mkdir()
    assert granted_place(str(tmp_path / "state2"), places)


def test_state_directory_behind_a_link(tmp_path: Path, places: Places) -> None:
    (tmp_path / "way").symlink_to(tmp_path / "state")
    places = replace(places, data_dir=tmp_path / "way" / "data" / "sample")
    assert "state directory" in refused(tmp_path / "state" / "data", places)


@pytest.mark.parametrize("path", ["/proc", "/proc/self", "/sys/kernel", "/dev", "/dev/shm"])
def test_the_kernels_own_paths(places: Places, path: str) -> None:
    if os.path.islink(path):  # /proc/self
        path = os.path.realpath(path)
    assert "shows the machine and other processes" in refused(path, places)


def test_the_root(places: Places) -> None:
    assert "the whole file system" in refused("/", places)


def mounted(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Have the kernel say what is mounted, in this order."""
    text = "".join(f"{line}\n" for line in (ROOT_LINE, *lines))
    monkeypatch.setattr(procfs, "read", lambda pid, name: text)


def line(point: Path, kind: str) -> str:
    escaped = str(point).replace(" ", "\\040")
    return f"2 1 0:5 / {escaped} rw,relatime shared:1 - {kind} none rw"


@pytest.mark.parametrize(
    "kind", ["proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "debugfs", "mqueue", "bpf"]
)
@pytest.mark.parametrize("where", ["at", "above", "below"])
def test_file_systems_of_the_kernel(
    tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch, kind: str, where: str
) -> None:
    path = tmp_path / "ch root" / "srv"
    path.mkdir(parents=True)
    point = {"at": path, "above": path.parent, "below": path / "proc"}[where]
    mounted(monkeypatch, line(point, kind))
    told = refused(path, places)
    assert f"it reaches {point}, where a file system of the type {kind} is mounted" in told


def test_other_mounts(tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "srv"
    path.mkdir()
    mounted(
        monkeypatch,
        line(Path("/proc"), "proc"),
        line(tmp_path / "srv2", "proc"),
        line(path / "disk", "ext4"),
        line(path / "memory", "tmpfs"),
    )
    assert granted_place(str(path), places).path == str(path)


def test_the_innermost_and_topmost_mount_is_the_one_a_path_is_in(
    tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a" / "b"
    path.mkdir(parents=True)
    # A disk in what was a /proc, and a disk on top of one.
    mounted(monkeypatch, line(tmp_path, "proc"), line(tmp_path / "a", "ext4"))
    assert granted_place(str(path), places)
    mounted(monkeypatch, line(tmp_path / "a", "proc"), line(tmp_path / "a", "ext4"))
    assert granted_place(str(path), places)
    mounted(monkeypatch, line(tmp_path / "a", "ext4"), line(tmp_path / "a", "proc"))
    assert "of the type proc" in refused(path, places)


def test_mounts_that_cannot_be_read(
    tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "srv"
    path.mkdir()

    def broken(pid: int, name: str) -> str:
        raise PermissionError("no")

    monkeypatch.setattr(procfs, "read", broken)
    assert "what is mounted there cannot be read" in refused(path, places)


# -- by another name ------------------------------------------------------------------------------


def test_a_hard_link_to_the_hosts_own(tmp_path: Path, places: Places) -> None:
    secret = tmp_path / "etc" / "trust.toml"
    alias = tmp_path / "alias"
    if not secret.exists():
        secret.parent.mkdir(exist_ok=True)
        secret.touch()
    os.link(secret, alias)
    assert "it lies in" in refused(alias, replace(places, private=(secret,)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
@pytest.mark.parametrize("below", ["", "state", "state/data"])
def test_a_bind_mount_of_the_hosts_own(tmp_path: Path, below: str) -> None:
    """In a mount namespace of its own, so that nothing of it is left."""
    for name in ("real/state/data/sample", "alias", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    script = textwrap.dedent(
        """
        import ctypes, sys
        from pathlib import Path
        from sandbox_host.backends.base import Places
        from sandbox_host.backends.linux.grants import granted_place
        from sandbox_host.errors import ConfinementError
        libc = ctypes.CDLL(None, use_errno=True)
        root, below = Path(sys.argv[1]), sys.argv[2]
        assert libc.unshare(0x20000) == 0
        assert libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None) == 0
        source, target = bytes(root / "real"), bytes(root / "alias")
        assert libc.mount(source, target, None, 0x1000, None) == 0
        none = root / "elsewhere"
        data = root / "real/state/data/sample"
        places = Places(Path(sys.executable), none, none, data, none, none)
        try:
            granted_place(str(root / "alias" / below), places)
        except ConfinementError as error:
            print(error.message)
        """
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), below],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (
        "it contains the host's own" if not below else "it lies in the host's own"
    ) in ran.stdout
