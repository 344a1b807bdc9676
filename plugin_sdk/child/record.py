"""What a plugin uses, and is refused, while its author tries it; no other plugin is watched so.

By an audit hook (PEP 578), which is told of opening, connecting and starting before it happens and
whatever becomes of it: so what a plugin tries and goes on without is found as well. All of it is
advice for `check` and `trace`: a plugin can go around each of these hooks.
"""

from __future__ import annotations

import _thread
import os
import sys

from plugin_sdk.child.explain import BUNDLE, covered, library_places, shown_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from plugin_sdk.child.loader import LoadOrder

MAX_DENIED = 200
MAX_USED = 500
_MAX_TEXT = 300
_MAX_FRAMES = 100

_WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_LISTS = ("os.listdir", "os.scandir")
_CHANGES = ("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.utime", "os.chmod")
_MOVES = ("os.rename", "os.link")
_STARTS = ("os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.exec", "os.system")
_THREAD_STARTERS = ("start_new_thread", "start_new", "start_joinable_thread")

# Frames of these are not who asked, but how.
_FROZEN_ASK = ("<frozen os>", "<frozen _collections_abc>")


class Recorder:
    """Remembers each use and each refusal once.

    Args:
        order: what is loaded, and with which grants.
    """

    def __init__(self, order: LoadOrder) -> None:
        self._granted = order.granted
        self._prefix = os.path.join(order.package_dir, "")
        self._bundle = (order.package_dir,)
        self._writable = (order.data_dir, order.scratch_dir)
        self._library = (*library_places(), *order.sys_path, "/proc/self")
        self._frames_between = (os.path.dirname(os.__file__) + os.sep, "<frozen ")
        self._used: set[tuple[str, str]] = set()
        self._denied: dict[tuple[str, str], str] = {}
        self._busy: set[int] = set()
        self._heard: dict[str, Callable[..., None]] = {
            "open": self._open,
            "sqlite3.connect": self._database,
            "ctypes.dlopen": self._shared_object,
            "import": self._import,
            "socket.connect": self._connect,
            "socket.getaddrinfo": self._resolve,
            "subprocess.Popen": self._start,
            **dict.fromkeys(_LISTS, self._list),
            **dict.fromkeys(_CHANGES, self._change),
            **dict.fromkeys(_MOVES, self._move),
            **dict.fromkeys(_STARTS, self._start),
        }

    def install(self) -> None:
        """Begin; an audit hook stays until the process ends."""
        sys.addaudithook(self._hook)
        self._watch_variables()
        self._watch_threads()
        if "network" in self._granted:
            self._watch_connections()

    def report(self) -> dict[str, Any]:
        """Return ``{used: [[rule, entry]], denied: [{rule, asked, where}]}``."""
        self._look_at_maps()
        denied = [
            {"rule": rule, "asked": asked, "where": where}
            for (rule, asked), where in list(self._denied.items())
        ]
        return {"used": [list(pair) for pair in sorted(self._used)], "denied": denied}

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        heard = self._heard.get(event)
        if heard is None:
            return
        thread = _thread.get_ident()
        if thread in self._busy:
            return
        self._busy.add(thread)
        try:
            heard(*arguments)
        except Exception:  # noqa: BLE001 - an argument may be anything, and what it is for goes on
            return
        finally:
            self._busy.discard(thread)

    # -- what was heard --------------------------------------------------------------------

    def _open(self, path: Any, mode: Any, flags: Any) -> None:
        words = isinstance(mode, str) and bool(set(mode) & set("wax+"))
        self._path(path, writing=words or bool(isinstance(flags, int) and flags & _WRITING_FLAGS))

    def _database(self, path: Any, *_: Any) -> None:
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        if text and not text.startswith((":", "file:")):
            self._path(text, writing=True)

    def _list(self, path: Any, *_: Any) -> None:
        self._path(path, writing=False)

    def _change(self, path: Any, *_: Any) -> None:
        self._path(path, writing=True)

    def _move(self, path: Any, target: Any, *_: Any) -> None:
        self._path(path, writing=True)
        self._path(target, writing=True)

    def _path(self, path: Any, *, writing: bool) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return  # a descriptor, which was opened before
        whole = os.path.abspath(os.fsdecode(path))
        if covered((*self._writable, "/dev"), whole) or (
            covered(self._library, whole) and not writing
        ):
            return
        if covered(self._bundle, whole):
            if writing:
                self._refused(BUNDLE, whole, near=True)
            return
        rule = "write" if writing else "read"
        entries = [one for one in self._granted.get(rule, ()) if covered((one,), whole)]
        for entry in entries:
            self._use(rule, entry)
        if not entries:
            self._refused(rule, whole, near=True)

    def _shared_object(self, name: Any, *_: Any) -> None:
        if isinstance(name, str) and covered((*self._bundle, *self._writable), name):
            self._flag("native_code", name)

    def _import(self, _module: Any, filename: Any, *_: Any) -> None:
        self._shared_object(filename)

    def _connect(self, _made: Any, address: Any) -> None:
        if isinstance(address, str | bytes):
            self._listed("unix", os.fsdecode(address))
        elif isinstance(address, tuple) and len(address) > 1:
            self._resolve(address[0], address[1])

    def _resolve(self, host: Any, port: Any, *_: Any) -> None:
        if isinstance(host, bytes):
            host = host.decode("ascii", "backslashreplace")
        if isinstance(host, str) and host:
            self._listed("network", shown_address(host, port))

    def _start(self, *arguments: Any) -> None:
        first = arguments[0] if arguments else ""
        text = os.fsdecode(first) if isinstance(first, str | bytes) else ""
        self._flag("subprocess", text)

    def _watch_variables(self) -> None:
        recorder, before = self, type(os.environ)

        class Watched(before):  # type: ignore[misc,valid-type]  # private, and a class all the same
            def __getitem__(self, key: str) -> str:
                try:
                    value: str = super().__getitem__(key)
                except KeyError:
                    recorder.variable(key, there=False)
                    raise
                recorder.variable(key, there=True)
                return value

        os.environ.__class__ = Watched

    def variable(self, name: str, *, there: bool) -> None:
        """Take that a variable was asked for."""
        if name in self._granted.get("env", ()):
            self._use("env", name)
        elif not there and self._asked_for_by_plugin():
            self._refused("env", name)

    def _asked_for_by_plugin(self) -> bool:
        """Tell whether the plugin's own line asks: libraries look for many that nobody misses."""
        frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - as every logger does
        while frame is not None:
            path = frame.f_code.co_filename
            if path.startswith(self._prefix):
                return True
            if (
                path != __file__
                and not path.startswith(_FROZEN_ASK)
                and not path.endswith("/os.py")
            ):
                return False
            frame = frame.f_back
        return False

    def _watch_threads(self) -> None:
        threading = sys.modules.get("threading")
        for name in _THREAD_STARTERS:
            start = getattr(_thread, name, None)
            if start is None:
                continue

            def watched(*arguments: Any, _start: Any = start, **named: Any) -> Any:
                self._flag("threads", "")
                return _start(*arguments, **named)

            setattr(_thread, name, watched)
            if threading is not None and hasattr(threading, f"_{name}"):
                setattr(threading, f"_{name}", watched)

    def _watch_connections(self) -> None:
        """Listen where the host's desk is asked: what it hands over, the kernel never connected.

        What it refuses, the host knows better.
        """
        import socket

        def noted(function: Callable[..., Any], place: int) -> Callable[..., Any]:
            def watched(*arguments: Any, **named: Any) -> Any:
                answer = function(*arguments, **named)
                address = arguments[place] if place else arguments
                if isinstance(address, tuple) and len(address) > 1:
                    entry = shown_address(str(address[0]), address[1])
                    if entry in self._granted["network"]:
                        self._use("network", entry)
                return answer

            return watched

        for name in ("connect", "connect_ex"):
            setattr(socket.socket, name, noted(getattr(socket.socket, name), 1))
        socket.getaddrinfo = noted(socket.getaddrinfo, 0)

    def _look_at_maps(self) -> None:
        """Find native code by what is mapped for execution, however it came there."""
        try:
            with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
                lines = file.read(4 * 1024 * 1024).splitlines()
        except OSError:
            return
        for line in lines:
            fields = line.split(maxsplit=5)
            if len(fields) < 5 or "x" not in fields[1]:  # noqa: PLR2004 - address to inode
                continue
            path = fields[5] if len(fields) > 5 else ""  # noqa: PLR2004 - anonymous has no path
            if not path or covered((*self._bundle, *self._writable), path):
                self._flag("native_code", path or "executable memory")

    # -- what is kept ----------------------------------------------------------------------

    def _flag(self, rule: str, asked: str) -> None:
        if self._granted.get(rule):
            self._use(rule, "")
        else:
            self._refused(rule, asked)

    def _listed(self, rule: str, entry: str) -> None:
        if entry in self._granted.get(rule, ()):
            self._use(rule, entry)
        else:
            self._refused(rule, entry)

    def _use(self, rule: str, entry: str) -> None:
        if len(self._used) < MAX_USED:
            self._used.add((rule, entry[:_MAX_TEXT]))

    def _refused(self, rule: str, asked: str, *, near: bool = False) -> None:
        """Remember a refusal, with the plugin's own line.

        Args:
            rule: which permission it is about.
            asked: what for.
            near: only where the standard library alone stands between that line and this: others
                look for many a file that nobody misses.
        """
        where = self._where(near=near)
        if where is not None and len(self._denied) < MAX_DENIED:
            self._denied.setdefault((rule, asked[:_MAX_TEXT]), where)

    def _where(self, *, near: bool) -> str | None:
        frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - as every logger does
        for _ in range(_MAX_FRAMES):
            if frame is None:
                break
            path = frame.f_code.co_filename
            if path.startswith("<frozen importlib"):
                return None  # how modules are looked for
            if path.startswith(self._prefix):
                line = f"{path[len(self._prefix) :]}:{frame.f_lineno}"
                return f"{line} in {frame.f_code.co_name}"[:_MAX_TEXT]
            if near and path != __file__ and not path.startswith(self._frames_between):
                return None
            frame = frame.f_back
        return None if near else ""
