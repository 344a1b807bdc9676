"""The host's own plugins that read sources: their files, as bytes. Neither touches the disk to run.

They are plugins like any other: signed, with a key that exists for a moment, verified, confined,
with nothing granted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from sandbox_host.bundle.contents import Contents
from sandbox_host.model import MIB, Limits

LIMITS: Final = Limits(
    memory_bytes=512 * MIB,
    cpu_seconds=20.0,
    wall_seconds=120.0,
    descriptors=64,
    threads=1,
    file_bytes=4 * MIB,
    scratch_bytes=16 * MIB,
)
"""Of a process that reads sources; a source within `scan.MAX_SOURCE_BYTES` seldom needs a tenth."""

OPERATION: Final = "examine"

_MODULES: Final = ("examine", "literals", "look", "names", "places", "reach", "text")
_EXAMINE: Final = """
from plugin_sdk import operation
from . import examine as reader

@operation
def examine(data):
    return reader.examine(data)
"""
_BANDIT: Final = """
from plugin_sdk import context, operation
from . import with_bandit

@operation
def examine(data):
    return with_bandit.examine(data, context().scratch_dir)
"""


def examiner(name: str) -> Contents:
    """Return the plugin that looks for what `rules` has."""
    return _contents(name, _MODULES, _EXAMINE)


def bandit_examiner(name: str) -> Contents:
    """Return the plugin that has bandit look; bandit has to be in its plugin environment."""
    return _contents(name, ("with_bandit",), _BANDIT)


def _contents(name: str, modules: tuple[str, ...], main: str) -> Contents:
    about = {
        "name": name,
        "version": "1.0.0",
        "description": "Reads sources, for the host.",
        "author": "sandbox-host",
    }
    limits = {
        "memory": LIMITS.memory_bytes,
        "cpu_time": LIMITS.cpu_seconds,
        "wall_time": LIMITS.wall_seconds,
        "descriptors": LIMITS.descriptors,
        "threads": LIMITS.threads,
        "file_size": LIMITS.file_bytes,
    }
    told = {**about, "dependencies": [], "capabilities": []}
    init = f"def init_plugin():\n    return True\n\ndef get_metadata():\n    return {told!r}\n"
    directory = Path(__file__).parent / "plugin"
    files = {
        "plugin.json": json.dumps({**about, "limits": limits}).encode(),
        "__init__.py": init.encode(),
        "main.py": main.encode(),
        **{f"{module}.py": (directory / f"{module}.py").read_bytes() for module in modules},
    }
    return Contents({path: files[path] for path in sorted(files)}, None, "the scan")
