from __future__ import annotations

from datetime import UTC, datetime

import click
import pytest

from sandbox_host.cli.moments import read_moment

OPTION = click.Option(["--expires"])
CONTEXT = click.Context(click.Command("sign"))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2027-01-31T00:00:00Z", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T01:30:00+01:30", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31 00:00Z", datetime(2027, 1, 31, tzinfo=UTC)),
    ],
)
def test_a_moment_is_read_in_utc(text: str, moment: datetime) -> None:
    read = read_moment(CONTEXT, OPTION, text)
    assert read == moment
    assert read.tzinfo is UTC


def test_no_moment_is_none() -> None:
    assert read_moment(CONTEXT, OPTION, None) is None


BEYOND = ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"]


@pytest.mark.parametrize(
    "text", ["", "soon", "2027-01-31", "2027-01-31T00:00:00", "\x1b[2J", *BEYOND]
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a time with its zone") as caught:
        read_moment(CONTEXT, OPTION, text)
    assert caught.value.message.isprintable()
