"""The history's file: what was written is read again, and nothing else is read at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.admission.changes import Asks
from sandbox_host.admission.history import History, Record, Release
from sandbox_host.bundle.trust import StoreMark
from sandbox_host.model import Limits, Permissions
from sandbox_host.reading import BadValueError
from sandbox_host.runtime import history_file
from sandbox_host.runtime.history_file import parse, render

DIGESTS = st.sampled_from(["0" * 64, "0123456789abcdef" * 4])
RELEASES = st.builds(Release, st.sampled_from(["1.0.0", "2.0.0-alpha.beta", "1!1"]), DIGESTS)
LISTS = st.lists(st.sampled_from(["a", "/b c", "\u00fc:1"]), max_size=3, unique=True).map(tuple)
PERMISSIONS = st.builds(
    Permissions,
    **{f.name: st.booleans() if f.default is False else LISTS for f in fields(Permissions)},
)
ASKS = st.builds(
    Asks,
    PERMISSIONS,
    st.dictionaries(
        st.sampled_from([f.name for f in fields(Limits)]), st.integers(0, 2**40) | st.floats(0, 1e9)
    ),
    st.sampled_from([(), ("x >= 1.0", "y")]),
)
RECORDS = st.builds(Record, RELEASES, ASKS, st.none() | RELEASES, st.just("") | DIGESTS)
HISTORIES = st.builds(
    History,
    st.dictionaries(st.sampled_from(["weather", "a", "p_2"]), RECORDS),
    st.none() | st.just(datetime(2026, 1, 31, 12, tzinfo=UTC)),
    st.dictionaries(
        st.sampled_from(["/etc/trust.toml", "/a b/\u00fc"]),
        st.builds(StoreMark, st.integers(0, 9), DIGESTS, st.just("") | DIGESTS),
    ),
    st.dictionaries(st.sampled_from(["grants", "ceilings"]), st.just("0123456789abcdef")),
)


@given(HISTORIES)
def test_what_was_written_is_read(history):
    assert parse(render(history)) == history


@given(HISTORIES, st.data())
def test_nothing_else_is(history, data):
    """Not one byte may be another, and none missing or more."""
    written = render(history)
    place = data.draw(st.integers(0, len(written) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != written[place]))
    for wrong in (
        written[:place] + bytes([byte]) + written[place + 1 :],
        written[:place],
        written[place + 1 :],
        written + bytes([byte]),
    ):
        with pytest.raises(BadValueError):
            parse(wrong)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_way(data):
    with pytest.raises(BadValueError):
        parse(data)


def sealed(*lines):
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    digest = json.dumps({"sha256": hashlib.sha256(body).hexdigest()}, separators=(",", ":"))
    return body + digest.encode() + b"\n"


HOST = {"schema": 1, "latest": None, "stores": {}, "config": {}}
PLUGIN = {
    "plugin": "weather",
    "highest": {"version": "1.0", "digest": "0" * 64},
    "exception": None,
    "approval": "",
    "permissions": {},
    "limits": {},
    "dependencies": [],
}


def test_the_least():
    assert parse(sealed(HOST)) == History()
    assert list(parse(sealed(HOST, PLUGIN)).plugins) == ["weather"]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([[]], "host: expected an object"),
        ([{**HOST, "schema": 2}], "host.schema"),
        ([{**HOST, "latest": "2026-02-31T00:00:00Z"}], "host.latest"),
        ([{**HOST, "latest": 5}], "host.latest"),
        ([{**HOST, "more": 5}], "host.more"),
        ([{**HOST, "config": {"x": "short"}}], "host.config.x"),
        ([{**HOST, "stores": {"/x": {"version": -1, "digest": "0" * 64, "root": ""}}}], "version"),
        ([{**HOST, "stores": {str(n): {} for n in range(65)}}], "at most 64"),
        ([HOST, PLUGIN, PLUGIN], "line 3: weather is there twice"),
        ([HOST, {**PLUGIN, "plugin": "../x"}], "line 2.*plugin"),
        ([HOST, {**PLUGIN, "highest": {"version": "x y", "digest": "0" * 64}}], "a version"),
        ([HOST, {**PLUGIN, "approval": "0"}], "approval"),
        ([HOST, {**PLUGIN, "permissions": {"fly": True}}], "permissions.fly"),
        ([HOST, {**PLUGIN, "permissions": {"threads": []}}], "permissions.threads"),
        ([HOST, {**PLUGIN, "permissions": {"env": ["x"] * 2}}], "listed twice"),
        ([HOST, {**PLUGIN, "limits": {"memory_bytes": -1}}], "limits"),
        ([HOST, {**PLUGIN, "limits": {"memory_bytes": True}}], "limits"),
        ([HOST, {**PLUGIN, "limits": {"x": 1}}], "limits"),
        ([HOST, {**PLUGIN, "dependencies": ["??"]}], "dependencies"),
        ([HOST, {k: v for k, v in PLUGIN.items() if k != "limits"}], "missing"),
        ([HOST, []], "line 2"),
    ],
)
def test_what_is_sealed_and_wrong_is_told(lines, told):
    with pytest.raises(BadValueError, match=told):
        parse(sealed(*lines))


def test_too_many_plugins_are_not_written(monkeypatch):
    record = Record(Release("1.0", "0" * 64), Asks())
    monkeypatch.setattr(history_file, "MAX_PLUGINS", 1)
    render(History({"a": record}))
    with pytest.raises(BadValueError, match="at most 1 plugins"):
        render(History({"a": record, "b": record}))
    monkeypatch.setattr(history_file, "MAX_FILE_BYTES", 10)
    for act in (lambda: render(History()), lambda: parse(b"x" * 11)):
        with pytest.raises(BadValueError, match="at most 10 bytes"):
            act()
