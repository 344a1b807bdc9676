"""What stands in for the application when a recording is replayed: its services, as they answered.

Nothing is done for the plugin here. What it asks for is looked up among what was asked before, by
the service's name and the arguments, as they were redacted; a store and other plugins are services.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from sandbox_host.model import HOST_SERVICES
from sandbox_host.observe.recorder import Redactor, canonical
from sandbox_host.observe.recording import MAX_FILE_BYTES
from sandbox_host.runtime.nested import NestedCalls
from sandbox_host.runtime.own_services import OwnServices
from sandbox_host.runtime.services import Services
from sandbox_host.runtime.throwaway import ThrowawayHost, TrialHost

if TYPE_CHECKING:
    from sandbox_host.backends.base import Backend
    from sandbox_host.config import HostConfig
    from sandbox_host.observe.recording import Recording
    from sandbox_host.runtime.asked import Asked
    from sandbox_host.runtime.process import PluginProcess

SETTLE_SECONDS: Final = 1.0
"""How long events may take that were recorded after the answer of what they belong to."""

_MAX_UNKNOWN: Final = 1_000
_MAX_KEPT_BYTES: Final = MAX_FILE_BYTES // 2
_EVENT_BYTES: Final = 256
"""What an event takes beside its data."""


class Playback:
    """Answers what the plugin asks for, and keeps what it publishes. Thread-safe.

    Attributes:
        unknown: names of services that the recording had no answer of.
        published: types and data of events.

    Args:
        recording: where the answers are.
    """

    def __init__(self, recording: Recording) -> None:
        self._redactor = Redactor(recording.about.redacted)
        self._changed = threading.Condition()
        self._answers: dict[tuple[str, bytes], deque[tuple[bool, bytes | None]]]
        self._answers = defaultdict(deque)
        self.unknown: list[str] = []
        self.published: list[tuple[str, bytes]] = []
        self._kept_bytes = 0
        for one in recording.served:
            if one.payload is not None:
                with contextlib.suppress(PayloadError):  # it grew when it was packed again
                    key = (one.service, canonical(codec.unpack(one.payload)))
                    self._answers[key].append((one.ok, one.answer))

    def answer(self, service: str, payload: bytes) -> tuple[bool, bytes]:
        """Return whether a service was done, with the value or the reason."""
        try:
            value = codec.unpack(payload)
            plain = self._redactor.arguments(service, value) if self._redactor else value
            key = (service, canonical(plain))
        except (PayloadError, TypeError, IndexError):
            key = (service, b"")
        with self._changed:
            waiting = self._answers.get(key)
            ok, answer = waiting.popleft() if waiting else (False, None)
            if answer is None and len(self.unknown) < _MAX_UNKNOWN:
                self.unknown.append(service)
        if answer is None:
            return False, codec.pack({"message": "the recording has no answer to this"})
        return ok, answer

    def keep(self, event_type: str, payload: bytes) -> None:
        """Keep an event that was published; no more of them than are ever compared."""
        size = len(payload) + _EVENT_BYTES
        with self._changed:
            if self._kept_bytes + size <= _MAX_KEPT_BYTES:
                self._kept_bytes += size
                self.published.append((event_type, payload))
            self._changed.notify_all()

    def take(self, count: int, alive: Callable[[], bool]) -> list[tuple[str, bytes]]:
        """Return what was published since this was last called, as soon as it is so much."""
        until = time.monotonic() + SETTLE_SECONDS
        with self._changed:
            while len(self.published) < count and time.monotonic() < until and alive():
                self._changed.wait(0.05)
            found, self.published = self.published, []
            self._kept_bytes = 0
        return found

    def take_unknown(self) -> list[str]:
        """Return the services that the recording had no answer of, since this was last called."""
        with self._changed:
            found, self.unknown = self.unknown, []
        return found


class _PlayedServices(Services):
    """Does no service: what was recorded is the answer."""

    def __init__(self, own: OwnServices, playback: Playback, names: tuple[str, ...]) -> None:
        super().__init__(own)
        self._playback = playback
        self._names = frozenset(names) - HOST_SERVICES

    @property
    def names(self) -> frozenset[str]:
        """What the application offered."""
        return self._names

    def _outcome(self, process: PluginProcess, asked: Asked) -> tuple[bool, bytes]:
        del process
        return self._playback.answer(asked.service, asked.payload)


class _ReplayCore(TrialHost):
    """A host that has nothing to say to its plugin but what was recorded."""

    def __init__(
        self,
        config: HostConfig,
        backend: Backend | None,
        playback: Playback,
        services: tuple[str, ...],
    ) -> None:
        super().__init__(config, backend, trial=False)
        own = OwnServices(config.state_dir, NestedCalls(self.pools.callee))
        self._services = _PlayedServices(own, playback, services)
        self._playback = playback

    def published(self, process: PluginProcess, event_type: str, payload: bytes) -> None:
        """Keep it, and hold it to what every host does."""
        self._playback.keep(event_type, payload)
        super().published(process, event_type, payload)

    def _register(self, process: PluginProcess, instead_of: PluginProcess | None = None) -> None:
        """Deliver nothing of this host's own."""


class ReplayHost(ThrowawayHost):
    """A throw-away host whose services are those of a recording.

    Args:
        config: the operator's decisions.
        playback: answers, and keeps what is published.
        services: names of those that the application would offer.
        backend: another than this system's, for the host's own tests.
    """

    def __init__(
        self,
        config: HostConfig,
        playback: Playback,
        services: tuple[str, ...],
        backend: Backend | None,
    ) -> None:
        super().__init__(config, backend=backend)
        self._own = (backend, playback, services)

    def _made(self, config: HostConfig) -> TrialHost:
        return _ReplayCore(config, *self._own)
