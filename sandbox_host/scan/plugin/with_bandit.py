"""bandit, called from within the sandbox: it parses as well, and imports what it finds by name."""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from typing import Any, Final

_MAX_ISSUES: Final = 2_000
_MAX_TEXT: Final = 400


def examine(data: bytes, directory: str) -> list[list[Any]]:
    """Return bandit's issues in a source: test, line, column, severity, confidence and text.

    What a source says with ``# nosec`` is not listened to: its author is who is looked at.

    Args:
        data: the source.
        directory: where it is put for bandit to read, under a name of ours.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    # By name: it is an extra, and here only where it was asked for.
    config: Any = importlib.import_module("bandit.core.config")
    manage: Any = importlib.import_module("bandit.core.manager")
    path = os.path.join(directory, "source.py")
    with open(path, "wb") as file:
        file.write(data)
    manager = manage.BanditManager(config.BanditConfig(), "file", ignore_nosec=True, quiet=True)
    manager.discover_files([path])
    manager.run_tests()
    issues = manager.get_issue_list()[:_MAX_ISSUES]
    told = [_told(issue) for issue in issues]
    told += [["", 1, 1, "HIGH", "HIGH", str(reason)[:_MAX_TEXT]] for _, reason in manager.skipped]
    return told


def _told(issue: Any) -> list[Any]:
    return [
        str(issue.test_id),
        max(1, int(issue.lineno)),
        max(0, int(issue.col_offset)) + 1,
        str(issue.severity),
        str(issue.confidence),
        str(issue.text)[:_MAX_TEXT],
    ]
