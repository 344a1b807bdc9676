"""What plugin authors import.

::

    from plugin_sdk import Model, context, on, operation

Importing it loads four small modules and nothing else; the wire, the child and the test support
come in only where they are used.
"""

from __future__ import annotations

from plugin_sdk.context import Context, context
from plugin_sdk.errors import (
    CallError,
    Cancelled,
    ContextUnavailableError,
    DeadlinePassed,
    EventTypeError,
    NotSerializableError,
    PermissionDenied,
    PluginSdkError,
    PluginStoppingError,
    QuotaExceededError,
    ServiceError,
    StoreError,
    StreamBrokenError,
)
from plugin_sdk.events import Event, on
from plugin_sdk.kinds import DataSource, Model, Pipeline, operation

__all__ = [
    "CallError",
    "Cancelled",
    "Context",
    "ContextUnavailableError",
    "DataSource",
    "DeadlinePassed",
    "Event",
    "EventTypeError",
    "Model",
    "NotSerializableError",
    "PermissionDenied",
    "Pipeline",
    "PluginSdkError",
    "PluginStoppingError",
    "QuotaExceededError",
    "ServiceError",
    "StoreError",
    "StreamBrokenError",
    "context",
    "on",
    "operation",
]
