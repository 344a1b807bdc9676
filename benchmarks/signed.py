"""Plugins for the other files here: written, signed with a key of their own, and trusted."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sandbox_host.bundle.contents import Contents
from sandbox_host.bundle.keys import generate_key
from sandbox_host.bundle.sign import sign
from sandbox_host.bundle.stage import stage_source
from sandbox_host.bundle.trust_edit import add_key

_HEAD = """
from plugin_sdk import operation

def init_plugin():
    return True

def get_metadata():
    return {"name": NAME, "version": "1.0.0"}
"""


class Publisher:
    """Signs many plugins with one key, which costs milliseconds to make and to trust.

    Args:
        directory: gets a directory for each plugin.
        trust_store: gets the key, for plugins of any name.
    """

    def __init__(self, directory: Path, trust_store: Path) -> None:
        self._directory = directory
        self._key = generate_key()
        add_key(trust_store, self._key.public, "benchmark", plugins=("*",))

    def release(self, name: str, source: str, **keys: Any) -> Path:
        """Write and sign a plugin, and return its directory; arguments as for `write_signed`."""
        contents = _contents(name, source, keys)
        envelope = sign(contents, self._key, datetime.now(UTC))
        stage_source(contents, envelope, self._directory / name)
        return self._directory / name


def _contents(name: str, source: str, keys: dict[str, Any]) -> Contents:
    described = {"name": name, "version": "1.0.0", "description": "Measured.", "author": "us"}
    files = {
        "plugin.json": json.dumps({**described, **keys}).encode(),
        "__init__.py": f"NAME = {name!r}\n{_HEAD}{source}".encode(),
    }
    return Contents(files=files, envelope=None, origin="benchmark")


def write_signed(directory: Path, trust_store: Path, name: str, source: str, **keys: Any) -> Path:
    """Write a plugin and trust its key, and return its directory.

    Args:
        directory: gets a directory of the plugin's name.
        trust_store: gets the key, for this plugin only.
        name: of the plugin.
        source: its operations; what every plugin has is put before them.
        keys: more of plugin.json.
    """
    key = generate_key()
    add_key(trust_store, key.public, f"benchmark of {name}", plugins=(name,))
    contents = _contents(name, source, keys)
    stage_source(contents, sign(contents, key, datetime.now(UTC)), directory / name)
    return directory / name
