"""The live manifest in a README: document T's JSON block, rewritten in place.

Pure: text in, text out. The block stands between two HTML comments; a README that still has
document T's bare block gets the comments around it, one without any block gets a section at its
end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

BEGIN: Final = "<!-- plugin manifest: begin (written by sandbox-host; edits are overwritten) -->"
END: Final = "<!-- plugin manifest: end -->"
_KEYS: Final = {"last_updated", "active_plugins", "disabled_plugins"}
_FENCE: Final = re.compile(r"^```json[ \t]*\r?\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_SECTION: Final = "## Current plugin manifest"


def _block(
    active: Mapping[str, Mapping[str, Any]],
    disabled: Mapping[str, Mapping[str, Any]],
    updated: datetime,
) -> str:
    manifest = {
        "last_updated": updated.astimezone(UTC).isoformat(timespec="seconds"),
        "active_plugins": {name: dict(active[name]) for name in sorted(active)},
        "disabled_plugins": {name: dict(disabled[name]) for name in sorted(disabled)},
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=True)
    # A plugin's description may hold what ends a fence or a comment: escape it, as JSON allows.
    for character in "`<>":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f"{BEGIN}\n```json\n{text}\n```\n{END}"


def _is_manifest(text: str) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.keys() == _KEYS


def _span(text: str) -> tuple[int, int] | None:
    """Return where the block to replace begins and ends: our comments', else document T's."""
    begin = text.find(BEGIN)
    end = text.find(END, begin + len(BEGIN)) if begin >= 0 else -1
    if end >= 0:
        return begin, end + len(END)
    for match in _FENCE.finditer(text):
        if _is_manifest(match[1]):
            return match.span()
    return None


def read_manifest(text: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return what a README's manifest block says is active and disabled; None without a block."""
    span = _span(text)
    fence = _FENCE.search(text, *span) if span else None
    if fence is None or not _is_manifest(fence[1]):
        return None
    value = json.loads(fence[1])
    active, disabled = value["active_plugins"], value["disabled_plugins"]
    return (active, disabled) if isinstance(active, dict) and isinstance(disabled, dict) else None


def rewrite_manifest(
    text: str,
    active: Mapping[str, Mapping[str, Any]],
    disabled: Mapping[str, Mapping[str, Any]],
    updated: datetime,
) -> str:
    """Return a README's text with its manifest block brought up to date.

    Everything outside the block stays byte for byte. With the same arguments a second time
    nothing changes.

    Args:
        text: the README.
        active: by plugin name, what to say of each; JSON values.
        disabled: the same for those that are discovered and disabled.
        updated: when this was true, with its zone.
    """
    block = _block(active, disabled, updated)
    span = _span(text)
    if span:
        return text[: span[0]] + block + text[span[1] :]
    gap = "" if not text or text.endswith("\n\n") else "\n" if text.endswith("\n") else "\n\n"
    return f"{text}{gap}{_SECTION}\n\n{block}\n"
