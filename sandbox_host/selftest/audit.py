"""Attacks this machine's sandbox, and reports."""

from __future__ import annotations

import os
import platform
import pwd
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sandbox_host.selftest.arena import open_arena
from sandbox_host.selftest.collection.registry import ATTACKS
from sandbox_host.selftest.report import NOT_MADE, AuditReport, given_up, judge

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox_host.backends.base import Backend
    from sandbox_host.config import HostConfig
    from sandbox_host.selftest.arena import Arena

TIME_LIMIT_SECONDS: Final = 180.0
"""After which no further attack is made, and those left are told as not made."""


def _nothing(_text: str) -> None:
    """Show no progress."""


def audit(
    config: HostConfig,
    progress: Callable[[str], None] = _nothing,
    *,
    seconds: float = TIME_LIMIT_SECONDS,
    backend: Backend | None = None,
) -> AuditReport:
    """Make every attack, first without the sandbox and then in a real plugin.

    Everything that is attacked is made for it, in private temporary directories.

    Args:
        config: the operator's decisions on confinement.
        progress: is told what is being done, often.
        seconds: how long it may take, about.
        backend: another than this system's, for the host's own tests.

    Raises:
        SandboxHostError: no plugin can be confined here, or the attacks cannot be tried.
    """
    started = time.monotonic()
    progress(f"trying {len(ATTACKS)} attacks without the sandbox")
    with open_arena(config, backend=backend) as arena:
        met = _attempt_all(arena, progress, started + seconds)
        in_force, without = arena.receipt.active, given_up(arena.receipt)
        attempts = tuple(
            judge(name, ATTACKS[name], arena.controls[name], met[name], in_force, without)
            for name in met
        )
        report = AuditReport(
            user=_user(),
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            python=platform.python_version(),
            seconds=0.0,
            receipt=arena.receipt,
            attempts=attempts,
            aftermath=arena.aftermath(),
        )
        progress("ending the attacked plugin")
    return replace(
        report,
        seconds=time.monotonic() - started,
        aftermath=(*report.aftermath, arena.left_behind()),
    )


def _attempt_all(arena: Arena, progress: Callable[[str], None], until: float) -> dict[str, str]:
    met = {}
    for number, name in enumerate(ATTACKS, 1):
        if time.monotonic() > until:
            met[name] = NOT_MADE
            continue
        progress(f"attack {number} of {len(ATTACKS)}: {name.replace('_', ' ')}")
        met[name] = arena.attempt(name)
    return met


def _user() -> str:
    uid = os.geteuid()
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
