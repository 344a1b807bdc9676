"""What plugin.json asks for covers what a source reaches for, and no more than that."""

from __future__ import annotations

import pytest

from sandbox_host.model import Permissions
from sandbox_host.scan.scan import MAX_SOURCE_BYTES, scan
from tests.support.scans import findings_in, read_here, rules_in

COVERED = {
    "network": ("import socket\nsocket.socket()", Permissions(network=("a.example:443",))),
    "unix": ("import socket\nsocket.socket()", Permissions(unix=("/run/x",))),
    "address": (
        "import socket\nsocket.create_connection(('A.Example.', 443))",
        Permissions(network=("a.example:443",)),
    ),
    "url": (
        "import urllib.request\nurllib.request.urlopen('https://a.example/x')",
        Permissions(network=("a.example:443",)),
    ),
    "subprocess": ("import subprocess\nsubprocess.run(x)", Permissions(subprocess=True)),
    "threads": ("import threading\nthreading.Thread()", Permissions(threads=True)),
    "native-code": ("import ctypes\nctypes.CDLL(None)", Permissions(native_code=True)),
    "env": ("import os\nos.getenv('A')", Permissions(env=("A",))),
    "read": ("open('/srv/data/x')", Permissions(read=("/srv/data",))),
    "read-all": ("open('/srv/data/x')", Permissions(read=("/",))),
    "write": ("open('/srv/data/x', 'w')", Permissions(write=("/srv/data",))),
}


@pytest.mark.parametrize(("source", "permissions"), COVERED.values(), ids=COVERED)
def test_what_is_asked_for_is_no_finding(source: str, permissions: Permissions) -> None:
    assert findings_in(source) != ()
    assert findings_in(source, permissions) == ()


BEYOND = {
    "other-host": (
        "import socket as s\ns.create_connection(('b.example', 443))",
        "SH103",
        "network",
    ),
    "other-port": (
        "import socket as s\ns.create_connection(('a.example', 22))",
        "SH103",
        "network",
    ),
    "other-variable": ("import os\nos.getenv('B')", "SH140", "env"),
    "other-file": ("open('/srv/database')", "SH150", "read"),
    "file-above": ("open('/srv/data/../x')", "SH150", "read"),
    "write-where-it-reads": ("open('/srv/data/x', 'w')", "SH151", "write"),
    "process": ("import os\nos.fork()", "SH112", "subprocess"),
}


@pytest.mark.parametrize(("source", "rule", "permission"), BEYOND.values(), ids=BEYOND)
def test_what_goes_beyond_is_a_finding_that_names_the_permission(
    source: str, rule: str, permission: str
) -> None:
    asked = Permissions(network=("a.example:443",), env=("A",), read=("/srv/data",))
    (found,) = [one for one in findings_in(source, asked) if one.rule == rule]
    assert found.permission == permission
    assert f"permissions.{permission}" in found.message


def test_no_permission_covers_code_that_hides() -> None:
    everything = Permissions(
        network=("a.example:443",), native_code=True, subprocess=True, threads=True, read=("/",)
    )
    assert ("SH201", 1) in rules_in("eval(x)", everything)


def test_what_is_asked_for_in_vain_is_told_of_plugin_json() -> None:
    found = findings_in("x = 1", Permissions(subprocess=True, env=("A",), read=("/srv",)))
    assert [(one.path, one.rule) for one in found] == [("plugin.json", "SH501")] * 2
    assert [one.message.split(",")[0] for one in found] == [
        "asks for permissions.env A",
        "asks for permissions.subprocess",
    ]


def test_native_code_is_used_by_a_plugin_that_brings_some() -> None:
    files = {"__init__.py": b"", "fast.so": b"\x7fELF"}
    assert scan(files, Permissions(native_code=True), read_here) == ()


def test_a_source_that_is_too_large_is_a_finding_and_not_read() -> None:
    read: list[str] = []

    def reader(sources: object) -> tuple[()]:
        read.extend(sources)  # type: ignore[call-overload]
        return ()

    files = {"a.py": b"#" * (MAX_SOURCE_BYTES + 1), "b.PY": b"", "c.txt": b"eval"}
    (found,) = scan(files, Permissions(), reader)
    assert (found.path, found.rule, read) == ("a.py", "SH406", ["b.PY"])


def test_a_pickle_among_the_data_is_a_finding() -> None:
    (found,) = scan({"model.bin": b"\x80\x04K\x01."}, Permissions(), read_here)
    assert (found.path, found.rule) == ("model.bin", "SH253")
