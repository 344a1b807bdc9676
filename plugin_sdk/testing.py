"""Unit tests of a plugin's own functions, in the test's process.

**This is no sandbox.** The plugin's code runs with everything the test may do: nothing is signed,
confined, limited or killed. It shows that the functions compute what they should. How the plugin
fares under confinement is shown by ``sandbox-host check`` and by the fixture of
``sandbox_host.testing``, which run it in the real sandbox.

::

    from plugin_sdk.testing import plugin_context

    def test_scales():
        with plugin_context(config={"factor": 2}) as test:
            from weather_features import main
            assert main.process([1, 2]) == [2, 4]
            assert test.published == [("data_processed", {"rows": 2})]

`context().store` works in memory; what stands for other plugins is passed as ``calls``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from plugin_sdk.context import Context, install_context, print_entry
from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.messages import Answer
from plugin_sdk.wire.services import CALL_PREFIX, MAX_KEYS, STORE

__all__ = ["PluginTest", "plugin_context"]


@dataclass
class PluginTest:
    """What `plugin_context` hands to a test.

    Attributes:
        context: what `plugin_sdk.context` returns inside the block.
        published: ``(event type, data)`` of everything that was published, in order, as a
            subscriber would get it: a tuple has become a list.
        logged: ``(level, text)`` of everything that `Context.log` was given, in order.
        progress: ``(done, total)`` of everything that `Context.progress` was given.
    """

    context: Context
    published: list[tuple[str, Any]] = field(default_factory=list)
    logged: list[tuple[int, str]] = field(default_factory=list)
    progress: list[tuple[int, int]] = field(default_factory=list)


class _Everything(frozenset[str]):
    def __contains__(self, item: object) -> bool:
        return True


class _Refused(Exception):  # noqa: N818 - it never leaves this module
    """Something was not done; `told` is what the host would say."""

    def __init__(self, message: str, **more: str) -> None:
        super().__init__(message)
        self.told = {"message": message, **more}


class _Services:
    """What a host would do, from functions and in memory."""

    def __init__(
        self,
        calls: Mapping[str, Callable[..., Any]],
        services: Mapping[str, Callable[..., Any]],
        store_bytes: int,
    ) -> None:
        self._calls = calls
        self._services = services
        self._store: dict[str, bytes] = {}
        self._limit = store_bytes

    def ask(self, service: str, payload: bytes) -> Answer:
        arguments, keywords = unpack(payload)
        try:
            value = self._do(service, arguments, keywords)
        except _Refused as refused:
            return Answer(1, False, payload=pack(refused.told))
        return Answer(1, True, payload=pack(value))

    def _do(self, service: str, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        if service == STORE:
            return getattr(self, f"_{arguments[0]}")(*arguments[1:])
        if not service.startswith(CALL_PREFIX):
            return self._services[service](*arguments, **keywords)
        target = service.removeprefix(CALL_PREFIX)
        try:
            return self._calls[target](*arguments, **keywords)
        except Exception as error:
            kind = type(error).__name__
            text = f"{target} raised {kind}: {error}"
            raise _Refused(text, kind="call", code="operation", type=kind) from error

    def _get(self, key: str) -> bytes | None:
        return self._store.get(key)

    def _put(self, key: str, value: bytes) -> None:
        after = {**self._store, key: value}
        if self._usage(after)["bytes"] > self._limit or len(after) > MAX_KEYS:
            text = "the store would hold more than it may"
            raise _Refused(text, kind="quota")
        self._store = after

    def _delete(self, key: str) -> bool:
        return self._store.pop(key, None) is not None

    def _keys(self, prefix: str, after: str, limit: int) -> list[str]:
        found = (key for key in self._store if key.startswith(prefix) and key > after)
        return sorted(found)[:limit]

    def _clear(self) -> int:
        removed, self._store = len(self._store), {}
        return removed

    def _usage(self, store: dict[str, bytes] | None = None) -> dict[str, int]:
        held = self._store if store is None else store
        size = sum(len(key.encode()) + len(value) for key, value in held.items())
        return {"bytes": size, "keys": len(held), "limit": self._limit}


@contextmanager
def plugin_context(
    config: dict[str, Any] | None = None,
    *,
    name: str = "plugin_under_test",
    data_dir: str | None = None,
    scratch_dir: str | None = None,
    publish: Collection[str] | None = None,
    calls: Mapping[str, Callable[..., Any]] | None = None,
    services: Mapping[str, Callable[..., Any]] | None = None,
    store_bytes: int = 16 * 1024 * 1024,
) -> Iterator[PluginTest]:
    """Let `plugin_sdk.context` work inside the block, without a host and without a sandbox.

    Args:
        config: the plugin's configuration; sent through the wire format, as the real one is.
        name: the plugin's identity.
        data_dir: its data directory; a temporary one where it is None.
        scratch_dir: its scratch directory; a temporary one where it is None.
        publish: event types it may publish; None means any.
        calls: what stands for the operations of other plugins, such as
            ``{"weather_source.read": lambda: [1, 2]}``; it may call these and no others.
        services: the same for the application's services.
        store_bytes: quota of its store, which is in memory and empty.

    Yields:
        The context, and what the plugin publishes, logs and says of its progress.

    Raises:
        plugin_sdk.wire.errors.PayloadError: the configuration has values that no plugin.json has.
    """
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory

        def send(event_type: str, payload: bytes) -> None:
            test.published.append((event_type, unpack(payload)))

        def log(level: int, logger: str, text: str) -> None:
            test.logged.append((level, text))
            print_entry(level, "" if logger == name else logger, text)

        def progress(done: int, total: int) -> None:
            test.progress.append((done, total))

        host = _Services(calls or {}, services or {}, store_bytes)
        context = Context(
            name,
            config=unpack(pack(config or {})),
            data_dir=data_dir or stack.enter_context(temporary(prefix="plugin-data-")),
            scratch_dir=scratch_dir or stack.enter_context(temporary(prefix="plugin-scratch-")),
            publishable=_Everything() if publish is None else frozenset(publish),
            send=send,
            services=frozenset({STORE, *(services or {})}),
            ask=host.ask,
            calls=frozenset(calls or {}),
            log=log,
            progress=progress,
        )
        test = PluginTest(context)
        replaced = install_context(context)
        stack.callback(install_context, replaced)
        yield test
