"""Runs Python plugins that nobody vouches for: signed, confined, reached over pipes, accounted for.

This is the whole public API::

    async with SandboxHost(HostConfig(...)) as host:
        model = await host.load("plugins/weather_model")
        answer = await model.call("predict", rows, deadline=1.0)

`SandboxHost.blocking` is the same without asyncio. Every error derives from `SandboxHostError`; see
`sandbox_host.errors` for the tree.

A name is imported when it is first used (PEP 562): ``sandbox-host --help`` and every pytest run,
which loads `sandbox_host.testing`, must not pay for the whole host.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from sandbox_host import errors
from sandbox_host.errors import SandboxHostError

if TYPE_CHECKING:
    from sandbox_host.admission.history import Downgrade
    from sandbox_host.admission.instances import Instance
    from sandbox_host.broker.durable import DurableEvent
    from sandbox_host.broker.policies import Policy, SubscriptionInfo
    from sandbox_host.config import HostConfig
    from sandbox_host.health.record import PluginHealth
    from sandbox_host.model import (
        CallUsage,
        Cause,
        Event,
        Guarantee,
        Layer,
        Limits,
        Metered,
        OperationLimits,
        OperationUsage,
        Permissions,
        Receipt,
        State,
        Usage,
    )
    from sandbox_host.observe.recorder import RecordingOptions
    from sandbox_host.runtime.blocking import BlockingCall, BlockingHost, BlockingPlugin
    from sandbox_host.runtime.chains import BlockingChain, Chain
    from sandbox_host.runtime.event_streams import BlockingEvents, EventStream
    from sandbox_host.runtime.group import LoadedAll
    from sandbox_host.runtime.host import SandboxHost
    from sandbox_host.runtime.plugin import Call, Plugin
    from sandbox_host.runtime.rehearsal import Rehearsal
    from sandbox_host.runtime.replicas import BlockingReplicas, Replicas
    from sandbox_host.runtime.streaming import BlockingStream, Stream
    from sandbox_host.supervision.lifecycle import PluginLife, PluginState
    from sandbox_host.supervision.restart import RestartPolicy

__all__ = [
    "BlockingCall",
    "BlockingChain",
    "BlockingEvents",
    "BlockingHost",
    "BlockingPlugin",
    "BlockingReplicas",
    "BlockingStream",
    "Call",
    "CallUsage",
    "Cause",
    "Chain",
    "Downgrade",
    "DurableEvent",
    "Event",
    "EventStream",
    "Guarantee",
    "HostConfig",
    "Instance",
    "Layer",
    "Limits",
    "LoadedAll",
    "Metered",
    "OperationLimits",
    "OperationUsage",
    "Permissions",
    "Plugin",
    "PluginHealth",
    "PluginLife",
    "PluginState",
    "Policy",
    "Receipt",
    "RecordingOptions",
    "Rehearsal",
    "Replicas",
    "RestartPolicy",
    "SandboxHost",
    "SandboxHostError",
    "State",
    "Stream",
    "SubscriptionInfo",
    "Usage",
    "errors",
]

# A library says nothing on its own; the application decides where warnings go.
logging.getLogger("sandbox_host").addHandler(logging.NullHandler())

__version__ = "0.1.0"

_HOMES = {
    "admission.history": ("Downgrade",),
    "admission.instances": ("Instance",),
    "broker.durable": ("DurableEvent",),
    "broker.policies": ("Policy", "SubscriptionInfo"),
    "config": ("HostConfig",),
    "health.record": ("PluginHealth",),
    "model": (
        *("CallUsage", "Cause", "Event", "Guarantee", "Layer", "Limits", "Metered"),
        *("OperationLimits", "OperationUsage", "Permissions", "Receipt", "State", "Usage"),
    ),
    "observe.recorder": ("RecordingOptions",),
    "runtime.blocking": ("BlockingCall", "BlockingHost", "BlockingPlugin"),
    "runtime.chains": ("BlockingChain", "Chain"),
    "runtime.event_streams": ("BlockingEvents", "EventStream"),
    "runtime.group": ("LoadedAll",),
    "runtime.host": ("SandboxHost",),
    "runtime.plugin": ("Call", "Plugin"),
    "runtime.rehearsal": ("Rehearsal",),
    "runtime.replicas": ("BlockingReplicas", "Replicas"),
    "runtime.streaming": ("BlockingStream", "Stream"),
    "supervision.lifecycle": ("PluginLife", "PluginState"),
    "supervision.restart": ("RestartPolicy",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
