"""Where alerts go: the log, the journal, subscribers, a webhook, a command; each in a thread.

A webhook and a command are the operator's: no plugin can name one, and what a plugin says comes to
them as JSON text only, escaped and short, never as a part of a URL, a header or a command line.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import subprocess
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from sandbox_host.health.alerts import Kind, Severity

if TYPE_CHECKING:
    import http.client
    import socket
    from collections.abc import Callable, Iterator

    from sandbox_host.monitoring_terms import AlertSettings
    from sandbox_host.runtime.alerting import Message, Sink

_log = logging.getLogger("sandbox_host")

ALERT: Final = "alert"
"""The journal's event."""

_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r\n]")
_MAX_STATUS_BYTES: Final = 1_024
_WELL: Final = range(200, 300)


class SinkError(Exception):
    """An alert could not be told; the text says why."""


class _QuickSink:
    """One that needs nobody's leave to end."""

    def abandon(self) -> None:
        """Let go of what goes on: the host ends."""


class LogSink(_QuickSink):
    """The host's log: recovery as information, trouble by its severity."""

    name = "log"

    def tell(self, message: Message) -> None:
        """Log it."""
        alert, level = message.alert, logging.WARNING
        if alert.kind is Kind.RECOVERED:
            level = logging.INFO
        elif alert.severity is Severity.ERROR:
            level = logging.ERROR
        _log.log(level, "alert: %s", message.line)


class JournalSink(_QuickSink):
    """The journal.

    Args:
        append: writes a line: event, plugin, detail.
    """

    name = "journal"

    def __init__(self, append: Callable[[str, str, str], object]) -> None:
        self._append = append

    def tell(self, message: Message) -> None:
        """Write a line.

        Raises:
            JournalError: it cannot be written.
        """
        alert = message.alert
        detail = f"{alert.rule} {alert.kind} ({alert.severity}): {alert.text}"
        self._append(ALERT, alert.plugin, detail)


class EventSink(_QuickSink):
    """Subscribers of ``error_occurred``.

    Args:
        publish: publishes an event of the host's own.
    """

    name = "event"

    def __init__(self, publish: Callable[[str, dict[str, str]], object]) -> None:
        self._publish = publish

    def tell(self, message: Message) -> None:
        """Publish it, with text values only."""
        document = message.document
        told = {key: str(document[key]) for key in ("plugin", "rule", "kind", "severity")}
        self._publish("error_occurred", {**told, "event": ALERT, "message": message.alert.text})


class WebhookSink(_QuickSink):
    """A URL that gets a POST each; whatever is not 2xx has failed. No redirect is followed.

    Of the answer only the status is read, within one deadline that its connecting shares: a server
    that drips, or answers without end, holds up nobody but this sink.

    Args:
        url: http or https, checked.
        timeout: seconds for each.
    """

    name = "webhook"

    def __init__(self, url: str, timeout: float) -> None:
        self._parts = urlsplit(url)
        self._timeout = timeout

    def tell(self, message: Message) -> None:
        """Send it.

        Raises:
            SinkError: it was not taken. The text has no part of the URL but its host, since many
                have a secret in their path.
        """
        body = json.dumps(message.document).encode()
        until = time.monotonic() + self._timeout
        try:
            connection = self._connected()
            try:
                status = self._status(connection, body, until)
            finally:
                connection.close()
        except (OSError, ValueError) as error:
            text = f"{self._parts.hostname}: {getattr(error, 'strerror', None) or error}"
            raise SinkError(text) from None
        if status not in _WELL:
            text = f"{self._parts.hostname} answered {status}"
            raise SinkError(text)

    def _connected(self) -> http.client.HTTPConnection:
        # Loaded by hosts that have a webhook.
        import http.client
        import ssl

        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=context)
        return http.client.HTTPConnection(host, port, timeout=self._timeout)

    def _status(self, connection: http.client.HTTPConnection, body: bytes, until: float) -> int:
        target = self._parts.path or "/"
        if self._parts.query:
            target = f"{target}?{self._parts.query}"
        connection.connect()
        peer: socket.socket = connection.sock
        peer.settimeout(_left(until))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "sandbox-host",
            "Connection": "close",
        }
        connection.request("POST", target, body, headers)
        answer = b""
        while not (match := _STATUS.match(answer)):
            peer.settimeout(_left(until))
            data = peer.recv(_MAX_STATUS_BYTES)
            answer += data
            if not data or len(answer) > _MAX_STATUS_BYTES:
                text = "its answer is no HTTP"
                raise ValueError(text)
        return int(match[1])


def _left(until: float) -> float:
    """Return how many seconds are left.

    Raises:
        TimeoutError: none are.
    """
    left = until - time.monotonic()
    if left <= 0:
        text = "it did not answer in time"
        raise TimeoutError(text)
    return left


class CommandSink:
    """A program that is run for each alert, one at a time, and gets it on its standard input.

    Args:
        command: the program's whole path, and its arguments; no shell reads them.
        timeout: seconds for each run; then it is killed, with what it has started and waits for.
    """

    name = "command"

    def __init__(self, command: tuple[str, ...], timeout: float) -> None:
        self._command = command
        self._timeout = timeout
        self._kill: Callable[[], None] | None = None

    def abandon(self) -> None:
        """Kill what runs: the host ends, and nobody would."""
        if (kill := self._kill) is not None:
            kill()

    def tell(self, message: Message) -> None:
        """Run it.

        Raises:
            SinkError: it could not be run, ended with another status than 0, or took too long.
        """
        program = self._command[0]
        try:
            # What it says is not kept: where it should be, the program writes it there.
            process = subprocess.Popen(  # noqa: S603, TID251 - the operator's own, not a plugin's
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            text = f"{program}: {getattr(error, 'strerror', None) or error}"
            raise SinkError(text) from None
        self._kill = lambda: _kill(process)
        with process:
            try:
                process.communicate(json.dumps(message.document).encode(), self._timeout)
            except subprocess.TimeoutExpired:
                _kill(process)
                text = f"{program} was killed after {self._timeout:g} s"
                raise SinkError(text) from None
        self._kill = None
        if process.returncode:
            text = f"{program} ended with status {process.returncode}"
            raise SinkError(text)


def _kill(process: subprocess.Popen[bytes]) -> None:  # noqa: TID251 - its type alone
    """Kill a command and what it has started, else a shell leaves behind what hung in it."""
    # Loaded by hosts that have a command, and it hangs.
    import psutil

    started: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        started = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for one in started:
        with contextlib.suppress(psutil.Error):
            one.kill()  # compares when it began: it is no other one of that pid


def sinks_of(
    settings: AlertSettings,
    append: Callable[[str, str, str], object],
    publish: Callable[[str, dict[str, str]], object],
) -> Iterator[Sink]:
    """Yield the sinks that are set.

    Args:
        settings: the operator's.
        append: see `JournalSink`.
        publish: see `EventSink`.
    """
    if settings.log:
        yield LogSink()
    if settings.journal:
        yield JournalSink(append)
    if settings.event:
        yield EventSink(publish)
    if settings.webhook is not None:
        yield WebhookSink(settings.webhook, settings.timeout_seconds)
    if settings.command:
        yield CommandSink(settings.command, settings.timeout_seconds)
