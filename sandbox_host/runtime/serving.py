"""Which plugins wait for the services that are being done: to call one of them would never end.

A service that A waits for may call B, and a service that B asks for then may not call A: B waits
for that, and A for B. A plugin counts as called until the service that called it has ended. A call
of one plugin to another is such a service of the host's own.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Iterator

from sandbox_host.errors import ReentrantCallError


class _Service:
    """One that is being done.

    Attributes:
        plugin: identity of the plugin that waits for it.
        active: it has not been answered yet.
        called: identities of plugins that it has called.
    """

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self.active = True
        self.called: set[str] = set()


_lock = threading.Lock()
_being_done: set[_Service] = set()
_current: contextvars.ContextVar[_Service | None] = contextvars.ContextVar("service", default=None)


def check_not_waiting(identity: str) -> None:
    """Refuse to call a plugin from within a service that it waits for: neither would ever end.

    Raises:
        ReentrantCallError: this is such a call.
    """
    service = _current.get()
    if service is None or not service.active:
        return
    with _lock:
        way = _way(identity, service.plugin)
        if way is None:
            service.called.add(identity)
            return
    by_way_of = f", by way of {', '.join(way)}" if way else ""
    raise ReentrantCallError(
        f"{identity} waits for this service{by_way_of}, and cannot be called from within it.",
        plugin=identity,
        remedy="Answer it first; call the plugin afterwards, from elsewhere.",
    )


def _way(identity: str, other: str) -> tuple[str, ...] | None:
    """Return by way of whom one plugin waits for another by services, that one last; locked.

    Nothing where they are one and the same; None where it does not wait for it.
    """
    seen, left = {identity}, deque[tuple[str, ...]]([()])
    while left:
        way = left.popleft()
        one = way[-1] if way else identity
        if one == other:
            return way
        for called in {c for s in _being_done if s.plugin == one for c in s.called} - seen:
            seen.add(called)
            left.append((*way, called))
    return None


@contextlib.contextmanager
def serving(identity: str) -> Iterator[None]:
    """Do something for a plugin that waits for it, in this thread and the tasks it begins."""
    service = _Service(identity)
    token = _current.set(service)
    with _lock:
        _being_done.add(service)
    try:
        yield
    finally:
        with _lock:
            _being_done.discard(service)
        # What the service has started may go on, and call the plugin then.
        service.active = False
        _current.reset(token)
