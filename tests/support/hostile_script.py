"""Has ``sandbox-host doctor`` make every attack, without pytest, as whoever it is started by.

Prints one line of JSON: who that is, what the command left behind, and after which attacks the
plugin did not stand although none had ended it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from unittest import mock

from sandbox_host.cli import main as sandbox_host
from sandbox_host.model import State
from sandbox_host.selftest.arena import ENDED, Arena
from tests.support.bundles import make_key, trust_store
from tests.support.command_line import snapshot

_attempt = Arena.attempt
_fallen: list[str] = []


def _watched(arena: Arena, name: str) -> str:
    met = _attempt(arena, name)
    if not met.startswith(ENDED) and arena.plugin.state is not State.READY:
        _fallen.append(name)
    return met


def main() -> None:
    """Make the attacks and report."""
    # Short: what is attacked are sockets by path too, and a path of theirs has 107 bytes (unix(7)).
    with (
        tempfile.TemporaryDirectory(prefix="home-") as home,
        tempfile.TemporaryDirectory(prefix="doctor-") as temporary,
    ):
        store = trust_store(Path(home), make_key())
        os.environ.update(XDG_CONFIG_HOME=f"{home}/config", XDG_STATE_HOME=f"{home}/state")
        tempfile.tempdir = temporary
        before = snapshot(Path(home))
        out, err = io.StringIO(), io.StringIO()
        words = ["doctor", "--trust-store", str(store), "--attack", "--format", "json"]
        with (
            mock.patch.object(Arena, "attempt", _watched),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = sandbox_host(words)
        told = {
            "uid": os.geteuid(),
            "code": code,
            "err": err.getvalue(),
            "out": out.getvalue(),
            "fallen": _fallen,
            "left": os.listdir(temporary),
            "home_is_as_it_was": snapshot(Path(home)) == before,
        }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
