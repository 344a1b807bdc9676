"""Which version of the protocol is in force: the newest that both sides speak."""

from __future__ import annotations

from plugin_sdk.wire.limits import OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    Versions = tuple[int, int]

OURS: Versions = (OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION)
"""The oldest and the newest version that this side speaks, and all between."""

NO_COMMON_VERSION = "protocol-version"
"""Code of `Failed` where no version is spoken by both."""


def common_version(host: Versions, plugin: Versions) -> int | None:
    """Return the newest version that both speak, or None; a range upside down is empty."""
    newest = min(host[1], plugin[1])
    return newest if newest >= max(host[0], plugin[0]) else None


def mismatch(host: Versions, plugin: Versions) -> str:
    """Return a clause that names both ranges, for an error."""
    return (
        f"the host speaks {_named(host)} of the protocol, the plugin's runtime {_named(plugin)}, "
        "and there is none that both speak"
    )


def read_versions(value: object) -> Versions | None:
    """Return the range in a payload's ``versions``, ``[oldest, newest]``; None where it is none."""
    match value:
        case [int(oldest), int(newest)] if oldest >= 0 and newest >= 0:
            return int(oldest), int(newest)
        case _:
            return None


def _named(versions: Versions) -> str:
    oldest, newest = versions
    return f"version {newest}" if oldest == newest else f"versions {oldest} to {newest}"
