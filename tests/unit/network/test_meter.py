"""The meter: one for the process, with an account for each plugin."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sandbox_host.network import diag, meter
from sandbox_host.network.diag import Passed
from tests.support.traces import eventually

pytestmark = pytest.mark.skipif(not meter.is_available(), reason="the kernel does not tell")


@contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    with one, other:
        yield one, other


class Told:
    """An account, and what was told of it."""

    def __init__(self) -> None:
        self.passed: list[Passed] = []
        self.faults: list[BaseException] = []
        self.account = meter.open_account(self.passed.append, self.faults.append)

    def last(self) -> Passed:
        return self.passed[-1] if self.passed else Passed()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    monkeypatch.setattr(meter, "LOOK_SECONDS", 0.05)
    made = Told()
    yield made
    made.account.close()
    assert eventually(lambda: meter._shared is None), "the last one's leaving ends it"
    assert made.faults == []


def meters() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "sandbox-host-meter"]


def test_it_is_told_what_passes(told: Told) -> None:
    with connection() as (one, other):
        told.account.add(one)
        one.sendall(bytes(100))
        other.sendall(bytes(200))
        assert eventually(lambda: told.last() == Passed(100, 200))
        assert told.account.passed() == Passed(100, 200)


def test_what_is_asked_for_is_of_this_moment(told: Told) -> None:
    with connection() as (one, other):
        told.account.add(one)
        for number in range(1, 20):
            one.sendall(bytes(10))
            assert other.recv(10)
            assert eventually(lambda: told.account.passed().sent == 10 * number)  # noqa: B023


def test_short_connections_are_counted_to_their_end(told: Told) -> None:
    for _ in range(20):
        with connection() as (one, _):
            told.account.add(one)
            one.sendall(bytes(50))
    assert eventually(lambda: told.last().sent == 20 * 50 and not told.account.open)


def test_accounts_are_kept_apart(told: Told) -> None:
    another = Told()
    with connection() as (one, other):
        told.account.add(one)
        another.account.add(other)
        one.sendall(bytes(100))
        assert eventually(lambda: another.last().received == 100)
        assert eventually(lambda: told.last() == Passed(100, 0))
    assert eventually(lambda: len(meters()) == 1)
    another.account.close()


def test_it_ends_with_the_last_account() -> None:
    one, other = Told(), Told()
    one.account.close()
    assert eventually(lambda: len(meters()) == 1)
    other.account.close()
    assert eventually(lambda: not meters())
    again = Told()
    assert eventually(lambda: len(meters()) == 1)
    again.account.close()
    assert eventually(lambda: not meters())


def test_a_plugin_that_is_gone_is_counted_to_its_end(told: Told) -> None:
    another = Told()
    with connection() as (one, _):
        another.account.add(one)
        another.account.close()
        one.sendall(bytes(70))
    assert eventually(lambda: another.last().sent == 70)


def test_without_word_of_an_end_the_last_look_stands(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "LOOK_SECONDS", 0.02)
    attend = diag.attend
    monkeypatch.setattr(diag, "attend", lambda listener, _: attend(listener, []))
    with connection() as (one, other):
        # Nothing at all is heard of any connection's end now.
        told.account.add(one)
        one.sendall(bytes(100))
        assert other.recv(100)
        assert eventually(lambda: told.last().sent == 100)
    assert eventually(lambda: not told.account.open)
    assert told.account.passed().sent == 100


def test_who_fails_at_being_told_fails_alone(told: Told) -> None:
    def fail(_: Passed) -> None:
        raise RuntimeError("cannot take it")

    faults: list[BaseException] = []
    failing = meter.open_account(fail, faults.append)
    with connection() as (one, other):
        failing.add(one)
        told.account.add(other)
        one.sendall(bytes(10))
        assert eventually(lambda: bool(faults))
        assert eventually(lambda: told.last().received == 10)
    failing.close()


def test_a_fault_is_told_to_all() -> None:
    one, other = Told(), Told()

    def fail() -> None:
        raise RuntimeError("broken")

    shared = meter._shared
    assert shared is not None
    shared._look = fail  # type: ignore[method-assign]
    one.account.close()
    assert eventually(lambda: [str(e) for e in other.faults] == ["broken"])
    assert meter._shared is None
    assert other.account.passed() == Passed()
    other.account.close()


def test_a_forked_copy_has_one_of_its_own(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: -1)
    another = Told()
    assert another.account._meter is not told.account._meter
    another.account.close()
    monkeypatch.undo()
    assert eventually(lambda: len(meters()) == 1)


def test_where_the_kernel_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> diag.Asker:
        raise OSError("no such protocol")

    monkeypatch.setattr(diag, "Asker", refused)
    assert not meter.is_available()
    with pytest.raises(OSError, match="no such protocol"):
        Told()
