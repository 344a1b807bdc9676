"""A host on a kernel that lacks some system calls: ``python -m tests.support.lesser_kernel ...``.

A seccomp filter of this process answers the calls with ENOSYS; what they start inherits it.
Arguments: trust store, state directory, bundle, numbers of the calls, layers whose absence is
accepted. Prints one line of JSON.
"""

from __future__ import annotations

import ctypes
import errno
import json
import sys
from typing import Any

from sandbox_host import HostConfig, SandboxHost
from sandbox_host.backends.linux.bpf import Label, Program, assemble, give, if_equal, load
from sandbox_host.errors import ConfinementError, OperationError

_ALLOW, _ERRNO = 0x7FFF_0000, 0x0005_0000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 38, 22


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def take_away(numbers: list[int]) -> None:
    """Answer these calls with ENOSYS from now on, as a kernel without them does."""
    program: Program = [load(0)]
    for number in numbers:
        program.append(if_equal(number, then="missing"))
    program += [give(_ALLOW), Label("missing"), give(_ERRNO | errno.ENOSYS)]
    code = assemble(program)
    libc = ctypes.CDLL(None, use_errno=True)
    one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
    loaded = _Filter(len(code) // 8, code)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, one, none, none, none) or libc.prctl(
        _PR_SET_SECCOMP, ctypes.c_ulong(2), ctypes.byref(loaded), none, none
    ):
        raise OSError(ctypes.get_errno(), "the filter was refused")


def main(trust: str, state: str, bundle: str, numbers: str, accepted: str) -> None:
    """Load the bundle and call ``passwd``; print what came of it."""
    take_away(json.loads(numbers))
    config = HostConfig(
        trust_store=trust, state_dir=state, accept_missing=frozenset(json.loads(accepted))
    )
    with SandboxHost.blocking(config) as host:
        print(json.dumps(_outcome(host, bundle)))


def _outcome(host: Any, bundle: str) -> dict[str, Any]:
    try:
        plugin = host.load(bundle)
    except ConfinementError as error:
        return {"refused": error.layer, "text": str(error)}
    layers = {report.layer: [report.status, report.detail] for report in plugin.receipt.layers}
    try:
        plugin.call("passwd")
    except OperationError as error:
        return {"layers": layers, "passwd": error.type_name}
    return {"layers": layers, "passwd": "read"}


if __name__ == "__main__":
    main(*sys.argv[1:])
