"""Where the clients are that plugins of tests import: an environment that `make env` makes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "SANDBOX_HOST_CLIENT_ENV"
"""Names another directory than ``.client-env``."""

_REPOSITORY = Path(__file__).parents[2]


def client_environment(*modules: str) -> Path:
    """Return the directory; the test is skipped where it lacks one of these modules."""
    path = Path(os.environ.get(VARIABLE) or _REPOSITORY / ".client-env")
    missing = [name for name in modules if not (path / name).is_dir()]
    if missing:
        pytest.skip(f"{path.name} lacks {', '.join(missing)}; `make env` makes it")
    return path
