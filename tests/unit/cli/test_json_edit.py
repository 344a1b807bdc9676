"""One value of a JSON text is changed; all else stays as its author wrote it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.cli.json_edit import edited

TEXT = """\
{
  "name": "sample",
  "permissions": {"publish": ["a"],   "read": ["/srv/a, b", "/srv/}{"]},
  "limits": {
    "memory": "128 MiB",
    "descriptors": 32
  },
  "empty": {},
  "text": "\\"limits\\": {",
  "plugin_api": "1.0"
}
"""


@pytest.mark.parametrize(
    ("path", "value", "old", "new"),
    [
        (("limits", "memory"), "64 MiB", '"128 MiB"', '"64 MiB"'),
        (("limits", "descriptors"), 64, "32\n", "64\n"),
        (("permissions", "publish"), ["a", "ü"], '["a"]', '["a", "ü"]'),
        (("permissions", "publish"), None, '"publish": ["a"],   ', ""),
        (("permissions", "read"), None, ',   "read": ["/srv/a, b", "/srv/}{"]', ""),
        (("limits", "memory"), None, '    "memory": "128 MiB",\n', ""),
        (("limits", "descriptors"), None, ',\n    "descriptors": 32', ""),
        (("limits", "threads"), 4, "32\n", '32,\n    "threads": 4\n'),
        (("permissions", "threads"), True, '{"]}', '{"], "threads": true}'),
        (("empty", "a"), 1, "{}", '{"a": 1}'),
        (("plugin_api",), None, ',\n  "plugin_api": "1.0"', ""),
        (("name",), None, '  "name": "sample",\n', ""),
        (("new", "a"), [1], '"1.0"\n', '"1.0",\n  "new": {"a": [1]}\n'),
        (("nowhere",), None, "", ""),
        (("permissions", "nowhere"), None, "", ""),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_only_this_changes(path: tuple[str, ...], value: Any, old: str, new: str) -> None:
    changed = edited(TEXT, path, value)
    json.loads(changed)
    assert changed == TEXT.replace(old, new, 1)


def test_the_last_member_goes_and_leaves_an_object() -> None:
    assert edited('{"a": {"b": 1}}', ("a", "b"), None) == '{"a": {}}'
    assert edited('{\n  "a": {\n    "b": 1\n  }\n}', ("a", "b"), None) == '{\n  "a": {}\n}'


def test_a_long_list_has_a_line_for_each() -> None:
    entries = [f"/srv/a/rather/long/path/{number}" for number in range(4)]
    changed = edited(TEXT, ("permissions", "read"), entries)
    assert json.loads(changed)["permissions"]["read"] == entries
    assert max(map(len, changed.splitlines())) < 100


KEYS = st.sampled_from(["a", "b", "ключ", 'with "quotes"', "limits", "{"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=4), max_size=4),
    st.tuples(KEYS, KEYS),
    VALUES,
    st.sampled_from([None, 0, 2, "\t"]),
    st.booleans(),
)
def test_it_is_what_a_parser_would_make_of_it(
    document: dict[str, dict[str, Any]],
    path: tuple[str, str],
    value: Any,
    indent: int | str | None,
    plain: bool,
) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=plain)
    wanted = json.loads(text)
    if value is None:
        wanted.get(path[0], {}).pop(path[1], None)
    else:
        wanted.setdefault(path[0], {})[path[1]] = value
    changed = edited(text, path, value)
    assert json.loads(changed) == wanted
    assert list(json.loads(changed)) == list(wanted)
