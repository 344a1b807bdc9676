"""Reads where in the plugin's code it stood, from the fault handler's dump.

The dump comes out of the plugin's process: it is advice, it is bounded, and only a line of the
expected form is believed as far as to be shown.
"""

from __future__ import annotations

import re
from typing import Final

MAX_DUMP_BYTES: Final = 64 * 1024

# No spaces: what it says must not read like a sentence of the host's.
_FRAME: Final = re.compile(r'^  File "([^"\n]{1,512})", line (\d{1,9}) in ([\w<>.]{1,128})$')
_FILE: Final = re.compile(r"[\w./-]{1,255}")
_MAX_LOOKED_AT: Final = 16 * 1024


def place_in(dump: bytes, package_dir: str) -> str:
    """Return "main.py:12 in spin" for the innermost frame inside the plugin's package, or "".

    Of the thread that was asked, which works on the operation; where that has none, of the first.

    Args:
        dump: what the fault handler wrote: per thread a heading and frames, innermost first.
        package_dir: where the plugin's private copy lies; shown paths are relative to it.
    """
    prefix = package_dir.rstrip("/") + "/"
    text = dump[:_MAX_LOOKED_AT].decode("utf-8", "replace")
    asked = text.partition("\nCurrent thread ")[2].partition("\nThread ")[0]
    return _first_in(asked, prefix) or _first_in(text, prefix)


def _first_in(text: str, prefix: str) -> str:
    for line in text.splitlines():
        match = _FRAME.match(line)
        if match and match[1].startswith(prefix):
            file = match[1][len(prefix) :]
            if _FILE.fullmatch(file):
                return f"{file}:{match[2]} in {match[3]}"
    return ""
