"""Which plugins wait for the services that are being done: to call one of them would never end.

A service that A waits for may call B, and a service that B asks for then may not call A: B waits
for that, and A for B. A plugin counts as called until the service that called it has ended.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
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
        if not _waits_for(identity, service.plugin):
            service.called.add(identity)
            return
    by_way_of = "" if identity == service.plugin else f", by way of {service.plugin}"
    raise ReentrantCallError(
        f"{identity} waits for this service{by_way_of}, and cannot be called from within it.",
        plugin=identity,
        remedy="Answer it first; call the plugin afterwards, from elsewhere.",
    )


def _waits_for(identity: str, other: str) -> bool:
    """Tell whether one plugin is another, or waits for it by way of services; locked."""
    waited_for, left = set[str](), [identity]
    while left:
        one = left.pop()
        if one == other:
            return True
        if one not in waited_for:
            waited_for.add(one)
            left += [called for s in _being_done if s.plugin == one for called in s.called]
    return False


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
