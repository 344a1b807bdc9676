"""What can be asked of a running service, each with its arguments; read strictly.

Whoever asks is the service's own user, or root: nothing here is a way to more rights. What is
loaded is verified and admitted as ever, by the service's trust store and grants.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.admission.history import Downgrade
from sandbox_host.admission.instances import Instance
from sandbox_host.bundle.plugin_json import is_version
from sandbox_host.catalog.switches import Switches
from sandbox_host.errors import (
    ControlError,
    NeededError,
    PluginEndedError,
    PluginNotFoundError,
    SandboxHostError,
)
from sandbox_host.model import identity_of
from sandbox_host.observe.journal import Journal
from sandbox_host.reading import BadValueError, check_keys, expected, read_object, read_whole
from sandbox_host.runtime.rehearsal import Rehearsal
from sandbox_host.service.documents import plugin_document, receipt_document
from sandbox_host.service.following import MAX_LINES, LogTail

if TYPE_CHECKING:
    from sandbox_host.errors import SandboxHostError as AnyError
    from sandbox_host.runtime.blocking import BlockingCall, BlockingPlugin
    from sandbox_host.service.protocol import Request
    from sandbox_host.service.server import Session
    from sandbox_host.service.service import Service

_MAX_NAME: Final = 256
_MAX_PATH: Final = 4_096
_MAX_REASON: Final = 1_000
_MAX_TYPES: Final = 64
_MAX_DOWNGRADES: Final = 64
_MAX_IGNORED: Final = 64
_REHEARSAL: Final = ("replay", "tolerance", "ignore")
_INSTANCE: Final = ("instance", "config", "limits")
_MAX_REPLAY: Final = 1_000
_LOOK_SECONDS: Final = 0.25
_EVENT_QUEUE: Final = 1_024
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}(@[a-z][a-z0-9_]{0,31})?")


class Arguments:
    """The arguments of one request; every reader raises `BadValueError`."""

    def __init__(self, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
        check_keys(table, "arguments", known)
        self._table = table

    def get(self, name: str) -> Any:
        """Return an argument as it is; None where it was not given."""
        return self._table.get(name)

    def text(self, name: str, limit: int, default: str | None = None) -> str:
        """Return a text without NUL characters."""
        value = self._table.get(name, default)
        if not isinstance(value, str) or len(value) > limit or "\0" in value:
            raise expected(f"arguments.{name}", f"text of at most {limit} characters", value)
        return value

    def plugin(self) -> str:
        """Return the name of a plugin, in whichever spelling."""
        name = self.text("plugin", _MAX_NAME)
        if not _NAME.fullmatch(name):
            raise expected("arguments.plugin", "a plugin's name", name)
        return name

    def flag(self, name: str) -> bool:
        """Return a switch; False where it was not given."""
        value = self._table.get(name, False)
        if not isinstance(value, bool):
            raise expected(f"arguments.{name}", "true or false", value)
        return value

    def whole(self, name: str, most: int) -> int:
        """Return a number from 0 to `most`; 0 where it was not given."""
        return read_whole(self._table.get(name, 0), f"arguments.{name}", 0, most)

    def path(self, name: str) -> Path:
        """Return an absolute path: the service's own working directory is nobody's business."""
        text = self.text(name, _MAX_PATH)
        if not text.startswith("/"):
            raise expected(f"arguments.{name}", "an absolute path", text)
        return Path(text)

    def listed(self, name: str, most: int) -> list[Any]:
        """Return a list; an empty one where it was not given."""
        value = self._table.get(name, [])
        if not isinstance(value, list) or len(value) > most:
            raise expected(f"arguments.{name}", f"a list of at most {most}", value)
        return value

    def rehearsal(self) -> Rehearsal | None:
        """Return what a new version has to do as it was done before; None for nothing."""
        if self._table.get("replay") is None:
            return None
        tolerance = self._table.get("tolerance", 0.0)
        if type(tolerance) not in {int, float} or not 0 <= tolerance < math.inf:
            raise expected("arguments.tolerance", "a number from 0 on", tolerance)
        ignore = self.listed("ignore", _MAX_IGNORED)
        if not all(isinstance(one, str) and len(one) <= _MAX_NAME for one in ignore):
            raise expected("arguments.ignore", "names of fields", ignore)
        return Rehearsal(self.path("replay"), float(tolerance), tuple(ignore))

    def instance(self) -> Instance | None:
        """Return which of several instances of a plugin is meant; None for the plugin itself.

        Raises:
            UsageError, ConfigError: it is none; see `Instance`.
        """
        config, limits = (
            read_object(self._table.get(n, {}), f"arguments.{n}") for n in _INSTANCE[1:]
        )
        if self._table.get("instance") is None:
            if config or limits:
                raise BadValueError("arguments", "config and limits are for an instance, not named")
            return None
        return Instance(self.text("instance", _MAX_NAME), config, limits)

    def downgrades(self) -> tuple[Downgrade, ...]:
        """Return what the operator lets in although history speaks against it."""
        found = []
        for one in self.listed("downgrades", _MAX_DOWNGRADES):
            good = isinstance(one, list) and [type(part) for part in one] == [str, str, str]
            if not good or not is_version(one[1]) or not one[2].strip():
                what = "a list of name, version and reason"
                raise expected("arguments.downgrades", what, one)
            found.append(Downgrade(identity_of(one[0]), one[1], one[2][:_MAX_REASON]))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class _Operation:
    """One thing that can be asked.

    Attributes:
        run: does it.
        arguments: their names.
        long: it may take its time.
        stream: it sends items by itself.
    """

    run: Callable[[Arguments, Session], Any]
    arguments: tuple[str, ...] = ()
    long: bool = True
    stream: bool = False


class Operations:
    """Does what is asked of one service; the control server's handler."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._table: Mapping[str, _Operation] = {
            "status": _Operation(self._status, ("plugin", "receipts"), long=False),
            "load": _Operation(self._load, ("path", "downgrades", *_INSTANCE)),
            "unload": _Operation(self._unload, ("plugin", "dependants")),
            "reload": _Operation(self._reload, ("plugin", "path", "downgrades", *_REHEARSAL)),
            "configure": _Operation(self._configure),
            "enable": _Operation(self._enable, ("plugin",)),
            "disable": _Operation(self._disable, ("plugin",)),
            "release": _Operation(self._release, ("plugin",)),
            "look": _Operation(self._hurry, long=False),
            "call": _Operation(
                self._call, ("plugin", "operation", "arguments", "keywords", "deadline")
            ),
            "logs": _Operation(self._logs, ("plugin", "last", "follow"), stream=True),
            "events": _Operation(self._events, ("types", "last", "follow"), stream=True),
            "drain": _Operation(self._drain, long=False, stream=True),
        }

    # -- the server's handler ---------------------------------------------------------------

    def _meant(self, request: Request) -> _Operation:
        found = self._table.get(request.operation)
        if found is None:
            text = f"The service knows no operation {request.operation!r}."
            raise ControlError(text, remedy="Are service and command of one version?")
        return found

    def is_long(self, request: Request) -> bool:
        """Tell whether it may take its time.

        Raises:
            ControlError: there is no such operation.
        """
        return self._meant(request).long

    def is_stream(self, request: Request) -> bool:
        """Tell whether it sends items by itself."""
        return self._meant(request).stream

    def handle(self, request: Request, session: Session) -> Any:
        """Do what is asked, and return the result.

        Raises:
            SandboxHostError: it was refused, or failed.
            FrameError: nobody takes the items any more.
        """
        operation = self._meant(request)
        try:
            arguments = Arguments(request.arguments, operation.arguments)
            return operation.run(arguments, session)
        except BadValueError as error:
            text = f"The request {request.operation} is not acceptable: {error}."
            raise ControlError(text) from None

    def exit_code(self, error: AnyError) -> int:
        """Return what a command ends with for an error."""
        return self._service.orders.exit_code(error)

    # -- looking ----------------------------------------------------------------------------

    def _status(self, arguments: Arguments, _session: Session) -> dict[str, Any]:
        service, host = self._service, self._service.host
        receipts = arguments.flag("receipts")
        only = identity_of(arguments.plugin()) if arguments.get("plugin") is not None else ""
        plugins = host.plugins if host is not None else {}
        if only and only not in plugins:
            raise _not_loaded(only, plugins)
        quarantined = host.quarantined if host is not None else lambda _: ""
        return {
            "service": service.facts(),
            "plugins": [
                plugin_document(plugin, quarantined, host, receipts=receipts)
                for name, plugin in plugins.items()
                if only in {"", name}
            ],
            "waiting": service.steward.waiting if service.steward else [],
            "problems": [
                {"path": path, "reason": reason}
                for path, reason in (service.steward.problems if service.steward else {}).items()
            ],
        }

    def _logs(self, arguments: Arguments, session: Session) -> None:
        plugin = self._service.running.plugin(arguments.plugin())
        last, follow = arguments.whole("last", MAX_LINES), arguments.flag("follow")
        with contextlib.closing(LogTail(plugin.log_path)) as tail:
            lines = tail.last(last)
            while True:
                if lines:
                    session.send(lines)
                if not follow or self._service.ended.is_set() or not session.attend():
                    return
                lines = tail.new()
                if not lines:
                    session.cancelled.wait(_LOOK_SECONDS)

    def _events(self, arguments: Arguments, session: Session) -> dict[str, int]:
        types = [str(one) for one in arguments.listed("types", _MAX_TYPES)] or ["*"]
        last, follow = arguments.whole("last", _MAX_REPLAY), arguments.flag("follow")
        events = self._service.running.subscribe(*types, queue=_EVENT_QUEUE, replay=last)
        with events:
            while True:
                event = events.get(_LOOK_SECONDS if follow else 0)
                if event is not None:
                    session.send(
                        {
                            "id": event.id,
                            "type": event.type,
                            "source": event.source,
                            "timestamp": event.timestamp,
                            "data": event.data,
                        }
                    )
                elif not follow or self._service.ending.is_set():
                    break
                if not session.attend():
                    break
            return {"dropped": events.dropped}

    # -- plugins ----------------------------------------------------------------------------

    def _load(self, arguments: Arguments, _session: Session) -> dict[str, Any]:
        path, downgrades = arguments.path("path"), arguments.downgrades()
        instance, restart = arguments.instance(), self._service.orders.restart
        host = self._service.accepting()
        plugin = host.load(path, downgrades=downgrades, restart=restart, instance=instance)
        return _loaded(plugin, host.lacking(plugin.name))

    def _unload(self, arguments: Arguments, _session: Session) -> dict[str, Any]:
        name, host = arguments.plugin(), self._service.accepting()
        gone: tuple[str, ...] = (identity_of(name),)
        try:
            gone = host.unload(name, dependants=arguments.flag("dependants"))
        except NeededError:
            gone = ()
            raise
        finally:
            if self._service.steward is not None:
                for one in gone:
                    self._service.steward.disowned(one)
        return {"plugin": identity_of(name), "unloaded": list(gone)}

    def _reload(self, arguments: Arguments, _session: Session) -> dict[str, Any]:
        name, downgrades = arguments.plugin(), arguments.downgrades()
        path = arguments.path("path") if arguments.get("path") is not None else None
        host = self._service.accepting()
        before = host.plugin(name).version
        new = host.reload(name, path, downgrades=downgrades, rehearsal=arguments.rehearsal())
        return {**_loaded(new, host.lacking(new.name)), "before": before}

    def _configure(self, _arguments: Arguments, _session: Session) -> dict[str, str]:
        return {"told": self._service.reconfigure()}

    def _enable(self, arguments: Arguments, _session: Session) -> dict[str, Any]:
        identity = identity_of(arguments.plugin())
        host = self._service.accepting()
        changed = Switches(host.config.state_dir).enable(identity)
        if changed:
            self._tell_journal("enabled", identity)
            host.enabled(identity)
        self._service.hurry()
        return {"plugin": identity, "changed": changed, "loads": self._service.watch is not None}

    def _disable(self, arguments: Arguments, _session: Session) -> dict[str, Any]:
        identity = identity_of(arguments.plugin())
        host = self._service.accepting()
        changed = Switches(host.config.state_dir).disable(identity, datetime.now(UTC))
        if changed:
            self._tell_journal("disabled", identity)
        with contextlib.suppress(PluginNotFoundError):
            if names := host.processes_of(identity):  # it is the plugin that is disabled
                gone = host.unload_of(identity, names)
                if self._service.steward is not None:
                    self._service.steward.lost(one for one in gone if one not in names)
        host.disabled(identity, "by its operator", journalled=changed)
        self._service.hurry()
        return {"plugin": identity, "changed": changed}

    def _tell_journal(self, event: str, identity: str) -> None:
        with Journal(self._service.running.config.journal_path) as journal:
            journal.append(event, identity, "by its operator")
            journal.sync()

    def _release(self, arguments: Arguments, _session: Session) -> dict[str, Any]:
        name = arguments.plugin()
        self._service.accepting().release(name)
        return {"plugin": identity_of(name)}

    def _hurry(self, _arguments: Arguments, _session: Session) -> None:
        self._service.hurry()

    def _call(self, arguments: Arguments, session: Session) -> dict[str, Any]:
        plugin = self._service.accepting().callee(arguments.plugin())
        operation = arguments.text("operation", _MAX_NAME)
        values = arguments.listed("arguments", _MAX_PATH)
        keywords = dict(read_object(arguments.get("keywords") or {}, "arguments.keywords"))
        deadline = arguments.get("deadline")
        if deadline is not None and (type(deadline) not in {int, float} or not deadline >= 0):
            raise expected("arguments.deadline", "a number of seconds", deadline)
        if "deadline" in keywords or "limits" in keywords:
            raise BadValueError("arguments.keywords", "deadline and limits are the host's own")
        try:
            call = plugin.start(operation, *values, deadline=deadline, **keywords)
        except PluginEndedError:
            # Waits for it, where it is being started again; otherwise raises the same.
            return {"value": plugin.call(operation, *values, deadline=deadline, **keywords)}
        return {"value": _awaited(call, session)}

    def _drain(self, _arguments: Arguments, session: Session) -> None:
        """End the service; the client stays until all is put away, and the socket goes."""
        names = sorted(self._service.running.plugins)
        self._service.ending.set()
        session.send({"plugins": names})
        while not self._service.ended.is_set() and session.attend():
            self._service.ended.wait(_LOOK_SECONDS)


def _awaited(call: BlockingCall, session: Session) -> Any:
    """Return what a call returns; cancel it where nobody waits for that any more."""
    while True:
        try:
            return call.result(_LOOK_SECONDS)
        except TimeoutError:
            if session.cancelled.is_set() and not call.done():
                call.cancel()
                session.cancelled.clear()  # once


def _loaded(plugin: BlockingPlugin, lacking: tuple[str, ...]) -> dict[str, Any]:
    return {
        "plugin": plugin.name,
        "version": plugin.version,
        "notes": [*plugin.plan.notes, *lacking],
        "receipt": receipt_document(plugin.receipt),
    }


def _not_loaded(identity: str, plugins: Mapping[str, object]) -> SandboxHostError:
    text = f"No plugin named {identity!r} is loaded; there are: {', '.join(plugins) or 'none'}."
    return PluginNotFoundError(text, plugin=identity, remedy="Load it first.")
