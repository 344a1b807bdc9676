"""The live manifest: only its block changes, and twice is the same as once."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from sandbox_host.catalog.manifest import BEGIN, END, rewrite_manifest

WHEN = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
DOCUMENT_T = """# Plugins

## Current Plugin Manifest

> This section is automatically maintained by the system.

```json
{
  "last_updated": "",
  "active_plugins": {},
  "disabled_plugins": {}
}
```

## Example

```json
{
  "name": "my_plugin"
}
```
"""


def block(text):
    inner = text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()
    assert inner.startswith("```json\n")
    assert inner.endswith("\n```")
    return json.loads(inner[8:-4])


def test_the_readme_of_document_t():
    text = rewrite_manifest(DOCUMENT_T, {"a": {"version": "1"}}, {"b": {}}, WHEN)
    assert block(text) == {
        "last_updated": "2024-05-06T07:08:09+00:00",
        "active_plugins": {"a": {"version": "1"}},
        "disabled_plugins": {"b": {}},
    }
    head, tail = (
        DOCUMENT_T.split('```json\n{\n  "last_updated"', maxsplit=1)[0],
        '\n\n## Example\n\n```json\n{\n  "name"',
    )
    assert text.startswith(head + BEGIN)
    assert tail in text
    assert text.count("last_updated") == 1


@pytest.mark.parametrize("text", ["", "x", "x\n", "x\n\n", DOCUMENT_T, "```json\nnot json\n```\n"])
def test_twice_is_once(text):
    once = rewrite_manifest(text, {"a": {}}, {}, WHEN)
    assert rewrite_manifest(once, {"a": {}}, {}, WHEN) == once
    again = rewrite_manifest(once, {}, {}, WHEN + timedelta(hours=1))
    assert block(again)["active_plugins"] == {}
    assert rewrite_manifest(again, {"a": {}}, {}, WHEN) == once


def test_a_readme_without_a_block_gets_a_section():
    text = rewrite_manifest("# Mine\n\ntext\n", {}, {}, WHEN)
    assert text.startswith("# Mine\n\ntext\n\n## Current plugin manifest\n\n" + BEGIN)
    assert text.endswith(END + "\n")


def test_a_beginning_without_end_is_left_alone():
    text = rewrite_manifest(f"{BEGIN}\nmine\n", {}, {}, WHEN)
    assert text.startswith(f"{BEGIN}\nmine\n")


def test_a_plugins_text_cannot_leave_the_block():
    evil = {"description": f"```\n{END}\n<script>", "\u202e": "\u202e"}
    text = rewrite_manifest("", {"a": evil}, {}, WHEN)
    assert block(text)["active_plugins"]["a"] == evil
    assert text.count("```") == 2
    assert "<script>" not in text
    assert text.isascii()


def test_names_are_sorted_and_time_is_utc():
    zone = timezone(timedelta(hours=2))
    one = rewrite_manifest("", {"b": {}, "a": {}}, {}, WHEN.astimezone(zone))
    assert one == rewrite_manifest("", {"a": {}, "b": {}}, {}, WHEN)
