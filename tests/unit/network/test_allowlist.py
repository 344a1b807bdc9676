"""Where a plugin may connect to: by what is granted, and by where its name leads."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.network.allowlist import Allowlist, literal, normalized

PUBLIC = "93.184.215.14"
names = st.sampled_from(["api.example.org", "db.internal", "localhost", "127.0.0.1", "::1", PUBLIC])
ports = st.sampled_from([80, 443, 5432])
entries = st.lists(st.tuples(names, ports), max_size=4)


def entry(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@pytest.mark.parametrize(
    "written",
    ["api.example.org", "API.Example.ORG", "api.example.org.", " api.example.org "],
)
def test_a_name_is_one_however_it_is_written(written: str) -> None:
    assert Allowlist(["api.example.org:443"]).permits(written, 443)


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("api.example.org", 80),
        ("example.org", 443),
        ("x.api.example.org", 443),
        ("api.example.org\x00.evil.org", 443),
        ("", 443),
    ],
)
def test_another_is_another(host: str, port: int) -> None:
    assert not Allowlist(["api.example.org:443"]).permits(host, port)


def test_an_address_has_one_form() -> None:
    allowlist = Allowlist(["[2001:DB8::0:1]:443", "127.0.0.1:80"])
    assert allowlist.permits("2001:db8:0::1", 443)
    assert allowlist.permits("::ffff:127.0.0.1", 80)
    for other in ("127.1", "0x7f.0.0.1", "2130706433", "127.0.0.01"):
        assert not allowlist.permits(other, 80)


@given(entries, names, ports)
def test_nothing_is_permitted_that_is_not_granted(
    granted: list[tuple[str, int]], host: str, port: int
) -> None:
    allowlist = Allowlist([entry(*one) for one in granted])
    assert allowlist.permits(host, port) == ((host, port) in granted)
    assert allowlist.knows(host) == any(host == one for one, _ in granted)


@given(st.ip_addresses())
def test_only_public_addresses_are_led_to(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    fault = Allowlist(["api.example.org:443"]).address_fault("api.example.org", str(address), 443)
    plain = literal(str(address))
    assert plain is not None
    if not plain.is_global or plain.is_multicast:
        assert fault
    elif plain.version == 4:
        assert bool(fault) == str(plain).startswith("192.88.99.")


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0"),
        *("100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fd00::1"),
        *("::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1", "2001::1", "ff02::1"),
        *("fe80::1%eth0", "not an address", "fec0::1", "::127.0.0.1", "::ffff:0:7f00:1"),
        *("5f00::1", "4000::1", "200::1", "2a00::5efe:10.0.0.1", "192.88.99.1"),
    ],
)
def test_a_name_is_not_led_into_the_host_s_network(address: str) -> None:
    allowlist = Allowlist(["api.example.org:443"])
    assert "api.example.org leads to" in allowlist.address_fault("api.example.org", address, 443)
    assert not allowlist.address_fault("api.example.org", PUBLIC, 443)


def test_unless_the_address_is_granted_as_such() -> None:
    allowlist = Allowlist(["db.internal:5432", "10.0.0.5:5432", "localhost:80"])
    assert not allowlist.address_fault("db.internal", "10.0.0.5", 5432)
    assert allowlist.address_fault("db.internal", "10.0.0.6", 5432)
    assert allowlist.address_fault("db.internal", "10.0.0.5", 80)
    assert not allowlist.address_fault("localhost", "127.0.0.1", 80)
    assert allowlist.address_fault("localhost", "10.0.0.1", 80), "a lie in /etc/hosts"


@given(st.text(max_size=40))
def test_any_text_is_normalized_once(text: str) -> None:
    once = normalized(text)
    assert literal(once) is None or normalized(once) == once
