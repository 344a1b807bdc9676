"""The desk, asked over its socket by whoever stands for a plugin."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.network import CONNECT, MAX_REQUEST_BYTES, RESOLVE
from sandbox_host.budget.rate import Bucket
from sandbox_host.network import desk as module
from sandbox_host.network import dial, meter
from sandbox_host.network.allowlist import Allowlist
from sandbox_host.network.desk import BadRequestError, NetworkDesk, parse_request
from sandbox_host.network.diag import Passed
from tests.support.traces import eventually

GOOD = {"id": 1, "ask": CONNECT, "host": "127.0.0.1", "port": 80, "seconds": 1.0}


class Asker:
    """A plugin's end, and what the desk told its host."""

    def __init__(self, *entries: str) -> None:
        ours, self.end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end.settimeout(10)
        self.denied: list[str] = []
        self.violations: list[str] = []
        self.faults: list[BaseException] = []
        self.passed: list[int] = []
        self.desk = NetworkDesk(
            ours,
            Allowlist(entries),
            on_denied=self.denied.append,
            on_violation=self.violations.append,
            on_fault=self.faults.append,
            on_passed=self.passed.append,
        )

    def ask(self, **changed: Any) -> tuple[dict[str, Any], list[int]]:
        self.end.send(pack(GOOD | changed))
        data, passed, _, _ = socket.recv_fds(self.end, 8_192, 4)
        return unpack(data), passed

    def close(self) -> None:
        self.desk.close()
        self.end.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


@pytest.fixture
def asker(port: int) -> Iterator[Asker]:
    made = Asker(f"127.0.0.1:{port}", f"names.example:{port}", f"localhost:{port}")
    yield made
    made.close()


def test_a_connection_is_handed_over(asker: Asker, listener: socket.socket, port: int) -> None:
    answer, passed = asker.ask(port=port)
    assert (answer["id"], answer["error"], len(passed)) == (1, "", 1)
    accepted, _ = listener.accept()
    with accepted, socket.socket(fileno=passed[0]) as given:
        given.sendall(b"hello")
        assert accepted.recv(16) == b"hello"
    assert eventually(lambda: asker.desk.connections == 1)


@pytest.mark.skipif(not meter.is_available(), reason="the kernel does not tell")
def test_what_passes_is_counted_from_the_first_byte_to_the_last(
    asker: Asker, listener: socket.socket, port: int
) -> None:
    for number in range(1, 4):
        _, passed = asker.ask(port=port)
        accepted, _ = listener.accept()
        with accepted, socket.socket(fileno=passed[0]) as given:
            given.sendall(bytes(1_000))
            accepted.sendall(bytes(3_000))
            assert eventually(lambda: asker.desk.passed().received == 3_000 * number)  # noqa: B023
            assert asker.desk.passed().sent == 1_000 * number
    assert eventually(lambda: asker.passed[-1:] == [12_000])


def test_where_nobody_counts_it_serves_all_the_same(
    port: int, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    monkeypatch.setattr(meter, "open_account", refused)
    made = Asker(f"127.0.0.1:{port}")
    try:
        _, passed = made.ask(port=port)
        accepted, _ = listener.accept()
        with accepted, socket.socket(fileno=passed[0]) as given:
            given.sendall(b"hello")
        assert made.desk.passed() == Passed()
        assert made.faults == []
    finally:
        made.close()


def test_the_desk_keeps_none_of_it(asker: Asker, listener: socket.socket, port: int) -> None:
    """What the plugin closes is closed."""
    _, passed = asker.ask(port=port)
    accepted, _ = listener.accept()
    os.close(passed[0])
    with accepted:
        accepted.settimeout(10)
        assert accepted.recv(16) == b""


@pytest.mark.parametrize(
    ("host", "other"),
    [("127.0.0.1", 1), ("127.0.0.2", 0), ("example.org", 0), ("::1", 0), ("0.0.0.0", 0)],
)
def test_what_is_not_granted(asker: Asker, port: int, host: str, other: int) -> None:
    answer, passed = asker.ask(host=host, port=port + other)
    assert (answer["errno"], passed) == (errno.EPERM, [])
    assert f"{host}" in answer["error"]
    assert asker.denied == [answer["error"]]


def test_names_are_resolved_for_granted_ones_only(
    asker: Asker, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def resolve(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    monkeypatch.setattr(dial, "resolve", resolve)
    assert asker.ask(ask=RESOLVE, host="evil.example")[0]["errno"] == errno.EPERM
    assert asked == []
    assert asker.ask(ask=RESOLVE, host="LOCALHOST")[0]["addresses"] == ["127.0.0.1"]
    assert asked == ["localhost"]
    # What a name led to may be connected to, on the name's port.
    answer, passed = asker.ask(port=port)
    assert answer["error"] == ""
    os.close(passed[0])


def test_a_granted_name_that_leads_inside_is_refused(
    asker: Asker, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: whoever owns the name would choose the host's own network."""
    monkeypatch.setattr(dial, "resolve", lambda _: ["169.254.169.254"])
    connected = []
    monkeypatch.setattr(dial, "connect", lambda *what: connected.append(what))
    asker.ask(ask=RESOLVE, host="names.example", port=port)
    for host in ("names.example", "169.254.169.254"):
        answer, _ = asker.ask(host=host, port=port)
        assert answer["errno"] == errno.EPERM
        assert "which is no public address" in answer["error"]
    assert connected == []


def test_an_address_is_remembered_for_its_name_only(
    asker: Asker, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial, "resolve", lambda _: ["93.184.215.14"])
    asker.ask(ask=RESOLVE, host="names.example", port=port)
    answer, _ = asker.ask(host="93.184.215.14", port=port + 1)
    assert answer["errno"] == errno.EPERM


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), errno.ECONNREFUSED),
        (TimeoutError("timed out"), errno.ETIMEDOUT),
        (socket.gaierror(socket.EAI_NONAME, "Name not known"), errno.EHOSTUNREACH),
    ],
    ids=["refused", "late", "unknown"],
)
def test_what_fails_is_told(
    asker: Asker, port: int, monkeypatch: pytest.MonkeyPatch, error: OSError, number: int
) -> None:
    def fail(*_: object) -> socket.socket:
        raise error

    monkeypatch.setattr(dial, "connect", fail)
    answer, _ = asker.ask(port=port)
    assert answer["errno"] == number
    assert asker.denied == []


