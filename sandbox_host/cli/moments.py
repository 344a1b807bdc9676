"""A moment on the command line, as RFC 3339 has it."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import click


def read_moment(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """Return the moment that an option names, in UTC; to be its callback.

    Raises:
        click.BadParameter: it is not one, or names no time zone: a day alone would leave open
            where on earth it begins.
    """
    if value is None:
        return None
    with contextlib.suppress(ValueError, OverflowError):  # in UTC it may be in the year 10000
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    text = f"{value[:80]!r} is not a time with its zone, as 2027-01-31T00:00:00Z."
    raise click.BadParameter(text, ctx, param)
