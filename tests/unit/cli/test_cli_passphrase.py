from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.bundle.keys import save_private_key
from sandbox_host.cli import passphrase
from sandbox_host.cli.passphrase import MAX_PASSPHRASE_BYTES, ask_passphrase, read_passphrase
from sandbox_host.errors import PassphraseError, UsageError
from tests.support.bundles import make_key


@contextmanager
def descriptor_with(data: bytes) -> Iterator[int]:
    read, write = os.pipe()
    os.write(write, data)
    os.close(write)
    try:
        yield read
    finally:
        os.close(read)


@given(st.binary(min_size=1, max_size=MAX_PASSPHRASE_BYTES).filter(lambda b: b"\n" not in b))
def test_the_first_line_is_the_passphrase(secret: bytes) -> None:
    if secret.endswith(b"\r"):
        secret += b"x"
    for ending in (b"", b"\n", b"\r\n", b"\nmore\n"):
        with descriptor_with(secret[:1023] + ending) as descriptor:
            assert read_passphrase(descriptor) == secret[:1023].removesuffix(b"\r")


@pytest.mark.parametrize("data", [b"", b"\n", b"\r\n", b"x" * (MAX_PASSPHRASE_BYTES + 1)])
def test_none_or_too_much_is_refused(data: bytes) -> None:
    with descriptor_with(data) as descriptor, pytest.raises(UsageError, match="holds no passph"):
        read_passphrase(descriptor)


def test_a_closed_descriptor_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(UsageError, match="cannot be read from descriptor 987"):
        read_passphrase(987)


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("secret\n"))
    with pytest.raises(UsageError, match="no terminal to ask"):
        ask_passphrase("Passphrase")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_key_is_asked_for_its_passphrase_only_where_it_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def prompt(text: str, **_: object) -> str:
        asked.append(text)
        return "open sesame"

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(click, "prompt", prompt)
    plain, locked = tmp_path / "plain", tmp_path / "locked"
    save_private_key(make_key(1), plain)
    save_private_key(make_key(2), locked, b"open sesame")
    assert passphrase.open_private_key(plain, None).public == make_key(1).public
    assert not asked
    assert passphrase.open_private_key(locked, None).public == make_key(2).public
    assert len(asked) == 1
    with descriptor_with(b"wrong\n") as descriptor, pytest.raises(PassphraseError, match="wrong"):
        passphrase.open_private_key(locked, descriptor)
