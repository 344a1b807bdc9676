"""What plugins say unasked, and what the host does about it: events, services, refusals.

All of it is a stranger's word. What a plugin has no right to say ends it; what it says too often is
told now and then; what it says of itself is marked as its own.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.limits import EVENT
from plugin_sdk.wire.services import CALL_PREFIX, PUBLISH_PREFIX
from sandbox_host.broker.topics import may_publish
from sandbox_host.errors import EventStoreError, SandboxHostError, UsageError
from sandbox_host.model import Cause
from sandbox_host.runtime import answers
from sandbox_host.runtime.causes import Ending
from sandbox_host.runtime.events import HOST
from sandbox_host.runtime.nested import may_call

if TYPE_CHECKING:
    from concurrent.futures import Future

    from sandbox_host.broker.broker import Broker
    from sandbox_host.broker.publication import Publication
    from sandbox_host.model import Denial
    from sandbox_host.observe.journal import Journal
    from sandbox_host.runtime.asked import Asked
    from sandbox_host.runtime.chronicle import Chronicle
    from sandbox_host.runtime.process import PluginProcess
    from sandbox_host.runtime.services import Services

_log = logging.getLogger("sandbox_host")

DENIED: Final = "denied"
DENIAL_REPORTED: Final = "denial_reported"
"""Events of the journal: what the host refused, and what a plugin alone says that it was refused.

