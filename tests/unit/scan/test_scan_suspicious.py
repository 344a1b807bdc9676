"""Suspicious lines, each with the rule that has to see it, and the line that it stands in."""

from __future__ import annotations

import base64
import hashlib

import pytest

from sandbox_host.scan.plugin import text
from tests.support.scans import findings_in, rules_in

BLOB = base64.b64encode(b"".join(hashlib.sha256(bytes([n])).digest() for n in range(20))).decode()

SUSPICIOUS = {
    # what needs a permission
    "import-of-the-network": ("import socket", "SH101", 1),
    "part-of-a-package-of-the-network": ("from urllib import request", "SH101", 1),
    "import-in-a-function": ("def f():\n    import http.client", "SH101", 2),
    "socket": ("import socket\nsocket.socket()", "SH102", 2),
    "socket-by-alias": ("import socket as s\nx = s\nx.create_connection(a)", "SH102", 3),
    "address": ("import socket\nsocket.create_connection(('evil.example', 80))", "SH103", 2),
    "url": ("import urllib.request as r\nr.urlopen('https://evil.example/x')", "SH103", 2),
    "process-import": ("import subprocess", "SH111", 1),
    "shell": ("import os\nos.system('id')", "SH112", 2),
    "shell-by-from": ("from os import system as s\ns('id')", "SH112", 1),
    "shell-uncalled": ("import os\nmap(os.system, names)", "SH112", 2),
    "shell-by-star": ("from os import *\nsystem('id')", "SH112", 2),
    "shell-by-modules": ("import sys\nsys.modules['os'].system('id')", "SH112", 2),
    "shell-by-getattr": ("import os\ngetattr(os, 'system')('id')", "SH112", 2),
    "shell-by-vars": ("import os\nvars(os)['system']('id')", "SH112", 2),
    "shell-by-import-call": ("__import__('os').system('id')", "SH112", 1),
    "shell-by-import-module": (
        "import importlib as i\ni.import_module('os').system('id')",
        "SH112",
        2,
    ),
    "shell-by-one-of-two": ("import os\nf = print\nif x:\n    f = os.system\nf('id')", "SH112", 5),
    "threads": ("import threading\nthreading.Thread(target=f)", "SH122", 2),
    "ctypes": ("import ctypes", "SH131", 1),
    "cffi": ("from cffi import FFI", "SH131", 1),
    "library": ("import ctypes\nctypes.CDLL(None)", "SH132", 2),
    "variable": ("import os\nos.environ['AWS_SECRET']", "SH140", 2),
    "variable-by-get": ("from os import environ\nenviron.get('AWS_SECRET')", "SH140", 2),
    "variable-by-getenv": ("import os\nos.getenv('AWS_' + 'SECRET')", "SH140", 2),
    "variable-asked-for": ("import os\n'HOME' in os.environ", "SH140", 2),
    "environment": ("import os\ndict(os.environ)", "SH141", 2),
    "variable-computed": ("import os\nos.environ[name()]", "SH141", 2),
    "variable-set": ("import os\nos.environ['A'] = '1'", "SH142", 2),
    "file": ("open('/etc/hostname')", "SH150", 1),
    "file-in-a-home": ("import os\nopen(os.path.expanduser('~/notes'))", "SH150", 2),
    "file-by-parts": ("import os\nopen(os.path.join('/etc', 'hostname'))", "SH150", 2),
    "directory": ("import os\nos.listdir('/home')", "SH150", 2),
    "path": ("from pathlib import Path\nPath('/home/x')", "SH150", 2),
    "file-written": ("open('/etc/motd', 'w')", "SH151", 1),
    "file-written-by-path": (
        "import pathlib as p\np.Path('/etc/motd').write_text('')",
        "SH151",
        2,
    ),
    "file-written-by-flags": ("import os\nos.open('/etc/motd', os.O_RDWR)", "SH151", 2),
    "file-removed": ("import os\nos.remove('/etc/motd')", "SH151", 2),
    "file-climbed-to": ("open('../../secret')", "SH152", 1),
    "sensitive": ("x = '/etc/shadow'", "SH153", 1),
    # what works around reading the code
    "eval": ("eval(x)", "SH201", 1),
    "exec-by-builtins": ("import builtins as b\nb.exec(x)", "SH201", 2),
    "compile": ("compile(x, '', 'exec')", "SH201", 1),
    "eval-by-dictionary": ("__builtins__['eval'](x)", "SH201", 1),
    "eval-by-globals": ("globals()['__builtins__'].eval(x)", "SH201", 1),
    "exec-decoded": ("import base64\nexec(base64.b64decode(x))", "SH202", 2),
    "code-object": ("import types\ntypes.CodeType(0)", "SH203", 2),
    "import-call": ("__import__(x)", "SH211", 1),
    "import-computed": ("import importlib\nimportlib.import_module(x)", "SH212", 2),
    "breakpoint": ("breakpoint()", "SH213", 1),
    "path-of-modules": ("import sys\nsys.path.insert(0, '.')", "SH214", 2),
    "getattr-computed": ("getattr(x, y)", "SH220", 1),
    "getattr-computed-of-module": ("import os\ngetattr(os, y)", "SH221", 2),
    "name-hidden": ("import os\ngetattr(os, 'sys' + 'tem')", "SH222", 2),
    "name-reversed": ("__import__('so'[::-1])", "SH222", 1),
    "name-joined": ("import os\ngetattr(os, ''.join(['sy', 'stem']))", "SH222", 2),
    "name-from-numbers": ("__import__(chr(111) + chr(115))", "SH222", 1),
    "globals": ("globals()[x]", "SH223", 1),
    "subclasses": ("().__class__.__base__.__subclasses__()", "SH230", 1),
    "globals-of-function": ("f.__globals__", "SH230", 1),
    "internals-by-getattr": ("getattr(f, '__globals__')", "SH230", 1),
    "internals-by-match": ("match x:\n    case object(__code__=y):\n        pass", "SH230", 2),
    "builtins-by-name": ("b = __builtins__", "SH230", 1),
    "bases": ("x.__mro__", "SH231", 1),
    "frames": ("e.__traceback__.tb_frame", "SH232", 1),
    "internals-in-format": ("'{0.__globals__}'.format(f)", "SH233", 1),
    "settrace": ("import sys\nsys.settrace(f)", "SH240", 2),
    "setprofile": ("from sys import setprofile", "SH240", 1),
    "audit-hook": ("import sys\nsys.addaudithook(f)", "SH240", 2),
    "builtins-replaced": ("import builtins\nbuiltins.open = f", "SH241", 2),
    "builtins-replaced-by-setattr": ("import builtins\nsetattr(builtins, 'open', f)", "SH241", 2),
    "objects-of-others": ("import gc\ngc.get_objects()", "SH242", 2),
    "stream-replaced": ("import sys\nsys.stdout = f", "SH243", 2),
    "sdk-internals": ("import plugin_sdk.lockdown", "SH244", 1),
    "marshal": ("import marshal", "SH251", 1),
    "pickle": ("import pickle\npickle.loads(x)", "SH252", 2),
    "yaml": ("import yaml\nyaml.load(x)", "SH252", 2),
    "numpy": ("import numpy as np\nnp.load(x, allow_pickle=True)", "SH252", 2),
    # what deceives the eye
    "bidi": ("x = 1\naccess = 'user\u202e'", "SH301", 2),
    "invisible": ("x = 'a\u200bb'", "SH302", 1),
    "homoglyph": ("p\u0430ssword = 1", "SH303", 1),
    "whole-script-homoglyph": ("\u0441\u043e\u0440 = 1", "SH303", 1),
    "other-form": ("\uff45val(x)", "SH304", 1),
    "control": ("x = 1  # \x1b[2K", "SH305", 1),
    "carriage-return": ("x = 1  # harmless\rimport os\n", "SH305", 1),
    "far-right": (f"x = 1;{' ' * 200}y = 2", "SH306", 1),
    "long-line": (f"x = {'1 + ' * 600}1", "SH307", 1),
    "base64": (f"x = {BLOB!r}", "SH310", 1),
    "hexadecimal": (f"x = {hashlib.sha512(b'').hexdigest() * 5!r}", "SH310", 1),
    "base64-in-parts": (
        f"x = ({' + '.join(repr(BLOB[n : n + 64]) for n in range(0, len(BLOB), 64))})",
        "SH310",
        1,
    ),
    "base64-in-a-list": (f"x = {[BLOB[n : n + 64] for n in range(0, len(BLOB), 64)]}", "SH310", 1),
    "bytes": (f"x = {bytes(range(256)) * 4!r}", "SH310", 1),
    "large-number": (f"x = {10**1_000}", "SH310", 1),
    "numbers": (f"x = {list(range(256)) * 2}", "SH311", 1),
    # what could not be looked at
    "no-python": ("x = 1\ndef", "SH401", 2),
    "not-utf-8": (b"x = '\xff'", "SH402", 1),
    "unknown-encoding": (b"# coding: no-such\n", "SH402", 1),
    "encoding-of-no-text": (b"# coding: rot13\n", "SH402", 1),
    "foreign-encoding": (b"# coding: utf-7\n+AGUAdgBhAGw-(x)", "SH403", 1),
    "eval-in-foreign-encoding": (b"# coding: utf-7\n+AGUAdgBhAGw-(x)", "SH201", 2),
    "foreign-encoding-in-second-line": (b"#!x\n# vim: fileencoding=latin-1\n", "SH403", 1),
    "null": (b"x = 1\n\0", "SH404", 2),
}


