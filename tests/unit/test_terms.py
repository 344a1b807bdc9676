"""Limits and permissions, read in the same words from both sides."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, fields

import pytest

from sandbox_host.model import Limits, Permissions
from sandbox_host.reading import BadValueError
from sandbox_host.terms import (
    LIMIT_KEYS,
    check_json_value,
    check_limits,
    pattern_covers,
    read_limits,
    read_permissions,
)


def test_every_field_of_limits_has_one_key():
    assert {key.field for key in LIMIT_KEYS} == set(Limits.__slots__)
    assert len({key.key for key in LIMIT_KEYS}) == len(LIMIT_KEYS)


@pytest.mark.parametrize("key", LIMIT_KEYS, ids=lambda key: key.key)
def test_the_defaults_are_in_range_and_written_as_they_are_read(key):
    value = getattr(Limits(), key.field)
    text = key.text(value)
    written = text.strip('"') if text.startswith('"') else int(text)
    assert key.read(written, "x") == value
    assert type(key.read(written, "x")) is type(value)


def test_only_the_operator_names_the_total():
    assert read_limits({"cpu_total": "1.5 s"}, "limits", operator=True) == {"cpu_total_seconds": 2}
    with pytest.raises(BadValueError, match=r"limits\.cpu_total: unknown key"):
        read_limits({"cpu_total": 1}, "limits")


def test_limits_made_in_python_are_checked():
    assert check_limits(Limits(), "limits") == Limits()
    with pytest.raises(BadValueError, match=r"limits\.memory_bytes: expected a value from"):
        check_limits(Limits(memory_bytes=1), "limits")


@pytest.mark.parametrize("key", ["publish", "subscribe"])
def test_patterns_of_events(key):
    got = read_permissions({key: ["weather_*", "a.?"]}, "g")
    assert got == Permissions(**{key: ("weather_*", "a.?")})
    with pytest.raises(BadValueError, match=rf"p\.{key}\[0\]: expected an event type"):
        read_permissions({key: ["weather-*"]}, "p")


def test_every_permission_can_be_read():
    flags = {f.name: True for f in fields(Permissions) if f.default is False}
    paths = {"read": ["/a"], "write": ["/b"], "unix": ["/c"]}
    names = {"publish": ["p"], "subscribe": ["s"], "env": ["E"], "services": ["x.y"]}
    table = {**flags, **paths, **names, "network": ["h:1"], "calls": ["x.y", "a_b.*", "*.?"]}
    assert set(table) == {f.name for f in fields(Permissions)}
    got = read_permissions(table, "g")
    assert {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(got).items()} == table


@pytest.mark.parametrize("entry", ["x", "X.y", "x.y.z", "x.", ".y", "x.y z", "*", "x.\n", 1, ""])
def test_what_names_no_operation_of_a_plugin(entry):
    with pytest.raises(BadValueError, match=r"p\.calls\[0\]: expected an operation of a plugin"):
        read_permissions({"calls": [entry]}, "p")


@pytest.mark.parametrize(
    ("granted", "requested", "covered"),
    [
        ("*", "*", True),
        ("*", "a?*", True),
        ("a_*", "a_*", True),
        ("a_*", "a_b", True),
        ("a?", "ab", True),
        ("a?", "a?", True),
        ("a?", "a*", False),
        ("a_*", "a*", False),
        ("a", "a?", False),
        ("a.b", "axb", False),
        ("a", "b", False),
        ("a*b*c", "a?b*c", True),
        ("a*b*c", "acb", False),
        ("a*ab", "ab", False),
        ("*ab*ab", "abab", True),
        ("*ab*ab", "ab", False),
        ("**", "a", True),
        # Both from one plugin.json: with every star tried anew, this does not end in our lifetime.
        ("*a" * 28 + "*b", "a" * 64, False),
    ],
)
def test_patterns_of_patterns(granted, requested, covered):
    assert pattern_covers(granted, requested) is covered


@pytest.mark.parametrize("path", ["/", "/srv/data set/\u00e9"])
def test_clean_paths(path):
    assert read_permissions({"read": [path]}, "p").read == (path,)


@pytest.mark.parametrize(
    "path", ["", "//", "a", "/a//b", "/./a", "/a/..", "/a\n", 3, "/" + "a" * 1024]
)
def test_unclean_paths(path):
    with pytest.raises(BadValueError, match=r"p\.read\[0\]: expected an absolute path"):
        read_permissions({"read": [path]}, "p")


@pytest.mark.parametrize("name", ["TOKEN", "_x", "PGPASSWORD", "SSL_CERT_FILE", "LDAP", "token_2"])
def test_names_of_variables(name):
    assert read_permissions({"env": [name]}, "p").env == (name,)


@pytest.mark.parametrize(
    "name", ["", "A B", "A=B", "1A", "A*", "A-B", "\u00c4", "A" * 129, "A\n", 3]
)
def test_no_names_of_variables(name):
    with pytest.raises(BadValueError, match=r"p\.env\[0\]: expected a name of an environment"):
        read_permissions({"env": [name]}, "p")


@pytest.mark.parametrize(
    "name",
    [
        *("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "GLIBC_TUNABLES"),
        *("MALLOC_ARENA_MAX", "GCONV_PATH", "LOCPATH", "RES_OPTIONS", "RESOLV_HOST_CONF"),
        *("HOSTALIASES", "PYTHONPATH", "PYTHONHOME", "PYTHONHASHSEED", "PYTHON_GIL"),
        *("OPENSSL_CONF", "OPENSSL_MODULES", "SSLKEYLOGFILE", "ASAN_OPTIONS", "UBSAN_OPTIONS"),
        *("OMP_NUM_THREADS", "OMP_TOOL_LIBRARIES", "KMP_AFFINITY", "MKL_THREADING_LAYER"),
        *("HOME", "TMPDIR", "TMP", "TEMP", "PATH", "TZ", "TZDIR", "LANG", "LC_ALL"),
        *("SANDBOX_HOST_DEBUG", "RAYON_NUM_THREADS"),
    ],
)
def test_variables_that_change_the_interpreter_or_are_the_hosts(name):
    with pytest.raises(BadValueError, match=r"p\.env\[0\]: .* neither requested nor granted: \w+"):
        read_permissions({"env": [name]}, "p")


@pytest.mark.parametrize("value", [dt.date(2020, 1, 1), 2**63, float("inf"), {1: 2}, b"x"])
def test_no_json_value(value):
    with pytest.raises(BadValueError):
        check_json_value({"a": [value]}, "config")


def test_json_value_depth():
    value: object = 1
    for _ in range(40):
        value = [value]
    with pytest.raises(BadValueError, match="nested too deeply"):
        check_json_value(value, "config")
