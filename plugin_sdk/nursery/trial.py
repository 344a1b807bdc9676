"""Finds out which layers this machine gives us, by applying each in a process that then ends."""

from __future__ import annotations

import errno
import os

from plugin_sdk.lockdown.identity import become
from plugin_sdk.lockdown.namespaces import (
    NEWCGROUP,
    NEWIPC,
    NEWNET,
    NEWNS,
    NEWUTS,
    nest,
    set_hostname,
    unshare,
)
from plugin_sdk.lockdown.privileges import drop_capabilities
from plugin_sdk.lockdown.root import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, make_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

_MAX_REASON_BYTES = 1_000
_SIGSYS = 31
_QUIET = MS_NOSUID | MS_NODEV | MS_NOEXEC


def try_layers(
    fork: Callable[..., int], wanted: dict[str, Any], directory: str
) -> dict[str, str | None]:
    """Return, for each layer that was tried, "" or why it does not work here.

    Args:
        fork: forks a child, which is pid 1 of a namespace of its own if ``own_pid`` is true.
        wanted: ``own_pid``, ``uid`` (or None) and ``tries``, the names of what to try.
        directory: where a root can be built in a mount namespace of one's own.

    Raises:
        PassingError: nothing can be found out now.
    """
    flags = {
        "network-namespace": NEWNET,
        "ipc-namespace": NEWIPC,
        "cgroup-namespace": NEWCGROUP,
    }
    trials: dict[str, Callable[[], object]] = {
        "pid-namespace": lambda: None,
        "own-root": lambda: _root(directory, with_proc=False),
        "proc": lambda: _root(directory, with_proc=True),
        "user-namespace": _nested_user,
        "own-uid": lambda: become(wanted["uid"]),
        "uts-namespace": _named,
        "capabilities": drop_capabilities,
    }
    for layer, flag in flags.items():
        trials[layer] = lambda flag=flag: unshare(flag)  # type: ignore[misc]  # bound now
    return {name: _try(fork, trials[name], own_pid=wanted["own_pid"]) for name in wanted["tries"]}


class PassingError(Exception):
    """The machine is short of something now, which says nothing about what it offers."""


_PASSING = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})


def _try(fork: Callable[..., int], action: Callable[[], object], *, own_pid: bool) -> str:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        child = fork(own_pid=own_pid)
    except OSError as error:
        os.close(read_end)
        os.close(write_end)
        if error.errno in _PASSING:
            raise PassingError(str(error)) from error
        return str(error)
    if child == 0:
        _tell(write_end, action)
    os.close(write_end)
    answer = os.read(read_end, _MAX_REASON_BYTES)
    os.close(read_end)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == _SIGSYS:
        return "a system call filter ends whoever tries it (SIGSYS)"
    kind, reason = answer[:1], answer[1:].decode()
    if kind not in {_WORKS, _FAILS}:
        raise PassingError(reason or "the process that tried a layer was killed")
    return reason


_WORKS, _FAILS, _SHORT = b"w", b"f", b"s"


def _tell(write_end: int, action: Callable[[], object]) -> NoReturn:
    answer = _SHORT
    try:
        action()
        answer = _WORKS
    except OSError as error:
        answer = (_SHORT if error.errno in _PASSING else _FAILS) + str(error).encode()
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the reason
        answer = _FAILS + (str(error) or type(error).__name__).encode()
    finally:
        os.write(write_end, answer[:_MAX_REASON_BYTES])
        os._exit(0)


def _root(directory: str, *, with_proc: bool) -> None:
    unshare(NEWNS)
    null = os.stat("/dev/null")
    proc = {"kind": "proc", "path": "/proc", "flags": _QUIET | MS_RDONLY}
    mounts = [
        {
            "kind": "bind",
            "path": "/dev/null",
            "flags": MS_RDONLY | MS_NOSUID | MS_NOEXEC,
            "source": [null.st_dev, null.st_ino],
        },
        {"kind": "tmpfs", "path": "/scratch", "flags": _QUIET, "data": "size=4k,nr_inodes=2"},
        *([{**proc, "data": "subset=pid,hidepid=ptraceable"}] if with_proc else []),
    ]
    plan = {"at": directory, "size": "size=64k,nr_inodes=64", "links": [], "mounts": mounts}
    make_root({**plan, "cwd": "/scratch"})


def _named() -> None:
    # The name is what the namespace is for, and something else may refuse that alone.
    unshare(NEWUTS)
    set_hostname("trial")


def _nested_user() -> None:
    process = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    nest(process)