@pytest.mark.parametrize(("source", "rule", "line"), SUSPICIOUS.values(), ids=SUSPICIOUS)
def test_a_suspicious_line_is_found_where_it_stands(
    source: str | bytes, rule: str, line: int
) -> None:
    assert (rule, line) in rules_in(source)


HARMLESS = {
    "own-modules": "from . import main\nfrom .rows import clean",
    "computing": "import math, json, re, dataclasses\nx = re.compile('a')\ny = math.sqrt(2)",
    "re-compile-by-name": "from re import compile\nx = compile('a')",
    "own-files": "import os\nopen(os.path.join(context().data_dir, 'rows.csv'), 'w')",
    "relative-file": "open('rows.csv')",
    "null-device": "open('/dev/null', 'w')",
    "plain-getattr": "getattr(x, 'name', None)",
    "local-called-like-a-builtin": "object = f()\nobject.name = 1\nvars = {}\nvars['a'] = 1",
    "function-types-compared": "import types\nisinstance(x, types.FunctionType)",
    "super-of-a-hook": "class A:\n    def __reduce__(self):\n        return super().__reduce__()",
    "docstring": '"""Reads nothing from /etc/passwd and has no __globals__."""',
    "prose": f"x = {'Plain words, and many of them. ' * 40!r}",
    "words": f"x = {['alpha', 'Beta2', 'gamma'] * 60}",
    "greek-letters": "Δt = 1\nσ_max = 2",  # noqa: RUF001
    "russian-name": "температура = 1",
    "emoji": "x = '⚠️ 👨‍👩‍👧'",
    "utf-8-named": "# -*- coding: utf-8 -*-\nx = 'é'",
    "byte-order-mark": "\ufeffx = 1",
    "form-feed": "x = 1\n\x0c\ny = 2",
    "safe-yaml": "import yaml\nyaml.load(x, Loader=yaml.SafeLoader)",
    "url-parsed": "from urllib.parse import urlsplit",
    "empty": "",
}


