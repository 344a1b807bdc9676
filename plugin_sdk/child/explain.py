"""Which wall of the sandbox an exception stands for: a table, looked through when one is reported.

What is found here is told to the author, in a note of the exception, and to the host, as one rule
of a fixed list, what was asked for, and where. It is a guess by what the exception and its frames
show, and advice: nothing is decided by it, inside or outside.
"""

from __future__ import annotations

import os
import sys
from errno import EACCES, EAGAIN, ENOENT, ENOSYS, EPERM, EROFS

from plugin_sdk.child.callsite import Site, sites_of, writes
from plugin_sdk.child.faults import made_code
from plugin_sdk.errors import PermissionDenied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from plugin_sdk.child.loader import LoadOrder

    Found = tuple[str, str] | None

# Beside the permissions, by their names in plugin.json.
BUNDLE = "bundle"  # the plugin's own files, which nobody changes
NEVER = "never"  # what no permission opens

_FLAGS = frozenset({"native_code", "subprocess", "threads"})
_UNKNOWN = {"network": "<host>:<port>", "unix": "<path>"}

MAX_ASKED_BYTES = 300

# Frames and links of a chain of exceptions that are looked at.
_MAX_CHAIN = 20

_REFUSALS = frozenset({EACCES, EPERM, ENOENT, EROFS})
_NOT_STARTED = frozenset({EACCES, EPERM, ENOENT, ENOSYS, EAGAIN})

_PROCESSES = ("subprocess.py", "multiprocessing/", "concurrent/futures/process.py", "pty.py")
_STARTERS = frozenset(
    {
        *("fork", "forkpty", "vfork", "_fork_exec", "fork_exec", "system", "popen", "Popen"),
        *("execv", "execve", "execvp", "execvpe", "execl", "execle", "execlp", "execlpe"),
        *("posix_spawn", "posix_spawnp", "spawnv", "spawnve", "spawnl", "spawnle"),
    }
)
_NETWORK = ("socket.py", "ssl.py", "socketserver.py", "http/client.py", "asyncio/")
_CONNECTORS = frozenset(
    {
        *("socket", "connect", "connect_ex", "create_connection", "open_connection"),
        *("getaddrinfo", "gethostbyname", "gethostbyname_ex", "getnameinfo", "sendto", "sendmsg"),
    }
)
_LISTENERS = frozenset({"bind", "listen", "create_server", "start_server"})
# What no permission opens, in words that the host knows.
_SPECIAL = {
    **dict.fromkeys(("symlink", "symlink_to"), "symbolic links"),
    **dict.fromkeys(("mkfifo", "mknod"), "special files"),
    **dict.fromkeys(("kill", "killpg", "pidfd_send_signal"), "signals to others"),
    **dict.fromkeys(("chown", "fchown", "lchown"), "owners of files"),
}

# Where others are installed as well.
_SHARED_PREFIXES = frozenset({"/", "/usr", "/usr/local", "/opt"})

_SHARED_OBJECT = ("failed to map segment from shared object", "cannot enable executable stack")
_MADE_CODE = "write+execute memory"


def explain(error: BaseException, order: LoadOrder) -> tuple[dict[str, str], BaseException] | None:
    """Return ``{rule, asked}`` of the refusal that an exception is, or was caused by, and which.

    None where it has nothing to do with the sandbox, as far as this can tell.

    Args:
        error: what left the plugin's code. Its class may be the plugin's own.
        order: what was loaded, and with which grants.
    """
    link: BaseException | None = error
    for _ in range(_MAX_CHAIN):
        if link is None:
            return None
        sites = sites_of(link)
        for look in _LOOKS:
            found = look(link, sites, order)
            if found is not None:
                rule, asked = found
                return {"rule": rule, "asked": _cut(asked)}, link
        link = link.__cause__ or link.__context__
    return None


