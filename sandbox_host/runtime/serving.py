"""Which plugin waits for the service that is being done here: it must not be called meanwhile."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

from sandbox_host.errors import ReentrantCallError


class _Service:
    """One that is being done.

    Attributes:
        plugin: identity of the plugin that waits for it.
        active: it has not been answered yet.
    """

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self.active = True


_current: contextvars.ContextVar[_Service | None] = contextvars.ContextVar("service", default=None)


def check_not_waiting(identity: str) -> None:
    """Refuse to call a plugin from within a service that it waits for: neither would ever end.

    Raises:
        ReentrantCallError: this is such a call.
    """
    service = _current.get()
    if service is not None and service.active and service.plugin == identity:
        raise ReentrantCallError(
            f"{identity} waits for this service, and cannot be called from within it.",
            plugin=identity,
            remedy="Answer it first; call the plugin afterwards, from elsewhere.",
        )


@contextlib.contextmanager
def serving(identity: str) -> Iterator[None]:
    """Do something for a plugin that waits for it, in this thread and the tasks it begins."""
    service = _Service(identity)
    token = _current.set(service)
    try:
        yield
    finally:
        # What the service has started may go on, and call the plugin then.
        service.active = False
        _current.reset(token)
