"""``sandbox-host dossier``: why plugins ended, as the host wrote it down."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import click

from sandbox_host.cli.describe import counted
from sandbox_host.cli.dossier_report import print_dossier
from sandbox_host.cli.exits import Exit
from sandbox_host.cli.options import SuggestingGroup, output_format, state_options
from sandbox_host.cli.output import clean, note, print_json, print_table, say
from sandbox_host.errors import DossierError
from sandbox_host.model import identity_of
from sandbox_host.observe.dossier_files import document, summary_of
from sandbox_host.observe.dossier_ids import ended_at
from sandbox_host.observe.dossiers import DossierStore

if TYPE_CHECKING:
    from sandbox_host.cli.options import HostOptions
    from sandbox_host.observe.dossier import Dossier

LATEST: Final = "latest"
_MAX_DAYS: Final = 36_500


@click.group(
    "dossier",
    cls=SuggestingGroup,
    short_help="Show why plugins ended.",
    no_args_is_help=False,
)
def command() -> None:
    """Show why plugins ended: a dossier is written of each that did not end as asked.

    \b
    Example:
      sandbox-host dossier list
      sandbox-host dossier show
    """


@command.command("list", short_help="List the dossiers, the newest first.")
@click.option("--plugin", metavar="NAME", help="Only this plugin's.")
@state_options
@output_format
def list_(plugin: str | None, host: HostOptions, as_format: str) -> int:
    """List the dossiers, the newest first. The exit code is 1 if one was damaged.

    \b
    Example:
      sandbox-host dossier list --plugin weather_model
    """
    store = DossierStore.of(host.read())
    found: dict[str, Dossier] = {}
    damaged: dict[str, str] = {}
    for one in store.ids():
        try:
            dossier = store.summary(one)
        except DossierError as error:
            damaged[one] = str(error)
            continue
        if plugin is None or dossier.plugin == identity_of(plugin):
            found[one] = dossier
    if as_format == "json":
        print_json(
            {
                "directory": clean(store.directory),
                "dossiers": [{"id": one, **summary_of(found[one])} for one in found],
                "damaged": [{"id": one, "reason": clean(damaged[one])} for one in damaged],
            }
        )
    else:
        of = f" of {identity_of(plugin)}" if plugin else ""
        say(f"{store.directory}: {counted(len(found), 'dossier')}{of}")
        if found:
            rows = [(one, dossier.cause, dossier.text) for one, dossier in found.items()]
            print_table(("DOSSIER", "CAUSE", "WHAT HAPPENED"), rows)
    for reason in damaged.values():
        note(f"note: {reason}")
    return Exit.REFUSED if damaged else Exit.OK


@command.command("show", short_help="Show one dossier; the newest, if none is named.")
@click.argument("dossier_id", metavar="[ID|latest]", default=LATEST)
@state_options
@output_format
def show(dossier_id: str, host: HostOptions, as_format: str) -> None:
    """Show the dossier ID, or the newest: why the plugin ended, and what to do next.

    First comes what the host and the kernel saw. Place, stacks and log lines are the word of the
    plugin's own process.

    \b
    Example:
      sandbox-host dossier show
      sandbox-host dossier show 20260131T120000-weather_model-4711 --format json
    """
    store = DossierStore.of(host.read())
    chosen = _newest(store) if dossier_id == LATEST else dossier_id
    dossier = store.read(chosen)
    if as_format == "json":
        place = {"id": chosen, "directory": clean(store.path(chosen))}
        print_json({**place, **document(dossier)})
    else:
        print_dossier(dossier, store.path(chosen))


def _newest(store: DossierStore) -> str:
    ids = store.ids()
    if not ids:
        raise DossierError(
            f"There is no dossier in {store.directory}: no plugin of this state directory ended "
            "otherwise than asked, or its dossier was removed.",
            remedy="`--state-dir` names another.",
        )
    return ids[0]


@command.command("remove", short_help="Remove dossiers.")
@click.argument("dossier_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option(
    "--older-than",
    type=click.IntRange(0, _MAX_DAYS),
    metavar="DAYS",
    help="Those of plugins that ended more than so many days ago.",
)
@state_options
def remove(
    dossier_ids: tuple[str, ...], every: bool, older_than: int | None, host: HostOptions
) -> None:
    """Remove the dossiers with these IDs, or all, or old ones. Nothing is asked.

    \b
    Example:
      sandbox-host dossier remove 20260131T120000-weather_model-4711
      sandbox-host dossier remove --older-than 30
    """
    ways = bool(dossier_ids) + every + (older_than is not None)
    if ways != 1:
        text = "Name IDs, or give either --all or --older-than."
        raise click.UsageError(text, click.get_current_context())
    store = DossierStore.of(host.read())
    chosen = dossier_ids or store.ids()
    if older_than is not None:
        before = datetime.now(UTC) - timedelta(days=older_than)
        chosen = tuple(one for one in chosen if ended_at(one) < before)
    for one in chosen:
        store.remove(one)
        say(f"removed {one}")
    if not chosen:
        note("note: there was none to remove.")
