"""Asks an operator whether something is meant, or says which option says so."""

from __future__ import annotations

import sys

import click

from sandbox_host.errors import UsageError


def agreed(question: str, yes: bool) -> bool:
    """Return whether it is meant.

    Args:
        question: in one line.
        yes: whether ``--yes`` was given, so that nobody is asked.

    Raises:
        UsageError: there is nobody to ask.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(
            "Nothing was done: there is no terminal to ask on whether that is meant.",
            remedy="Give --yes.",
        )
    # On standard error: a question is no data.
    return click.confirm(question, err=True)