def note_of(found: dict[str, str], order: LoadOrder) -> str:
    """Return the line that the author finds below the exception's own text."""
    rule, asked = found["rule"], found["asked"]
    if rule == NEVER:
        return f"denied by the sandbox ({asked}), and no permission opens that."
    if rule == BUNDLE:
        return "denied by the sandbox: the plugin's own files; write to context().data_dir."
    if _has(order, rule, asked):
        return f"denied by what is outside of the sandbox: {rule} is granted for this."
    import json

    entry = asked
    if not asked or (rule == "network" and not asked.rpartition(":")[2].isdigit()):
        entry = _UNKNOWN.get(rule, "<entry>")
    value = json.dumps(True if rule in _FLAGS else [entry])
    return f'denied by the sandbox; in plugin.json: "permissions": {{"{rule}": {value}}}'


# -- what is looked for, one wall after the other ----------------------------------------------


def _told_by_sdk(error: BaseException, _sites: list[Site], _order: LoadOrder) -> Found:
    """What the SDK itself refuses, it names."""
    if isinstance(error, PermissionDenied) and error.rule:
        return error.rule, error.asked
    return None


def _variable(error: BaseException, sites: list[Site], order: LoadOrder) -> Found:
    if not isinstance(error, KeyError) or not error.args or not isinstance(error.args[0], str):
        return None
    if not sites or not sites[-1].is_in("os.py", "<frozen os>"):
        return None
    if sites[-1].local("self") is not os.environ or error.args[0] in order.granted.get("env", ()):
        return None
    return "env", error.args[0]


def _thread(error: BaseException, _sites: list[Site], order: LoadOrder) -> Found:
    if isinstance(error, RuntimeError) and error.args == ("can't start new thread",):
        return None if order.granted.get("threads") else ("threads", "")
    return None


def _code(error: BaseException, sites: list[Site], order: LoadOrder) -> Found:
    if not isinstance(error, ImportError | OSError | MemoryError) or order.granted.get(
        "native_code"
    ):
        return None
    if made_code(error):
        return "native_code", "a callback in C"
    text = str(error)
    if any(part in text for part in _SHARED_OBJECT):
        return "native_code", text.partition(":")[0]
    if _MADE_CODE in text:
        return "native_code", "executable memory"
    if isinstance(error, PermissionError) and sites and sites[-1].called == "mmap":
        _, source = sites[-1].words()
        code = "EXEC" in source
        return ("native_code", "executable memory") if code else (NEVER, "shared memory")
    return None


def _process(error: BaseException, sites: list[Site], order: LoadOrder) -> Found:
    if not isinstance(error, OSError) or error.errno not in _NOT_STARTED or not sites:
        return None
    if sites[-1].called not in _STARTERS and not any(s.is_in(*_PROCESSES) for s in sites):
        return None
    if order.granted.get("subprocess"):
        # Then what may not be executed is what may not even be seen.
        return (NEVER, "other programs") if error.errno in {EACCES, ENOENT} else None
    program = sites[-1].local("orig_executable") or sites[-1].local("executable")
    return "subprocess", os.fsdecode(program) if isinstance(program, str | bytes) else ""


def _connection(error: BaseException, sites: list[Site], order: LoadOrder) -> Found:
    if not isinstance(error, OSError) or isinstance(error, TimeoutError | ConnectionError):
        return None
    if not sites:
        return None
    last, resolving = sites[-1], type(error).__name__ == "gaierror"
    if path := _unix_path(last):
        return None if path in order.granted.get("unix", ()) else ("unix", path)
    if not (resolving or error.errno in {EACCES, EPERM}):
        return None
    if last.called in _LISTENERS:
        return NEVER, "listening"
    if resolving or last.called in _CONNECTORS or last.is_in(*_NETWORK):
        return _address(sites)
    if last.is_in("plugin_sdk/child/network.py"):
        return _address(sites)
    return None


