from __future__ import annotations

from dataclasses import fields

import pytest

from sandbox_host.cli.describe import counted, limit_lines, permission_lines, size
from sandbox_host.model import Permissions


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB")],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_counts() -> None:
    assert [counted(n, "key") for n in (0, 1, 2)] == ["0 keys", "1 key", "2 keys"]


def test_every_permissionis_named() -> None:
    assert permission_lines(Permissions()) == ["nothing"]
    lists = [f for f in fields(Permissions) if f.default == ()]
    flags = {f.name: True for f in fields(Permissions) if f.default is False}
    everything = Permissions(**{f.name: (f"x-{f.name}",) for f in lists}, **flags)
    assert permission_lines(everything) == [
        "publish x-publish",
        "handle x-subscribe",
        "read x-read",
        "write x-write",
        "connect to x-network",
        "connect to the socket x-unix",
        "call the service x-services",
        "call the operation x-calls",
        "see the variable x-env",
        "bring native code",
        "start processes",
        "start threads",
    ]


def test_limits_are_written_as_plugin_json_writes_them() -> None:
    limits = {"cpu_seconds": 0.5, "memory_bytes": 64 << 20, "descriptors": 32}
    assert limit_lines(limits) == ["memory 64 MiB", "cpu_time 500 ms", "descriptors 32"]
