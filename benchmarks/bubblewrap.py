"""bubblewrap as a peer: a program in namespaces of its own, with what a plugin of ours sees."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import signed  # noqa: F401 - beside this file: it finds the rest
from frame import NotThereError

from sandbox_host.backends.linux.interpreter import DEVICES, interpreter_paths


def inside(command: list[str]) -> list[str]:
    """Return the command line that runs a Python's command inside bubblewrap.

    It has no control group, Landlock, seccomp, user id of its own or attestation.

    Raises:
        NotThereError: bubblewrap is not installed.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise NotThereError("bwrap is not installed")
    paths = interpreter_paths(Path(command[0]))
    whole = [program, "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
    whole += ["--cap-drop", "ALL", "--hostname", "plugin"]
    for path in (*paths.real, command[0]):
        whole += ["--ro-bind", path, path]
    for link, target in paths.links:
        if not any(Path(link).is_relative_to(path) for path in paths.real):
            whole += ["--symlink", target, link]
    for device in filter(os.path.exists, DEVICES):
        whole += ["--dev-bind", device, device]
    whole += ["--proc", "/proc", "--tmpfs", "/tmp", "--chdir", "/tmp", "--remount-ro", "/"]
    return whole + command