Two, so that no text of a plugin's can pass for the host's, and none of one crowds out the other.
"""

_MAX_ERRORS: Final = 8


class Listener(Protocol):
    """Who is told what a running plugin does unasked: the host."""

    def published(self, process: PluginProcess, event_type: str, payload: bytes) -> None:
        """It published an event; its right to has not been checked."""

    def asked(self, process: PluginProcess, asked: Asked) -> None:
        """It asks for a service; its right to has not been checked."""

    def withdrawn(self, process: PluginProcess, number: int) -> None:
        """It waits no more for what it asked for under that number."""

    def handler_failed(self, process: PluginProcess, event_type: str, report: Any) -> None:
        """A handler of an event failed."""

    def connected(self, process: PluginProcess, where: str) -> None:
        """The host has handed a connection over to it. From any thread."""

    def denied(self, process: PluginProcess, what: str) -> None:
        """Something that it asked for is not granted. From any thread."""

    def reported(self, process: PluginProcess, denial: Denial) -> None:
        """It says itself that it was refused something. From any thread."""

    def ended(self, process: PluginProcess) -> None:
        """It has ended, and whoever waited for it knows."""

    def gone(self, process: PluginProcess) -> None:
        """Nothing of its process is left: call `PluginProcess.release`, best in another thread."""


class Audience:
    """The half of a host that listens; the other half makes what is used here when it opens."""

    _broker: Broker
    _chronicle: Chronicle
    _journal: Journal
    _services: Services

    def published(self, process: PluginProcess, event_type: str, payload: bytes) -> None:
        """Hand out what a plugin published, if it may; end it if it went around the check."""
        try:
            publication = self._publication(process, event_type, payload)
            if publication is not None and publication.stored is not None:
                publication.stored.add_done_callback(partial(self._stored, process, event_type))
        except EventStoreError as error:
            self._not_stored(process, event_type, error)

    def _publish_for(self, process: PluginProcess, asked: Asked) -> None:
        """The same, and tell it when the event is kept, or why it is not."""
        event_type = asked.service.removeprefix(PUBLISH_PREFIX)

        def tell(publication: Publication, done: Future[None] | None = None) -> None:
            error = None if done is None else done.exception()
            value = publication.event.id if error is None else _why_not_kept(error)
            process.answer(asked.number, ok=error is None, payload=codec.pack(value))

        try:
            publication = self._publication(process, event_type, asked.payload)
        except EventStoreError as error:
            process.answer(asked.number, ok=False, payload=codec.pack(_why_not_kept(error)))
            return
        if publication is None:
            return  # it has been ended
        if publication.stored is None:
            tell(publication)
        else:
            publication.stored.add_done_callback(partial(tell, publication))

    def _publication(
        self, process: PluginProcess, event_type: str, payload: bytes
    ) -> Publication | None:
        """Hand out an event, if its publisher may; else end that, and return None.

        Raises:
            EventStoreError: a durable subscription wants it and cannot have it.
        """
        identity = process.identity
        if not may_publish(event_type, process.plan.permissions.publish):
            # The SDK refuses this inside; a plugin that gets here went around it.
            shown = answers.clean(event_type, 100)
            text = f"{identity} broke the protocol: it published {shown!r} without the permission."
            process.end(Ending(Cause.PROTOCOL_VIOLATION, text))
            return None
        try:
            codec.unpack(payload, EVENT)  # only to know that whoever takes it can
            publication = self._broker.begin(event_type, payload, identity)
            self._broker.relieve()
            self._chronicle.used(process, "publish", event_type)
            return publication
        except (PayloadError, UsageError) as error:
            text = f"{identity} broke the protocol: {answers.clean(str(error), 300)}."
            process.end(Ending(Cause.PROTOCOL_VIOLATION, text))
            return None

    def _stored(self, process: PluginProcess, event_type: str, done: Future[None]) -> None:
        if (error := done.exception()) is not None:
            self._not_stored(process, event_type, error)

    def _not_stored(self, process: PluginProcess, event_type: str, error: BaseException) -> None:
        """Tell the application what a plugin published in vain; who floods is told now and then."""
        message = getattr(error, "message", "") or type(error).__name__
        message = process.complaints.told(message, time.monotonic())
        if not message:
            return
        _log.warning("%s: what it published was not kept: %s", process.identity, message)
        if event_type != "error_occurred":
            data = {"plugin": process.identity, "event": event_type, "message": message}
            self._tell("error_occurred", data)

    def asked(self, process: PluginProcess, asked: Asked) -> None:
        """Do a service for a plugin, if it may ask for it; end it if it went around the check."""
        permissions = process.plan.permissions
        if asked.service.startswith(PUBLISH_PREFIX):
            self._publish_for(process, asked)
            return
        if asked.service.startswith(CALL_PREFIX):
            target = asked.service.removeprefix(CALL_PREFIX)
            if may_call(target, permissions.calls):
                self._services.ask(process, asked)
                self._chronicle.used(process, "calls", target)
                return
        elif asked.service in permissions.services:
            self._services.ask(process, asked)
            return
        shown = answers.clean(asked.service, 100)
        what = f"it asked for the service {shown!r} without the permission"
        process.violated(what)

    def withdrawn(self, process: PluginProcess, number: int) -> None:
        """Do for a plugin no more what it does not wait for."""
        self._services.withdraw(process, number)

    def handler_failed(self, process: PluginProcess, event_type: str, report: Any) -> None:
        """Write it down, and publish ``error_occurred`` unless that is what was handled."""
        errors = report.get("errors") if isinstance(report, dict) else None
        first = errors[0] if isinstance(errors, list) and errors else {}
        told = first if isinstance(first, dict) else {}
        message = answers.clean(told.get("message"), 300)
        for one in errors[:_MAX_ERRORS] if isinstance(errors, list) else ():
            if denial := answers.denial_of(one, process.plan.permissions):
                self.reported(process, denial)
        message = process.complaints.told(message or "no reason given", time.monotonic())
        if not message:
            return
        _log.warning("%s: a handler of %s failed: %s", process.identity, event_type, message)
        if event_type != "error_occurred":
            data = {"plugin": process.identity, "event": event_type, "message": message}
            self._tell("error_occurred", data)

    def connected(self, process: PluginProcess, where: str) -> None:
        """Write down a plugin's first connection to an address."""
        self._chronicle.used(process, "network", where)

    def denied(self, process: PluginProcess, what: str) -> None:
        """Write down what a plugin asked for and is not granted; its process is told the same."""
        self._write_denial(DENIED, process, process.denials.told(what, time.monotonic()))

    def reported(self, process: PluginProcess, denial: Denial) -> None:
        """Write down what a plugin says that it was refused, marked as its own word."""
        if denial.rule == "network" and process.plan.permissions.network:
            return  # its desk is the host's, and has written it down already
        # Apart: who reports what is not so must not hide by that what the host refused.
        told = process.reports.told(denial.text, time.monotonic())
        self._write_denial(DENIAL_REPORTED, process, told)

    def _write_denial(self, event: str, process: PluginProcess, what: str) -> None:
        if not what:
            return  # a plugin that asks again and again fills no disk
        by = ", by its own word" if event == DENIAL_REPORTED else ""
        _log.warning("%s: denied%s: %s", process.identity, by, what)
        try:
            self._journal.append(event, process.identity, what)
        except (SandboxHostError, OSError) as error:
            _log.error("%s", error)

    def _tell(self, event_type: str, data: dict[str, str]) -> None:
        """Publish an event of the host's own; its data is small and plain. Never fails."""
        try:
            self._broker.publish(event_type, codec.pack(data, EVENT), HOST)
        except EventStoreError as error:
            _log.error("%s", error)


def _why_not_kept(error: BaseException) -> dict[str, str]:
    """Return the payload of an `Answer` for an event that was not written down."""
    reason = getattr(error, "message", "") or type(error).__name__
    return {"message": answers.clean(reason, 300)}
