"""What host and plugin say about the services that every host has by itself."""

from __future__ import annotations

STORE = "store"
"""The key-value store. Its first argument is what to do: get, put, delete, keys, clear, usage."""

CALL_PREFIX = "@"
"""Begins the name of what is asked for where that is an operation of another plugin, such as
``@weather_source.read``; no other service's name begins so."""

PUBLISH_PREFIX = "!"
"""Begins the name of what is asked for where that is to publish an event and say when it is kept,
such as ``!orders.new``; its payload is the event's data, and its value the event's number."""

MAX_KEY_BYTES = 256
"""Of a key of the store, in UTF-8."""

MAX_VALUE_BYTES = 1024 * 1024
"""Of a packed value. What is larger belongs into the data directory."""

MAX_KEYS = 65_536
"""In one store."""

MAX_PAGE = 1_000
"""Keys that are listed at once."""
