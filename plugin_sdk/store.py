"""A plugin's own key-value store, which the host keeps: ``context().store``.

What is written there outlives the process, a crash of it, and the host. Keys are text of at most
256 bytes, values are plain values; both together have a quota, ``"limits": {"store": …}``. A plugin
asks for it as for any service: ``"permissions": {"services": ["store"]}``.
"""

from __future__ import annotations

from plugin_sdk.errors import NotSerializableError
from plugin_sdk.wire.services import MAX_KEY_BYTES, MAX_PAGE, MAX_VALUE_BYTES, STORE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from plugin_sdk.context import Context


class Store:
    """The store of the plugin that this process runs. Thread-safe.

    Every method asks the host and waits for it, some 100 µs; each may raise `StoreError` (the host
    cannot read or write it) and `PermissionDenied` (the service is not granted).
    """

    __slots__ = ("_context",)

    def __init__(self, context: Context) -> None:
        self._context = context

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or ``default`` where there is none."""
        packed = self._context.ask(STORE, "get", _key(key))
        if packed is None:
            return default
        from plugin_sdk.wire.codec import unpack

        return unpack(packed)

    def put(self, key: str, value: Any) -> None:
        """Keep a value under a key, in place of the one that was there.

        It is on the host's side when this returns: neither this process nor the host loses it by
        ending. When the machine fails, the last moments may be lost, and the rest is whole.

        Args:
            key: text of 1 to 256 bytes in UTF-8.
            value: plain values, at most 1 MiB when packed.

        Raises:
            QuotaExceededError: the store would hold more than it may, or too many keys.
            NotSerializableError: the key or the value cannot be carried.
        """
        from plugin_sdk.wire.codec import pack
        from plugin_sdk.wire.errors import PayloadError

        name = _key(key)
        try:
            packed = pack(value)
        except PayloadError as error:
            text = f'the value for "{name}" cannot be stored: {error}'
            raise NotSerializableError(text) from None
        if len(packed) > MAX_VALUE_BYTES:
            text = (
                f'the value for "{name}" has {len(packed)} bytes, and one may have '
                f"{MAX_VALUE_BYTES}: put it into context().data_dir"
            )
            raise NotSerializableError(text)
        self._context.ask(STORE, "put", name, packed)

    def delete(self, key: str) -> bool:
        """Remove a key and its value; return whether it was there."""
        removed: bool = self._context.ask(STORE, "delete", _key(key))
        return removed

    def keys(self, prefix: str = "", *, after: str = "", limit: int = MAX_PAGE) -> list[str]:
        """Return keys in the order of their code points.

        Args:
            prefix: only those that begin so.
            after: only those behind this one: the last of a page begins the next.
            limit: at most so many, from 1 to 1,000.
        """
        _text(prefix)
        _text(after)
        found: list[str] = self._context.ask(STORE, "keys", prefix, after, limit)
        return found

    def __iter__(self) -> Iterator[str]:
        """Return all keys, page by page; what is changed meanwhile may be in it or not."""
        after = ""
        while page := self.keys(after=after):
            yield from page
            after = page[-1]

    def clear(self) -> int:
        """Remove everything; return how many keys there were."""
        removed: int = self._context.ask(STORE, "clear")
        return removed

    def usage(self) -> dict[str, int]:
        """Return ``{bytes, keys, limit}``: what it holds, and how many bytes it may hold."""
        used: dict[str, int] = self._context.ask(STORE, "usage")
        return used


def _key(key: object) -> str:
    text = _text(key)
    if not text:
        message = "a key of the store is not empty"
        raise NotSerializableError(message)
    return text


def _text(key: object) -> str:
    """Return a key, or the beginning of one, if it is text that a store takes."""
    if not isinstance(key, str):
        text = f"a key of the store is a str, not {type(key).__name__}"
        raise NotSerializableError(text)
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        text = "a key of the store has no lone surrogates"
        raise NotSerializableError(text) from None
    if size > MAX_KEY_BYTES:
        text = f"a key of the store has at most {MAX_KEY_BYTES} bytes, not {size}"
        raise NotSerializableError(text)
    return key
