"""``sandbox-host history``: what hosts remember of plugins, and an operator's corrections of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from sandbox_host.admission.history import History
from sandbox_host.bundle.statement import format_time
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.cli.asking import agreed
from sandbox_host.cli.describe import counted, limit_lines, permission_lines
from sandbox_host.cli.exits import Exit
from sandbox_host.cli.options import SuggestingGroup, memory_options, output_format, state_options
from sandbox_host.cli.output import clean, fail, print_json, print_table, say
from sandbox_host.errors import UsageError
from sandbox_host.model import identity_of
from sandbox_host.observe.journal import Journal
from sandbox_host.runtime.admissions import Admissions
from sandbox_host.runtime.history_store import HistoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox_host.admission.history import Record
    from sandbox_host.cli.options import HostOptions
    from sandbox_host.config import HostConfig

_SHORT = 16
_NOTHING = "-"


@click.group(
    "history",
    cls=SuggestingGroup,
    short_help="Show what was admitted, and correct that.",
    no_args_is_help=False,
)
def command() -> None:
    """Show the highest version of each plugin that was admitted, and correct what is remembered.

    Hosts refuse older versions than those, other files under the same version, trust stores older
    than one that was used, and a clock that was set back.

    \b
    Example:
      sandbox-host history list
    """


def _reason(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if not value.strip():
        raise UsageError("--reason is empty.", remedy="Say why, for whoever reads the journal.")
    return value


_REASON: Callable[..., Any] = click.option(
    "--reason", required=True, callback=_reason, help="For whoever reads the journal."
)
_YES: Callable[..., Any] = click.option("--yes", is_flag=True, help="Do not ask.")


@command.command("list", short_help="List what is remembered.")
@state_options
@output_format
def list_(host: HostOptions, as_format: str) -> None:
    """List each plugin's highest version, and what its last version asked for.

    \b
    Example:
      sandbox-host history list --format json
    """
    store = HistoryStore(host.read().state_dir)
    history = store.read() or History()
    if as_format == "json":
        print_json(_document(store, history))
        return
    latest = format_time(history.latest) if history.latest else _NOTHING
    say(f"{clean(store.path)}: {counted(len(history.plugins), 'plugin')}, latest time {latest}")
    if history.plugins:
        rows = [_row(name, one) for name, one in sorted(history.plugins.items())]
        print_table(("PLUGIN", "HIGHEST", "DIGEST", "ALSO", "ASKS FOR"), rows)
    for path, mark in sorted(history.stores.items()):
        say(f"trust store {clean(path)}: version {mark.version}")


def _row(name: str, record: Record) -> tuple[str, ...]:
    also = [f"{record.exception.version} by downgrade"] if record.exception else []
    also += [f"{record.approval[:_SHORT]} approved"] if record.approval else []
    return (
        name,
        record.highest.version,
        record.highest.digest[:_SHORT],
        ", ".join(also) or _NOTHING,
        ", ".join(_asks(record)),
    )


def _asks(record: Record) -> list[str]:
    asks = record.approved
    return [*permission_lines(asks.permissions), *limit_lines(asks.limits), *asks.dependencies]


def _document(store: HistoryStore, history: History) -> dict[str, Any]:
    return {
        "history": clean(store.path),
        "latest": format_time(history.latest) if history.latest else None,
        "plugins": [
            {
                "plugin": name,
                "version": one.highest.version,
                "digest": one.highest.digest,
                "downgrade": one.exception.version if one.exception else None,
                "approved": one.approval or None,
                "asks": [clean(text) for text in _asks(one)],
            }
            for name, one in sorted(history.plugins.items())
        ],
        "trust_stores": [
            {"path": clean(path), "version": mark.version, "digest": mark.digest}
            for path, mark in sorted(history.stores.items())
        ],
    }


@command.command("forget", short_help="Remember nothing of a plugin any more.")
@click.argument("name", metavar="NAME")
@_REASON
@_YES
@state_options
def forget(name: str, reason: str, yes: bool, host: HostOptions) -> int:
    """Remember nothing of the plugin NAME any more: any version of it is its first one then.

    \b
    Example:
      sandbox-host history forget weather_model --reason "no longer used here"
    """
    identity = identity_of(name)
    return _act(
        host.read(),
        f"Forget which versions of {clean(identity)} were admitted?",
        yes,
        lambda admissions: admissions.forget(identity, reason),
    )


@command.command("accept", short_help="Take the clock or the trust store as it is now.")
@click.argument("what", metavar="clock|trust-store", type=click.Choice(["clock", "trust-store"]))
@_REASON
@_YES
@memory_options
def accept(what: str, reason: str, yes: bool, host: HostOptions) -> int:
    """Take this machine's clock, or the trust store, as it is now, although it went back.

    For a clock that was wrong before and is right now, and for a trust store that was begun anew.

    \b
    Example:
      sandbox-host history accept clock --reason "the battery was replaced"
    """
    config = host.read()
    if what == "clock":
        now = datetime.now(UTC)
        question = f"Is it {format_time(now)}?"
        return _act(config, question, yes, lambda one: one.accept_clock(now, reason))
    trust = TrustStore.load(config.trust_store)
    question = f"Take {clean(trust.origin)}, version {trust.version}, for the newest?"
    return _act(config, question, yes, lambda one: one.accept_store(trust, reason))


@command.command("new", short_help="Keep the history aside, and begin another.")
@_REASON
@_YES
@state_options
def new(reason: str, yes: bool, host: HostOptions) -> int:
    """Keep the history aside, whatever is wrong with it, and begin an empty one.

    Nothing tells older versions of plugins from newer then, until newer ones were admitted.

    \b
    Example:
      sandbox-host history new --reason "the file was damaged, and there is no backup"
    """
    config = host.read()

    def begin(admissions: Admissions) -> None:
        aside = admissions.start_new(datetime.now(UTC), reason)
        say(f"the old one is {f'in {clean(aside)}' if aside else 'none'}")

    return _act(config, "Begin an empty history?", yes, begin)


def _act(config: HostConfig, question: str, yes: bool, act: Callable[[Admissions], None]) -> int:
    if not agreed(question, yes):
        fail("nothing was done.")
        return Exit.REFUSED
    with Journal(config.journal_path) as journal:
        act(Admissions(config.state_dir, journal))
    say("done; the journal has the reason")
    return Exit.OK
