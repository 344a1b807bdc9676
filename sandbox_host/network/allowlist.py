"""Decides where a plugin may connect to, by name and port. Pure: names and addresses in, words out.

Whoever resolves a name decides where it leads: an address that is not public is refused unless it
is granted as such, so that a granted name cannot be pointed at the host's own network (DNS
rebinding; OWASP, Server-Side Request Forgery).
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

LOCALHOST: Final = "localhost"

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Addresses that carry another inside, to which a router on the way goes on (RFC 6052, 3056, 4380).
_CARRIERS: Final = tuple(
    map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))
)
_RELAYS: Final = ipaddress.IPv4Network("192.88.99.0/24")
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""All that was ever given out of IPv6 (RFC 3587); what else there is, is for something special."""

_ISATAP: Final = (0x0000_5EFE, 0x0200_5EFE)  # the third quarter of such an address (RFC 5214)


def normalized(host: str) -> str:
    """Return a host as it is compared: in lower case, without a final dot or brackets.

    An address is in its shortest form, so that there is one way to write it.
    """
    text = host.strip().lower().removesuffix(".").removeprefix("[").removesuffix("]")
    address = literal(text)
    return text if address is None else str(address)


def literal(host: str) -> _Address | None:
    """Return the address that a host is written as, or None for a name.

    An IPv6 address with a zone is none; one that stands for an IPv4 address is that.
    """
    if "%" in host:
        return None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class Allowlist:
    """The ``host:port`` entries that a plugin requested and was granted.

    Args:
        entries: such as ``api.example.org:443``, ``127.0.0.1:5432`` or ``[::1]:80``; checked by
            `sandbox_host.terms`.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        split = (entry.rpartition(":") for entry in entries)
        self._granted = frozenset((normalized(host), int(port)) for host, _, port in split)
        self._hosts = frozenset(host for host, _ in self._granted)

    def permits(self, host: str, port: int) -> bool:
        """Tell whether this host, as it is written, may be connected to on this port."""
        return (normalized(host), port) in self._granted

    def knows(self, host: str) -> bool:
        """Tell whether anything of this host is granted, so that its name may be resolved."""
        return normalized(host) in self._hosts

    def address_fault(self, host: str, address: str, port: int) -> str:
        """Return why a name must not lead to an address, or "".

        Args:
            host: the granted name.
            address: what it was resolved to.
            port: of the connection.
        """
        found = literal(address)
        if found is None:
            return f"{host} leads to {address}, which is no plain address"
        if self.permits(str(found), port):
            return ""
        if normalized(host) == LOCALHOST and found.is_loopback:
            return ""
        if _is_public(found):
            return ""
        return (
            f"{host} leads to {found}, which is no public address: it has to be granted as such, "
            f'"{_entry(found, port)}"'
        )


def _is_public(address: _Address) -> bool:
    if not address.is_global or address.is_multicast:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return address not in _RELAYS
    carried = any(address in network for network in _CARRIERS)
    isatap = (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP
    return address in _UNICAST and not carried and not isatap


def _entry(address: _Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"  # noqa: PLR2004
