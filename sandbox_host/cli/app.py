"""The group of commands, and the one place where an error becomes a paragraph and an exit code."""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any, Final

import click

from sandbox_host.cli.exits import Exit, exit_for
from sandbox_host.cli.options import SuggestingGroup
from sandbox_host.cli.output import PROGRAM, discard, fail, library_notes
from sandbox_host.errors import SandboxHostError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEBUG_VARIABLE: Final = "SANDBOX_HOST_DEBUG"
"""Set to 1, an internal error shows its traceback."""

COMMANDS: Final[Mapping[str, str]] = {
    "new": "Write a new plugin that works.",
    "keygen": "Make a signing key.",
    "sign": "Sign a plugin.",
    "pack": "Pack a plugin into one file.",
    "verify": "Tell whether plugins are what a trusted key signed.",
    "inspect": "Show what a plugin is and asks for, without trusting it.",
    "trust": "Decide whose signatures count.",
    "approve": "Approve what an update asks for more.",
    "history": "Show what was admitted, and correct that.",
    "install": "Put a plugin into the plugin directory.",
    "list": "List the plugins of the plugin directory.",
    "remove": "Take a plugin out of the plugin directory.",
    "enable": "Let a disabled plugin run again.",
    "disable": "Keep a plugin from running.",
    "check": "Try a plugin in the sandbox, before it is signed.",
    "scan": "Show what plugins' sources reach for.",
    "trace": "Propose the permissions and limits that a plugin's tests need.",
    "run": "Run plugins as a service, until Ctrl-C.",
    "status": "Show the running service, its plugins and what confines them.",
    "top": "Show what the running plugins use, again and again.",
    "load": "Have the running service load a plugin.",
    "unload": "Have the running service unload a plugin.",
    "reload": "Put a new version in a running plugin's place.",
    "release": "Let a plugin in quarantine start again.",
    "logs": "Show what a running plugin prints.",
    "events": "Show the events of the running service.",
    "drain": "End the running service in an orderly way.",
    "unit": "Print a systemd unit for the service.",
    "call": "Run one operation of a plugin and print its result.",
    "replay": "Play a recording against another version of a plugin.",
    "data": "List and remove plugins' data.",
    "dossier": "Show why plugins ended.",
    "journal": "Verify and show the journal.",
    "denials": "Show what plugins asked for and were not granted.",
    "doctor": "Show what this machine offers to confine plugins.",
}
"""Each command's module in this package, and its line in the help."""


_PRINTERS: Final = frozenset({"click.utils", "rich.console"})
"""Modules that everything is printed through, click's own help included."""


class _LazyGroup(SuggestingGroup):
    """Imports a command's module only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"sandbox_host.cli.{cmd_name}")
        found: click.Command = module.command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    import sandbox_host

    click.echo(f"{PROGRAM} {sandbox_host.__version__}")
    ctx.exit()


@click.group(cls=_LazyGroup, no_args_is_help=False)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Run Python plugins that nobody vouches for: signed, confined, accounted for.

    \b
    Exit codes: 0 ok · 1 not verified, refused, or failed · 2 usage
    3 unsigned · 4 signer not trusted, revoked, expired or out of scope
    5 older than a version seen before, or the clock was set back
    6 trust store, configuration or machine unusable · 7 internal error

    \b
    Example:
      sandbox-host keygen --dev
      sandbox-host new word_counter
      sandbox-host check word_counter
      sandbox-host sign word_counter
      sandbox-host call word_counter count '"one two two"'
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; nothing is raised."""
    if sys.stdout is None:  # so Python says that descriptor 1 is closed
        return _unwritable("it is closed")
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks must not become an internal error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with library_notes():
            code = _guarded(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
        return Exit.BROKEN_PIPE
    except OSError as error:
        discard(sys.stdout)
        return _unwritable(error.strerror or str(error))
    except KeyboardInterrupt:
        fail("interrupted.")
        return Exit.INTERRUPTED
    return code


def _guarded(arguments: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        # Not `cli.main`, which has exit codes of its own for a closed pipe.
        with cli.make_context(PROGRAM, given) as context:
            result: Any = cli.invoke(context)
    except click.exceptions.Exit as asked:
        return asked.exit_code
    except click.Abort:
        fail("interrupted.")
        return Exit.INTERRUPTED
    except click.ClickException as error:
        fail(_usage_text(error))
        return Exit.USAGE
    except SandboxHostError as error:
        fail(str(error))
        return exit_for(error)
    except OSError as error:
        if isinstance(error, BrokenPipeError) or _is_of_output(error):
            raise
        _internal_error(error)
        return Exit.INTERNAL
    except Exception as error:  # noqa: BLE001 - the last resort: a bug of ours
        _internal_error(error)
        return Exit.INTERNAL
    return result if isinstance(result, int) else Exit.OK


def _usage_text(error: click.ClickException) -> str:
    """Return click's complaint in one line, with where the help is."""
    text = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else PROGRAM
    return f"{text} See `{path} --help`."


def _internal_error(error: Exception) -> None:
    if os.environ.get(DEBUG_VARIABLE) == "1":
        traceback.print_exception(error)
    fail(
        f"internal error: {type(error).__name__}: {error}. This is a fault of {PROGRAM}'s, not "
        f"yours. Set {DEBUG_VARIABLE}=1 and run it again to see where; please report that."
    )


def _is_of_output(error: OSError) -> bool:
    """Tell whether it was raised while something was printed."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__") in _PRINTERS for frame in frames)


def _unwritable(reason: str) -> Exit:
    fail(
        f"standard output cannot be written: {reason}. Send it to a place with room, or to "
        f"{os.devnull} if only the exit code counts."
    )
    return Exit.ENVIRONMENT
