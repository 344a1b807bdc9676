"""``sandbox-host events``: the events of the running service."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from sandbox_host.cli.options import output_format, state_options
from sandbox_host.cli.output import SCHEMA_VERSION, say
from sandbox_host.cli.values import shown
from sandbox_host.service.client import stream

if TYPE_CHECKING:
    from sandbox_host.cli.options import HostOptions


@click.command("events", short_help="Show the events of the running service.")
@click.argument("types", metavar="[TYPE]...", nargs=-1)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is published, until Ctrl-C.")
@click.option(
    "--last",
    type=click.IntRange(0, 1_000),
    metavar="NUMBER",
    default=20,
    show_default=True,
    help="So many that were published already, as far as they are kept.",
)
@state_options
@output_format
def command(
    types: tuple[str, ...], follow: bool, last: int, host: HostOptions, as_format: str
) -> None:
    """Show the last events, of all types or of TYPE, which may have * and ? in it.

    With --format json each is a JSON document in a line of its own.

    \b
    Example:
      sandbox-host events --follow model_updated 'data_*'
    """
    state_dir = host.read().state_dir
    wanted = {"types": list(types), "last": last, "follow": follow}
    for event in stream(state_dir, "events", **wanted):
        _tell(event, as_json=as_format == "json")
        sys.stdout.flush()


def _tell(event: dict[str, Any], *, as_json: bool) -> None:
    time = datetime.fromtimestamp(event["timestamp"], UTC).isoformat(timespec="milliseconds")
    time = time.replace("+00:00", "Z")
    if as_json:
        document = {"schema_version": SCHEMA_VERSION, **event, "timestamp": time}
        click.echo(json.dumps(document, default=shown))
        return
    data = json.dumps(event["data"], default=shown)
    say(f"{event['id']} {time} {event['type']} {event['source']} {data}")
