"""A real systemd, as the first process of namespaces of its own: it starts units, and ends.

It sees this machine's files, but for ``/run``, ``/tmp``, ``/var/lib`` and ``/sys/fs/cgroup``, which
are its own; its control groups are below one that is removed afterwards. It is root here, and no
more than that: nothing of the machine's own services is started or seen.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

SYSTEMD = Path("/usr/lib/systemd/systemd")
SHARED = "/run/shared"
"""Where the directory that both sides see is inside."""

_CONTROLLERS = ("memory", "pids", "cpu")
_BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p {shared} /run/systemd/system
mount --bind "$1" {shared}
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /tmp
mount -t proc proc /proc
umount -R /sys/fs/cgroup
mount -t tmpfs tmpfs /sys/fs/cgroup
cd /sys/fs/cgroup
mkdir unified systemd {controllers}
mount -t cgroup2 cgroup2 unified
mount -t cgroup -o none,name=systemd cgroup systemd
for each in {controllers}; do mount -t cgroup -o $each cgroup $each; done
cp {shared}/units/* /run/systemd/system
export container=test
exec {systemd} --system --unit=test.target --log-target=null --show-status=false
"""


def why_not() -> str:
    """Return why there can be no systemd here, or ""."""
    if os.geteuid() != 0:
        return "not root: a systemd of one's own takes namespaces and control groups"
    missing = [str(p) for p in (SYSTEMD, *_groups("")) if not p.exists()]
    if missing or shutil.which("unshare") is None:
        return f"not there: {', '.join([*missing, 'unshare'])}"
    probe = ["unshare", "-m", "-p", "-i", "-u", "-C", "--fork", "true"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"no namespaces: {done.stderr.strip()}"


def _groups(name: str) -> list[Path]:
    root = Path("/sys/fs/cgroup")
    return [root / each / name for each in ("systemd", "unified", *_CONTROLLERS)]


def run(shared: Path, units: Mapping[str, str], seconds: float) -> None:
    """Boot, start ``test.target``, and wait until something inside says ``systemctl exit``.

    Args:
        shared: a directory that is `SHARED` inside.
        units: text by name; one is ``test.target``.
        seconds: after which all of it is ended.
    """
    (shared / "units").mkdir()
    for name, text in units.items():
        (shared / "units" / name).write_text(text)
    script = shared / "boot.sh"
    controllers = " ".join(_CONTROLLERS)
    script.write_text(
        _BOOT.format(shared=SHARED, controllers=controllers, systemd=SYSTEMD), encoding="utf-8"
    )
    groups = _groups(f"sandbox-host-test-{os.getpid()}")
    for group in groups:
        group.mkdir()
    words = ["unshare", "-m", "-p", "-i", "-u", "-C", "--fork", "--kill-child"]
    try:
        with (shared / "boot.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    "sh",
                    "-c",
                    'for one in $PLACES; do echo $$ > "$one/cgroup.procs"; done; exec "$@"',
                    "sh",
                    *words,
                    "sh",
                    str(script),
                    str(shared),
                ],
                env={"PATH": os.environ["PATH"], "PLACES": " ".join(map(str, groups))},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                process.wait(seconds)
            finally:
                # --kill-child: the first process of the namespace goes with it, and all others.
                process.send_signal(signal.SIGKILL)
                process.wait()
    finally:
        for group in groups:
            _remove(group)


def _remove(group: Path) -> None:
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