@pytest.mark.parametrize("source", HARMLESS.values(), ids=HARMLESS)
def test_an_ordinary_source_has_no_findings(source: str) -> None:
    assert findings_in(source) == ()


def test_columns_count_characters_and_not_bytes() -> None:
    (found,) = findings_in("é = 'ü' + str(eval)")
    assert (found.rule, found.line, found.column) == ("SH201", 1, 15)


@pytest.mark.parametrize("first", ["", "é;"], ids=["ascii", "other"])
def test_a_file_of_one_line_is_read_through_once(
    first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each of its findings costs the whole line: minutes for a file that may be read."""
    read = []
    once = text.Source._character_ends
    monkeypatch.setattr(
        text.Source, "_character_ends", lambda source, line: read.append(line) or once(source, line)
    )
    assert len(findings_in(first + "eval;" * 100 + "\nexec")) == 6
    assert read == [1, 2]


def test_a_line_is_told_as_the_interpreter_counts_it() -> None:
    source = "x = 1  # \x0c\u2028\r\ny = 2\n\neval(y)"
    assert ("SH201", 4) in rules_in(source)


def test_the_same_thing_is_told_five_times_and_other_things_still_are() -> None:
    found = rules_in("eval(x)\n" * 50 + "exec(x)")
    assert found == [("SH201", line) for line in (1, 2, 3, 4, 5, 51)]


def test_more_things_than_can_be_told_are_a_finding() -> None:
    source = "import os\n" + "".join(f"os.environ['A{n}']\n" for n in range(500))
    found = findings_in(source)
    assert sum(one.rule == "SH140" for one in found) == 400
    assert [one.message for one in found if one.rule == "SH408"] == [
        "has more places for SH140 than are told"
    ]


def test_names_in_circles_are_followed_once() -> None:
    assert rules_in("a = b\nb = a\na.system\nc = c + c\ngetattr(x, c)") == [("SH220", 5)]


def test_names_that_double_are_not_followed_for_ever() -> None:
    doubling = "".join(f"a{n} = a{n - 1} + a{n - 1}\n" for n in range(1, 200))
    assert rules_in(f"a0 = 'x'\n{doubling}getattr(x, a199)")[-1][0] == "SH220"


DEEP = {
    "parentheses": b"(" * 100_000,
    "minus": b"x = " + b"-" * 100_000 + b"1",
    "attributes": b"x" + b".y" * 100_000,
    "sum": b"x = 1" + b" + 1" * 100_000,
    "calls": b"f" + b"()" * 100_000,
    "lambdas": b"lambda: " * 50_000 + b"1",
    "blocks": b"".join(b" " * n + b"if x:\n" for n in range(150)),
}


@pytest.mark.parametrize("source", DEEP.values(), ids=DEEP)
def test_what_nests_too_deeply_is_a_finding(source: bytes) -> None:
    assert {one.rule for one in findings_in(source)} - {"SH306", "SH307"} == {"SH405"}


@pytest.mark.parametrize("part", [b"x" + b".y" * 900, b"x = 1" + b" + 1" * 900])
def test_what_nests_as_deeply_as_the_parser_goes_is_walked(part: bytes) -> None:
    assert ("SH201", 2) in rules_in(part + b"\neval(x)")
