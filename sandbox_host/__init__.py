"""Runs Python plugins that nobody vouches for: signed, confined, reached over pipes, accounted for.

This is the whole public API::

    async with SandboxHost(HostConfig(...)) as host:
        model = await host.load("plugins/weather_model")
        answer = await model.call("predict", rows, deadline=1.0)

`SandboxHost.blocking` is the same without asyncio. Every error derives from `SandboxHostError`; see
`sandbox_host.errors` for the tree.
"""

from __future__ import annotations

import logging

from sandbox_host import errors
from sandbox_host.config import HostConfig
from sandbox_host.errors import SandboxHostError
from sandbox_host.model import Cause, Event, Layer, Limits, Permissions, Receipt, State, Usage
from sandbox_host.runtime.blocking import BlockingHost, BlockingPlugin
from sandbox_host.runtime.host import EventStream, Plugin, SandboxHost

__all__ = [
    "BlockingHost",
    "BlockingPlugin",
    "Cause",
    "Event",
    "EventStream",
    "HostConfig",
    "Layer",
    "Limits",
    "Permissions",
    "Plugin",
    "Receipt",
    "SandboxHost",
    "SandboxHostError",
    "State",
    "Usage",
    "errors",
]

# A library says nothing on its own; the application decides where warnings go.
logging.getLogger("sandbox_host").addHandler(logging.NullHandler())

__version__ = "0.1.0"