def _unix_path(site: Site) -> str:
    """Return the path that a frame's own call of `connect` named, or ""."""
    if site.called not in {"connect", "connect_ex"} or site.is_in(*_NETWORK):
        return ""
    values, _ = site.words()
    return values[0] if len(values) == 1 and isinstance(values[0], str) else ""


def _address(sites: list[Site]) -> Found:
    """Return where to, as far as one of the frames still holds it."""
    for site in reversed(sites):
        unix = getattr(sys.modules.get("socket"), "AF_UNIX", None)
        kind = site.local("family")
        made = site.local("made")
        if unix is not None and (kind == unix or getattr(made, "family", None) == unix):
            address = site.local("address")
            return "unix", address if isinstance(address, str) else ""
        if getattr(site.local("type"), "name", "") in {"SOCK_DGRAM", "SOCK_RAW"}:
            return NEVER, "other sockets"
        pair = site.local("address")
        if not isinstance(pair, tuple) or len(pair) < 2:  # noqa: PLR2004 - host and port
            pair = site.local("host"), site.local("port")
        host, port = pair[0], pair[1]
        if isinstance(host, str) and host:
            return "network", shown_address(host, port)
    return "network", ""


def shown_address(host: str, port: Any) -> str:
    """Return an entry of ``network``, or the host alone where there is no port."""
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}" if isinstance(port, int) and port else shown


def _file(error: BaseException, sites: list[Site], order: LoadOrder) -> Found:
    if not isinstance(error, OSError) or error.errno not in _REFUSALS:
        return None
    called = sites[-1].called if sites else ""
    if error.errno != ENOENT and called in _SPECIAL:
        return NEVER, _SPECIAL[called]
    paths = _paths_of(error, sites)
    outside = [path for path in paths if not _is_own(path, order)]
    writing = error.errno == EROFS or bool(sites and writes(sites[-1]))
    if not outside:
        inside = [p for p in paths if covered((order.package_dir,), p)]
        return (BUNDLE, inside[0]) if inside and writing and error.errno != ENOENT else None
    rule = "write" if writing else "read"
    if error.errno == ENOENT and covered(order.granted.get(rule, ()), outside[-1]):
        return None  # it is simply not there
    return rule, outside[-1]


def _paths_of(error: OSError, sites: list[Site]) -> list[str]:
    """Return the paths that it names, absolute."""
    names = [n for n in (error.filename, error.filename2) if isinstance(n, str | bytes)]
    for site in sites:
        if site.function == "makedirs" and site.is_in("os.py", "<frozen os>"):
            # The first that is missing is what it names; the last is what was asked for.
            wanted = site.local("name")
            names = [wanted] if isinstance(wanted, str | bytes) else names
            break
    return [os.path.abspath(os.fsdecode(name)) for name in names]


def _is_own(path: str, order: LoadOrder) -> bool:
    own = (order.data_dir, order.scratch_dir, order.package_dir, *order.sys_path)
    return covered((*own, *library_places()), path)


def library_places() -> tuple[str, ...]:
    """Return where Python itself is, and this package."""
    own = tuple(place for place in (sys.prefix, sys.base_prefix) if place not in _SHARED_PREFIXES)
    return (*own, os.path.dirname(os.__file__), os.path.dirname(os.path.dirname(__file__)))


def covered(places: Any, path: str) -> bool:
    """Tell whether a path is one of the places, or below one."""
    return any(path == one or path.startswith(one.rstrip("/") + "/") for one in places)


def _has(order: LoadOrder, rule: str, asked: str) -> bool:
    given = order.granted.get(rule)
    if isinstance(given, bool):
        return given
    return covered(given or (), asked) if rule in {"read", "write"} else asked in (given or ())


def _cut(text: str) -> str:
    return str.encode(text, "utf-8", "backslashreplace")[:MAX_ASKED_BYTES].decode("utf-8", "ignore")


_LOOKS: tuple[Callable[[BaseException, list[Site], LoadOrder], Found], ...] = (
    *(_told_by_sdk, _variable, _thread, _code, _process, _connection, _file),
)
