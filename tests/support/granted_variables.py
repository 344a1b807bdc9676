"""A plugin that was granted environment variables: ``python -m tests.support.granted_variables``.

Prints one JSON object: what the plugin sees, what the host tells of it, and in which of the host's
files a value was found after the plugin had crashed.
"""

from __future__ import annotations

import io
import json
import logging
import os
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any

from sandbox_host import SandboxHost
from sandbox_host.errors import PluginError
from tests.support.host import Workshop
from tests.support.traces import eventually

GRANTED, UNSET, OTHER = "GRANTED_TOKEN", "GRANTED_AND_NOT_SET", "OTHER_TOKEN"

SOURCE = f"""
@operation
def variables():
    return dict(os.environ)

@operation
def native():
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    return [getenv(name) for name in (b"{GRANTED}", b"{OTHER}")]

@operation
def change(name):
    os.environ[name] = "changed"

@operation
def crash():
    here = os.environ["{GRANTED}"]
    ctypes.string_at(1)
    return here
"""


def _holding(directory: Path, value: str) -> list[str]:
    """Return the files below a directory that hold a text."""
    found = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return [str(path) for path in found if value.encode() in path.read_bytes()]


def main() -> int:
    """Load it with a value, change the value, let it crash, and look for what is left."""
    value, other = secrets.token_hex(16), secrets.token_hex(16)
    os.environ.update({GRANTED: value, OTHER: other})
    os.environ.pop(UNSET, None)
    logged = io.StringIO()
    logging.getLogger("sandbox_host").addHandler(logging.StreamHandler(logged))
    with tempfile.TemporaryDirectory(prefix="granted variables ") as base:
        workshop = Workshop(Path(base))
        names = [GRANTED, UNSET]
        config = workshop.config(grants={"sample": {"env": [*names, OTHER]}})
        bundle = workshop.write(SOURCE, permissions={"env": names})
        with SandboxHost.blocking(config) as host:
            result = _look(host, bundle)
        result |= {
            "value": value,
            "other": other,
            "found in": _holding(workshop.state_dir, value),
            "files": len(list(workshop.state_dir.rglob("*"))),
            "dossiers": len(list((workshop.state_dir / "dossiers").glob("*"))),
            "logged": logged.getvalue(),
        }
    print(json.dumps(result))
    return 0


def _look(host: Any, bundle: Path) -> dict[str, Any]:
    plugin = host.load(bundle)
    os.environ[GRANTED] = "set later"
    seen = plugin.call("variables")
    native = [None if one is None else one.decode() for one in plugin.call("native")]
    plugin.call("change", GRANTED)
    receipt = plugin.receipt
    try:
        plugin.call("crash")
    except PluginError as error:
        crash = str(error)
    else:
        crash = ""
    gone = eventually(lambda: plugin.state.value == "failed")
    again = host.load(bundle).call("variables")
    return {
        "seen": seen,
        "native": native,
        "receipt": repr(receipt),
        "env": [(e.value, e.mechanism) for e in receipt.permissions if e.name == "env"],
        "layer": next(r.detail for r in receipt.layers if r.layer == "environment"),
        "host": os.environ[GRANTED],
        "crash": crash,
        "gone": gone,
        "again": again[GRANTED],
    }


if __name__ == "__main__":
    sys.exit(main())
