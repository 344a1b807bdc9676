"""The positive control: each attack in a plain interpreter, against a parent made for it.

Started as ``python -I -S runner.py DIRECTORY``; reads one line of JSON ``[names, target]``, and
writes one: ``{name: [outcome, signal that ended the attacked parent]}``.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
from typing import Any

_ATTACK_SECONDS = 20
"""After which one that hangs is ended by SIGALRM."""

_MANY_DESCRIPTORS = 512


def _attack(registry: Any, name: str, target: dict[str, Any]) -> str:
    """Fork the attacker; return its outcome. A program in its place counts as success."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    attacker = os.fork()
    if attacker == 0:
        signal.alarm(_ATTACK_SECONDS)
        outcome = registry.outcome_of(name, target)
        os.write(write_end, outcome.encode())
        os._exit(3)
    os.close(write_end)
    outcome = os.read(read_end, 1_000).decode()
    os.close(read_end)
    _, status = os.waitpid(attacker, 0)
    if outcome or status == 0:
        return str(outcome or registry.SUCCEEDED)
    return f"status {status}"


def _attacked_parent(registry: Any, name: str, target: dict[str, Any]) -> tuple[str, int]:
    """Fork a parent that may be harmed; return the outcome, and the signal that ended it."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    parent = os.fork()
    if parent == 0:
        # Where Yama restricts tracing, the control must be allowed to all the same.
        ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(2**64 - 1), 0, 0, 0)
        try:
            os.write(write_end, _attack(registry, name, target).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    outcome = os.read(read_end, 1_000).decode()
    os.close(read_end)
    _, status = os.waitpid(parent, 0)
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return outcome or registry.SUCCEEDED, ended_by


def main() -> None:
    """Run the attacks that standard input names."""
    sys.path.insert(0, os.path.dirname(sys.argv[1]))
    package = os.path.basename(sys.argv[1])
    registry: Any = importlib.import_module(f"{package}.registry")
    for module in registry.MODULES:
        importlib.import_module(f"{package}.{module}")
    names, target = json.loads(sys.stdin.readline())
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, _MANY_DESCRIPTORS, hard - 1), hard))
    outcomes = {name: _attacked_parent(registry, name, target) for name in names}
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main()
