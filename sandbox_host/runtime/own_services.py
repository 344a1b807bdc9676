"""The services that every host has by itself: each plugin's store, and calls of other plugins.

What is asked for is a stranger's word. Values of the store and arguments of calls pass unread: a
plugin packed them and a plugin unpacks them, so that no value costs the host more than its bytes.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.limits import ARGUMENTS
from plugin_sdk.wire.services import (
    CALL_PREFIX,
    MAX_KEY_BYTES,
    MAX_PAGE,
    MAX_VALUE_BYTES,
    STORE,
)
from sandbox_host.backends.worker import Worker
from sandbox_host.runtime import refusal
from sandbox_host.runtime.refusal import RefusalError
from sandbox_host.runtime.store import STORES, PluginStore, StoreFaultError, StoreQuotaError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandbox_host.runtime.asked import Asked
    from sandbox_host.runtime.nested import NestedCalls
    from sandbox_host.runtime.process import PluginProcess

_LIST: Final = b"\x92"
"""How msgpack begins a list of two: of arguments and keywords, and of nothing else."""

_forked: Final[list[object]] = []


class OwnServices:
    """Those of one host. Thread-safe.

    Args:
        state_dir: the host's, where the stores are.
        calls: makes the calls of plugins to each other.
    """

    def __init__(self, state_dir: Path, calls: NestedCalls) -> None:
        self._directory = state_dir / STORES
        self._calls = calls
        self._lock = threading.Lock()
        self._stores: dict[PluginProcess, PluginStore] = {}
        self._closer = Worker("sandbox-host-store")

    @staticmethod
    def has(service: str) -> bool:
        """Tell whether a service is one of these."""
        return service == STORE or service.startswith(CALL_PREFIX)

    def do(self, process: PluginProcess, asked: Asked) -> bytes:
        """Do one of these services, and return its packed value.

        Raises:
            RefusalError: it was not done; the plugin is told why.
            PayloadError: what it asks with breaks the protocol.
        """
        if asked.service.startswith(CALL_PREFIX):
            # Nothing else may be in there, such as a stream that nobody feeds: what the other
            # plugin says of one would be taken for a fault of its own.
            if asked.payload[:1] != _LIST:
                text = "what it calls with is no list of arguments and keywords"
                raise PayloadError(text)
            return self._calls.call(
                asked.service.removeprefix(CALL_PREFIX), asked, process.identity
            )
        arguments = read_arguments(asked.payload)
        try:
            return codec.pack(self._stored(process, arguments))
        except StoreQuotaError as error:
            raise RefusalError(str(error), refusal.QUOTA) from None
        except StoreFaultError as error:
            text = f"the store cannot be used: {error}"
            raise RefusalError(text, refusal.STORE) from error

    def forget(self, process: PluginProcess, then: Callable[[], object]) -> None:
        """Close what a plugin that has ended had open, and do something after that.

        Elsewhere, because closing waits for the disk; at once, where there is nothing to close.
        """
        with self._lock:
            store = self._stores.pop(process, None)
        if store is None:
            then()
            return

        def close() -> None:
            store.close()
            then()

        self._closer.submit(close)

    def copied(self) -> None:
        """Belong to a forked copy of the host: what is open is the original's.

        SQLite forbids to use a connection in a copy, and to close it is to use it.
        """
        _forked.append(self._stores)
        self._stores = {}

    def close(self) -> None:
        """Wait for what is being closed."""
        self._closer.shutdown()

    def _stored(self, process: PluginProcess, arguments: list[Any]) -> Any:
        store = self._store_of(process)
        match arguments:
            case ["get", str(key)]:
                return store.get(_key(key))
            case ["put", str(key), bytes(value)]:
                if len(value) > MAX_VALUE_BYTES:
                    text = f"a value has at most {MAX_VALUE_BYTES} bytes, not {len(value)}"
                    raise RefusalError(text)
                return store.put(_key(key), value)
            case ["delete", str(key)]:
                return store.delete(_key(key))
            case ["keys", str(prefix), str(after), int(limit)] if 1 <= limit <= MAX_PAGE:
                return store.keys(_bounded(prefix), _bounded(after), limit)
            case ["clear"]:
                return store.clear()
            case ["usage"]:
                used, keys = store.usage()
                return {"bytes": used, "keys": keys, "limit": process.limits.store_bytes}
            case _:
                pass
        text = f"the store knows no such request; keys are text, a page has 1 to {MAX_PAGE} of them"
        raise RefusalError(text)

    def _store_of(self, process: PluginProcess) -> PluginStore:
        with self._lock:
            store = self._stores.get(process)
            if store is None:
                if process.gone:
                    text = "the plugin has ended"
                    raise StoreFaultError(text)
                directory = self._directory / process.identity
                store = self._stores[process] = PluginStore(directory, process.limits.store_bytes)
        return store


def read_arguments(payload: bytes) -> list[Any]:
    """Return the positional arguments of a request that has no others.

    Raises:
        PayloadError: it is no such request.
    """
    match codec.unpack(payload, ARGUMENTS):
        case [list(arguments), dict(keywords)] if not keywords:
            return arguments
    text = "what it asks for is no list of arguments without keywords"
    raise PayloadError(text)


def _key(key: str) -> str:
    if not key:
        text = "a key is not empty"
        raise RefusalError(text)
    return _bounded(key)


def _bounded(key: str) -> str:
    if len(key) > MAX_KEY_BYTES or len(key.encode()) > MAX_KEY_BYTES:
        text = f"a key has at most {MAX_KEY_BYTES} bytes"
        raise RefusalError(text)
    return key
