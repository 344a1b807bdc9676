"""Calls of one plugin to another, through the host.

Both must have it in their plugin.json: the caller under ``permissions.calls``, which its operator
has granted, and the callee under ``exports``. The arguments and the value pass unread from one
process to the other; what the callee raises arrives as its class's name and a text, never as an
object. The call costs the callee, as every call does. At the caller's deadline it is asked to end;
at the callee's own it is made to. Who waits for whom is known to `serving`: a cycle is refused.
"""

from __future__ import annotations

import math
import re
import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from plugin_sdk.wire.messages import Failure, Result
from sandbox_host.errors import (
    DeadlineExceededError,
    OperationError,
    PluginEndedError,
    PluginError,
    PluginNotFoundError,
)
from sandbox_host.runtime import refusal
from sandbox_host.runtime.party import Request
from sandbox_host.runtime.refusal import RefusalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sandbox_host.ipc.calls import Pending
    from sandbox_host.runtime.asked import Asked
    from sandbox_host.runtime.process import PluginProcess
    from sandbox_host.runtime.slot import Slot

_TARGET: Final = re.compile(r"([a-z][a-z0-9_]{0,127})\.([A-Za-z_][A-Za-z0-9_]{0,63})")
_LOOK_SECONDS: Final = 0.1
"""How often whoever waits for a plugin to start again looks whether its caller still does."""

_MAX_FAILURE_BYTES: Final = 128 * 1024
"""A failure's text is bounded by the SDK; whoever says more has gone around it, and is not read."""


def may_call(target: str, granted: Iterable[str]) -> bool:
    """Tell whether a plugin with these grants may call ``plugin.operation``."""
    if not _TARGET.fullmatch(target):
        return False
    return any(fnmatchcase(target, pattern) for pattern in granted)


class NestedCalls:
    """Makes them. Thread-safe; holds no lock while it waits.

    Args:
        find: returns the place of a plugin's callee by both identities, or raises
            PluginNotFoundError.
    """

    def __init__(self, find: Callable[[str, str], Slot]) -> None:
        self._find = find

    def call(self, target: str, asked: Asked, caller: str) -> bytes:
        """Run an operation of another plugin, and return its packed value.

        Args:
            target: such as ``weather_source.read``; that the caller may has been checked.
            asked: its arguments, and until when it waits.
            caller: identity of the plugin that asks.

        Raises:
            RefusalError: it came to nothing.
        """
        name, _, operation = target.partition(".")
        try:
            slot = self._find(name, caller)
        except PluginNotFoundError as error:
            text = f"no plugin {name} is loaded"
            raise RefusalError(text, refusal.CALL, code=error.code) from None
        try:
            return self._made(slot, operation, asked)
        except PluginError as error:
            kind = error.type_name if isinstance(error, OperationError) else ""
            raise RefusalError(error.message, refusal.CALL, code=error.code, type=kind) from None

    def _begun(self, slot: Slot, operation: str, asked: Asked) -> tuple[PluginProcess, Pending]:
        """Send the call to who stands there, or will before its caller's deadline."""
        patience = time.monotonic() + asked.seconds_left(slot.process.limits.wall_seconds)
        while True:
            while slot.empty and asked.is_wanted() and (now := time.monotonic()) < patience:
                slot.wait(min(patience, now + _LOOK_SECONDS))
            callee = slot.process
            if operation not in callee.plan.manifest.exports:
                text = (
                    f"{slot.identity} does not export it. Its plugin.json would have to list it "
                    f'("exports": ["{operation}"]), and be signed again'
                )
                raise RefusalError(text, refusal.PERMISSION, rule="exports")
            allowed = callee.limits.wall_seconds
            seconds = asked.seconds_left(allowed)
            # Its caller is a plugin, and has no say in the life of another: what it waits for no
            # more is asked to end, and made to at the callee's own deadline.
            request = Request(
                operation, (), {}, allowed, packed=asked.payload, asked_seconds=seconds
            )
            try:
                return callee, callee.talk.begin(request)
            except PluginEndedError:
                # It was not sent. Another may have taken the place at this moment, or will.
                gone = slot.process is callee and not slot.empty
                if gone or not asked.is_wanted() or time.monotonic() >= patience:
                    raise

    def _made(self, slot: Slot, operation: str, asked: Asked) -> bytes:
        callee, pending = self._begun(slot, operation, asked)
        allowed = callee.limits.wall_seconds
        seconds = asked.seconds_left(allowed)
        asked.on_withdrawn(lambda: callee.talk.cancel(pending, hard=False))
        until = time.monotonic() + seconds if seconds < allowed else math.inf
        callee.channel.wait(pending, until=until)
        if not pending.done():
            callee.talk.cancel(pending, late=True, hard=False)
            text = f"{callee.identity}.{operation} took longer than its caller waits"
            raise RefusalError(text, refusal.CALL, code=DeadlineExceededError.code)
        answer = pending.answer
        if isinstance(answer, Result) and not pending.yields:
            return answer.payload
        if isinstance(answer, Failure) and len(answer.payload) > _MAX_FAILURE_BYTES:
            text = f"{callee.identity}.{operation} failed, and says too much of it to be read"
            raise RefusalError(text, refusal.CALL, code=OperationError.code)
        callee.talk.result(pending)
        text = f"{callee.identity}.{operation} came to no value"
        raise RefusalError(text, refusal.CALL, code=PluginError.code)
