"""Whatever a source holds, and whatever its reader says, a scan ends, each time the same."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.model import Permissions
from sandbox_host.scan.finding import in_order
from sandbox_host.scan.rules import RULES
from sandbox_host.scan.sightings import BadSightingError, read_sightings
from tests.support.scans import findings_in, read_here

# Pieces that meet each other in the places where names are followed and texts put together.
PIECES = st.sampled_from(
    [
        *("import os", "import os as a, sys", "from os import *", "from . import a", "a = os"),
        *("a = a", "a, b = b, a", "a += 'x'", "os.system", "getattr(a, b)", "a.b.c = 1"),
        *("getattr(os, 'sy' + 'stem')", "__import__(a)", "globals()[a]", "vars(os)['a']"),
        *("os.environ['A']", "del os.environ[a]", "open(a, b)", "open('/x', mode='w')", "eval"),
        *("socket.create_connection(('h', 1))", "f'{a!r:>{b}}'", "'a' 'b'", "lambda: (yield)"),
        *("x: int = (y := 1)", "match a:\n case b(c=d): pass", "'\\ud800'", "'{0.__globals__}'"),
        *("print(\u0430)", "\uff41 = 1", "# coding: latin-1", "\u202e", "\x00", "\r", "(", "]"),
        *("class A(B, metaclass=C): a = 1", "async def f(): await a", "def f(a, /, *, b=eval): 0"),
        *("''.join(['a', b])", "'ab'[::-1]", "chr(1_000_000_000)", "chr(a)", "str()", "''.join()"),
    ]
)
SOURCES = st.lists(PIECES, max_size=12).map(lambda lines: "\n".join(lines).encode())


@given(st.one_of(st.binary(max_size=400), SOURCES, st.text(max_size=200).map(str.encode)))
def test_any_bytes_are_scanned_to_the_same_findings_in_order(source: bytes) -> None:
    found = findings_in(source)
    assert found == findings_in(source)
    assert found == in_order(found)
    lines = source.count(b"\n") + source.count(b"\r") + 1
    assert all(1 <= one.line <= lines and one.column >= 1 for one in found)
    assert all(one.message.isprintable() or one.rule == "SH302" for one in found)


@given(SOURCES, st.sampled_from(["network", "env", "read", "write", "subprocess", "threads"]))
def test_asking_for_more_never_finds_more_but_that_it_is_in_vain(source: bytes, name: str) -> None:
    values = {
        "network": ("h:1",),
        "env": ("A",),
        "read": ("/",),
        "write": ("/",),
    }
    asked = Permissions(**{name: values.get(name, True)})  # type: ignore[arg-type]
    more = {one for one in findings_in(source, asked) if one.rule != "SH501"}
    assert more <= set(findings_in(source))


ANY = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(max_size=20), st.sampled_from([*RULES])
    ),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=20,
)


@given(ANY, st.binary(max_size=50))
def test_whatever_a_reader_says_is_taken_or_refused(value: object, source: bytes) -> None:
    with contextlib.suppress(BadSightingError):
        for one in read_sightings(value, "main.py", source):
            assert one.rule in RULES
            assert 1 <= one.line <= source.count(b"\n") + source.count(b"\r") + 1


def test_the_same_files_in_another_order_have_the_same_findings() -> None:
    files = {"b.py": b"eval(x)", "a.py": b"import socket"}
    from sandbox_host.scan.scan import scan

    turned = dict(reversed(files.items()))
    assert scan(files, Permissions(), read_here) == scan(turned, Permissions(), read_here)
