"""Runs a few lines in an interpreter of their own, which what they do to themselves ends with."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).parents[2]
_PRELUDE = """
import errno, json, os, resource, signal, sys
result = None

def status(*names):
    fields = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    return [fields[name].strip() for name in names]

def own_user(more=0):
    # A user namespace of one's own, in which one is root: whatever is done here stays here.
    from plugin_sdk.lockdown.namespaces import NEWUSER, unshare
    uid, gid = os.geteuid(), os.getegid()
    unshare(NEWUSER | more)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)

def met(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "allowed"
"""


def alone(code: str, *arguments: object) -> Any:
    """Run ``code``, and return what it left in ``result``.

    Args:
        code: may use what the prelude has: ``os``, ``status``, ``own_user``, ``met``.
        arguments: as text in ``sys.argv[1:]``.
    """
    program = f"{_PRELUDE}\n{textwrap.dedent(code)}\nprint(json.dumps(result))"
    done = subprocess.run(
        [sys.executable, "-B", "-c", program, *map(str, arguments)],
        cwd=_REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr or done.returncode
    return json.loads(done.stdout.splitlines()[-1])


@functools.cache
def has_user_namespaces() -> bool:
    """Tell whether this user may make a user namespace, and map itself in it."""
    return alone("result = met(own_user)") == "allowed"
