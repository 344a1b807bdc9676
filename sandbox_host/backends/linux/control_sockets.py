"""Unix sockets behind which somebody runs what he is asked to: never granted to a plugin.

Whoever may talk to one of these starts programs or containers, signs with somebody's keys, types
into somebody's terminal. To a plugin it would be the way out of its sandbox that the rest of this
package closes. The table names what is usual on Linux systems, and cannot name everything: what a
socket's server does when it is asked is for the operator to know.
"""

from __future__ import annotations

import glob
import os
from fnmatch import fnmatchcase
from typing import Final

_TMP: Final = "/tmp"  # noqa: S108 - nothing is made there
_CONTAINERS: Final = "a manager of containers or machines, which starts what it is told to, as root"
_SYSTEM: Final = "the system's service manager, which starts programs and stops services"
_BUS: Final = (
    "a message bus, by which the service manager and a user's programs are told what to do"
)
_KEYS: Final = "an agent, which signs with its user's keys for whoever asks"
_SCREEN: Final = "a user's screen and keyboard"
_TERMINAL: Final = "a user's terminal or editor, which runs what is typed"
_RUNNER: Final = "a server that runs the programs it is asked to"
_JOURNAL: Final = "the system's journal, in which a plugin would speak for others"

CONTROL_SOCKETS: Final[tuple[tuple[str, str], ...]] = (
    *((f"/run/{name}.sock", _CONTAINERS) for name in ("docker", "*/docker", "podman/podman")),
    *(
        (f"/run/{name}.sock", _CONTAINERS)
        for name in ("containerd/*", "crio/crio", "*/containerd/*")
    ),
    ("/run/user/*/podman/*", _CONTAINERS),
    *((f"/run/{name}/*", _CONTAINERS) for name in ("libvirt", "lxd", "incus", "buildkit", "xen")),
    *((f"/var/lib/{name}/*", _CONTAINERS) for name in ("lxd", "incus", "kubelet")),
    ("/run/snapd*.socket", "the manager of packages, which installs them as root"),
    ("/run/systemd/journal/*", _JOURNAL),
    ("/run/systemd/*", _SYSTEM),
    ("/run/user/*/systemd/*", _SYSTEM),
    ("/run/initctl", _SYSTEM),
    ("/run/dbus/*", _BUS),
    ("/run/user/*/bus", _BUS),
    (f"{_TMP}/dbus-*", _BUS),
    ("/run/udev/*", "the manager of devices, which starts programs as root"),
    (f"{_TMP}/ssh-*/agent.*", _KEYS),
    ("/run/user/*/keyring/*", _KEYS),
    ("/run/user/*/gnupg/*", _KEYS),
    ("/run/user/*/*agent*", _KEYS),
    (f"{_TMP}/.X11-unix/*", _SCREEN),
    ("/run/user/*/wayland-*", _SCREEN),
    (f"{_TMP}/tmux-*/*", _TERMINAL),
    ("/run/screen/*", _TERMINAL),
    ("/run/user/*/emacs/*", _TERMINAL),
    ("/run/user/*/vscode-*", _TERMINAL),
    *((f"/run/{name}", _RUNNER) for name in ("php*.sock", "php/*", "supervisor*.sock", "uwsgi/*")),
)
"""A shell pattern of the path, in which ``*`` stands for any characters, and what is behind it."""

_BY_NAME: Final[tuple[tuple[str, str], ...]] = (
    *((f"*/{name}.sock", _CONTAINERS) for name in ("docker", "podman", "containerd", "crio")),
    *((f"*/{name}.sock", _CONTAINERS) for name in ("buildkitd", "kubelet", "dockershim")),
    ("*/S.gpg-agent*", _KEYS),
    ("*/.gnupg/*", _KEYS),
    ("*/.ssh/*", "a connection to another machine that its user has opened"),
)
"""The same of what may lie anywhere."""

_BY_VARIABLE: Final = {"SSH_AUTH_SOCK": _KEYS, "DBUS_SESSION_BUS_ADDRESS": _BUS, "TMUX": _TERMINAL}


def control_of(path: str, identity: tuple[int, int]) -> str:
    """Return what is behind a socket, if that is known to be more than a plugin may have; else "".

    Args:
        path: absolute and real.
        identity: device and inode of the socket, which may have another name as well.
    """
    for pattern, what in (*CONTROL_SOCKETS, *_BY_NAME):
        if fnmatchcase(path, pattern):
            return what
    for pattern, what in CONTROL_SOCKETS:
        if any(_is(found, identity) for found in glob.iglob(pattern)):
            return what
    for variable, what in _BY_VARIABLE.items():
        # As sockets are named there: alone, after "unix:path=", before a comma and more.
        named = os.environ.get(variable, "").removeprefix("unix:path=").partition(",")[0]
        if named and _is(named, identity):
            return what
    return ""


def _is(path: str, identity: tuple[int, int]) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == identity