def test_many_at_once(asker: Asker, listener: socket.socket, port: int) -> None:
    listener.listen(64)
    for number in range(32):
        asker.end.send(pack(GOOD | {"id": number, "port": port}))
    answers = [socket.recv_fds(asker.end, 8_192, 4) for _ in range(32)]
    assert {unpack(data)["id"] for data, *_ in answers} == set(range(32))
    for _, passed, _, _ in answers:
        os.close(passed[0])


def test_a_plugin_that_does_not_read_holds_nobody_up(
    asker: Asker, listener: socket.socket, port: int
) -> None:
    asker.end.settimeout(0.2)

    def flood() -> None:
        for number in range(10_000):
            asker.end.send(pack(GOOD | {"id": number, "ask": RESOLVE, "host": "x.example"}))

    with pytest.raises(TimeoutError):
        flood()
    asker.close()
    names = {f"sandbox-host-network-{number}" for number in range(module.SERVERS)}
    assert eventually(lambda: not names & {thread.name for thread in threading.enumerate()})


def test_closing_ends_its_threads(port: int) -> None:
    made = Asker(f"127.0.0.1:{port}")
    before = threading.active_count()
    made.close()
    assert eventually(lambda: threading.active_count() <= before - module.SERVERS)


@pytest.mark.parametrize(
    "data",
    [
        b"garbage",
        b"\x80",
        pack([]),
        pack(GOOD | {"id": "1"}),
        pack(GOOD | {"more": 1}),
        pack(GOOD | {"ask": "listen"}),
        pack(GOOD | {"ask": []}),
        b"",
        pack(GOOD | {"host": ""}),
        pack(GOOD | {"host": "a\nb"}),
        pack(GOOD | {"host": "x" * 256}),
        pack(GOOD | {"port": 65_536}),
        pack(GOOD | {"port": True}),
        pack(GOOD | {"seconds": float("nan")}),
        pack(GOOD | {"seconds": 1}),
        pack(GOOD | {"host": "x" * 255}) + bytes(MAX_REQUEST_BYTES),
    ],
)
def test_what_is_no_request_is_a_violation(port: int, data: bytes) -> None:
    made = Asker(f"127.0.0.1:{port}")
    made.end.send(data)
    assert eventually(lambda: len(made.violations) == 1)
    made.close()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    try:
        request = parse_request(data)
    except BadRequestError:
        return
    assert request.ask in {CONNECT, RESOLVE}
    assert 0 <= request.port <= 65_535


whole = st.integers(-(2**63), 2**64 - 1)


@given(st.dictionaries(st.sampled_from([*GOOD, "x"]), whole | st.text() | st.floats()))
def test_any_fields_are_a_request_or_refused(fields: dict[str, Any]) -> None:
    try:
        request = parse_request(pack(GOOD | fields))
    except BadRequestError:
        return
    assert request.ask in {CONNECT, RESOLVE}
    assert request.host.isprintable()
    assert 0 <= request.port <= 65_535
    assert math.isfinite(request.seconds)


def test_few_connections_are_on_their_way_to_who_does_not_take_them(
    asker: Asker, listener: socket.socket, port: int
) -> None:
    """Each is a descriptor of the host's user, of whom the kernel allows so many in flight."""
    listener.listen(256)
    asker.end.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        for number in range(200):
            asker.end.send(pack(GOOD | {"id": number, "port": port}))
    asker.desk._rate = Bucket(1e6, 1e6)
    assert not eventually(lambda: asker.desk.connections >= 40, seconds=1.5)
    asker.end.settimeout(20)
    taken = 0
    while taken < 100:
        data, passed, _, _ = socket.recv_fds(asker.end, 8_192, 4)
        assert unpack(data)["error"] == ""
        os.close(passed[0])
        taken += 1


def test_a_host_that_cannot_hand_over_says_so(
    asker: Asker, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """A socket whose user has too many descriptors on their way."""

        def sendmsg(self, data: Any, rights: Any, flags: int) -> int:
            if rights:
                raise OSError(errno.ETOOMANYREFS, "Too many references")
            return plain.sendmsg(data, rights, flags)

        def __getattr__(self, name: str) -> Any:
            return getattr(plain, name)

    plain = asker.desk._end
    monkeypatch.setattr(asker.desk, "_end", Full())
    answer, passed = asker.ask(port=port)
    assert (answer["errno"], passed) == (errno.EAGAIN, [])
    monkeypatch.setattr(asker.desk, "_end", plain)
    assert asker.ask(ask=RESOLVE, host="127.0.0.1")[0]["error"] == "", "it goes on"


def test_a_name_that_can_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Asker("a..b:80")
    try:
        assert made.ask(host="a..b")[0]["errno"] == errno.EINVAL
        assert made.faults == []
    finally:
        made.close()


def test_what_is_being_connected_is_given_up_when_nobody_wants_it() -> None:
    """Nobody is at this address (RFC 5737): packets to it are dropped, or refused at once."""
    began = time.monotonic()
    with pytest.raises(OSError, match=r".+"):
        dial.connect("192.0.2.1", 9, 30.0, lambda: True)
    assert time.monotonic() - began < 10
