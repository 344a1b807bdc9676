"""An application with three plugins that it does not trust: read this file first.

It signs the examples beside it with this user's development key, runs each in a sandbox of its
own, and chains them: a data source, a pipeline, a model. Everything it does with plugins goes
through `SandboxHost`. Run it with ``make run``.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sandbox_host import EventStream, HostConfig, Permissions, Plugin, SandboxHost, SandboxHostError
from sandbox_host.bundle.keys import DevelopmentKey, create_development_key
from sandbox_host.bundle.reader import read_directory
from sandbox_host.bundle.sign import sign
from sandbox_host.bundle.stage import stage_source
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.verify import verify
from sandbox_host.config import default_config_dir
from sandbox_host.model import MIB

PLUGINS = Path(__file__).resolve().parent
PLUGIN_ENVIRONMENT = PLUGINS.parent / ".plugin-env"
"""Installed wheels that plugins may import, numpy among them; `make env` makes it."""

NAMES = ("weather_source", "weather_features", "weather_model")
TRAINING = {"from": "2012-01-01", "to": "2014-12-31"}
JUDGED = {"from": "2015-01-01", "to": "2015-12-31"}
LAST_DAYS = 7
PUBLISHED = ("data_processed", "model_updated", "data_processed")
"""What the plugins publish in the course of the flow; all of it must arrive."""
EVENTS_WITHIN_SECONDS = 10.0
PIPED_COLUMNS = 120
"""Width of the output where it is no terminal, and COLUMNS does not say another."""

NOT_WRITTEN = 6
"""Exit code where standard output is full or closed; that of `sandbox-host`, too."""


class OutputError(Exception):
    """Standard output cannot be written."""


class Report:
    """What the reader sees: one line per thing that happened, in order."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            width = None if os.environ.get("COLUMNS", "").isdecimal() else PIPED_COLUMNS
            self.console = Console(highlight=False, width=width)

    def show(self, what: Table) -> None:
        """Print a table; in a file or pipe without the blanks that fill its lines."""
        shown: Table | Text = what
        if not self.console.is_terminal:
            with self.console.capture() as captured:
                self.console.print(what)
            shown = Text("\n".join(map(str.rstrip, captured.get().splitlines())))
        self._print(shown)

    def _print(self, what: Table | Text) -> None:
        try:
            self.console.print(what, soft_wrap=isinstance(what, Text))
        except OSError as error:
            raise OutputError(error.strerror) from error

    def title(self, text: str) -> None:
        """Begin a part."""
        self._print(Text(f"\n{text}", style="bold"))

    def line(self, what: str, text: str) -> None:
        """Tell one thing."""
        # Some of it comes from plugins: no markup, and no control characters for the terminal.
        shown = "".join(c if c.isprintable() else "?" for c in text)
        row = Table.grid(padding=(0, 0, 0, 2))
        row.add_column(width=17, style="cyan")
        row.add_column(overflow="fold")
        row.add_row(escape(what), escape(shown))
        self.show(row)

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Show that something takes its time; a file or pipe gets the plain result only."""
        if self.console.is_terminal:
            with self.console.status(f"{what} ..."):
                yield
        else:
            yield


# -- before anything runs: sign and verify -----------------------------------------------------


def prepare(report: Report, signed: Path) -> DevelopmentKey:
    """Sign a copy of each plugin in the directory ``signed``, and verify what was written.

    The working tree stays as it is: a signature belongs to a release, not to source files.
    """
    report.title("Sign and verify")
    developer = create_development_key(default_config_dir())
    found = "made now, mode 0600" if developer.created else "found"
    report.line("development key", f"{developer.path} ({found}); trusted on this machine only")
    trust = TrustStore.load(developer.trust_store)
    for name in NAMES:
        now = dt.datetime.now(dt.UTC)
        source = read_directory(PLUGINS / name)
        stage_source(source, sign(source, developer.key, now), signed / name)
        bundle = verify(read_directory(signed / name), trust, now)
        report.line(
            name,
            f"{bundle.manifest.version}: {len(bundle.files)} files, every byte signed by "
            f"{bundle.signer}; digest {bundle.root_digest[:12]}",
        )
    return developer


# -- the main job ------------------------------------------------------------------------------


async def show_events(events: EventStream, report: Report) -> None:
    """Print what the plugins publish, as it arrives, until all of it was seen."""
    expected = len(PUBLISHED)
    async for event in events:
        # The data comes from a plugin that nobody vouches for: it is shown cut short.
        told = f"{event.type} from {event.source}: {event.data!r:.80}"
        report.line(f"event {event.id}", told)
        expected -= 1
        if not expected:
            return


async def load(host: SandboxHost, report: Report, signed: Path) -> list[Plugin]:
    """Load the three plugins, each from its signed copy into a sandbox of its own."""
    report.title("Load: each in a process of its own, with the layers that confine it")
    handles = []
    for name in NAMES:
        with report.working(f"starting {name}"):
            handle = await host.load(signed / name)
        handles.append(handle)
        report.line(name, f"pid {handle.receipt.pid}: {', '.join(handle.receipt.active)}")
    return handles


async def learn(handles: list[Plugin], report: Report) -> dict[str, Any]:
    """Read, process, train; then judge the model on the year that it has not seen."""
    source, features, model = handles
    report.title("Learn from 2012 to 2014")
    with report.working("training"):
        held = await source.call("connect")
        report.line("weather_source", f"connected: {held['rows']} days of weather in Seattle")
        table = await source.call("read", TRAINING)
        batch = await features.call("process", table, fit=True)
        width = len(batch["feature_names"])
        report.line("weather_features", f"{len(batch['features'])} days, {width} numbers each")
        trained = await model.call("train", batch["features"], batch["labels"], batch["classes"])
        report.line(
            "weather_model", f"trained in {trained['epochs']} epochs: loss {trained['loss']:.3f}"
        )

    report.title("Judge on 2015, which the model has never seen")
    with report.working("evaluating"):
        table = await source.call("read", JUDGED)
        batch = await features.call("process", table)
        result: dict[str, Any] = await model.call("evaluate", batch["features"], batch["labels"])
    await predict_last_days(model, batch, report)
    return result


async def predict_last_days(model: Plugin, batch: dict[str, Any], report: Report) -> None:
    """Ask for the last days one by one, and show the true label beside each answer."""
    days = zip(batch["dates"], batch["features"], batch["labels"], strict=True)
    for date, numbers, truth in list(days)[-LAST_DAYS:]:
        (answer,) = await model.call("predict", [numbers], deadline=1.0)
        true_label = batch["classes"][truth]
        mark = "right" if answer["label"] == true_label else "wrong"
        told = f"{answer['label']:<8} ({answer['probability']:.0%})  was {true_label:<8} {mark}"
        report.line(date, told)


# -- what it cost ------------------------------------------------------------------------------


def cost_table(handles: list[Plugin]) -> Table:
    """Return one row per plugin: what confines it, what it used, what it was granted."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold cyan")
    table.add_column("plugin", no_wrap=True)
    table.add_column("layers", no_wrap=True)
    for heading in ("peak MiB", "CPU s", "fds", "calls", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    table.add_column("granted")
    for handle in handles:
        # Their names were printed when it was loaded.
        usage, receipt = handle.usage(), handle.receipt
        table.add_row(
            handle.name,
            f"{len(receipt.active)} of {len(receipt.layers)}",
            f"{usage.memory_peak_bytes / MIB:.1f}",
            f"{usage.cpu_seconds:.2f}",
            f"{usage.descriptors_peak}",
            f"{usage.calls}",
            f"{usage.p50_seconds * 1000:.2f}",
            f"{usage.p99_seconds * 1000:.2f}",
            granted_text(handle.plan.permissions),
        )
    return table


def granted_text(permissions: Permissions) -> str:
    """Return the permissions in a few words."""
    parts = [f"publish {event}" for event in permissions.publish]
    parts += [f"read {path}" for path in permissions.read]
    parts += ["native code"] if permissions.native_code else []
    return ", ".join(parts) or "nothing"


async def run(report: Report, work: Path) -> bool:
    """Do the whole job; return whether the model beat the majority class."""
    developer = prepare(report, work / "signed")
    config = HostConfig(
        trust_store=developer.trust_store,
        state_dir=work / "state",
        plugin_environment=PLUGIN_ENVIRONMENT,
    )
    async with SandboxHost(config) as host:
        handles = await load(host, report, work / "signed")
        # Subscribed before the first of them can be published, so that none is missed.
        async with host.subscribe(*PUBLISHED) as events:
            showing = asyncio.create_task(show_events(events, report))
            result = await learn(handles, report)
            await asyncio.wait_for(showing, EVENTS_WITHIN_SECONDS)
        health = await handles[-1].call("health_check")
        report.line("weather_model", f"heard of {health['metrics']['rows_announced']} rows")
        table = cost_table(handles)
        for name in reversed(NAMES):
            await host.unload(name)
        report.line("unloaded", f"{len(NAMES)} plugins; {len(host.plugins)} left")

    report.title("Result")
    accuracy, baseline = result["accuracy"], result["baseline_accuracy"]
    report.line("accuracy", f"{accuracy:.1%} of {result['rows']} days named as the data set does")
    report.line("majority class", f"{baseline:.1%}, always giving the year's most frequent answer")
    report.title("What each plugin had and used")
    report.show(table)
    return bool(accuracy > baseline)


def main() -> int:
    """Run the example; return the exit code."""
    if sys.stdout is None:  # so Python says that descriptor 1 is closed
        return failed("standard output cannot be written: it is closed.", NOT_WRITTEN)
    report = Report()
    try:
        with tempfile.TemporaryDirectory(prefix="weather-flow-") as work:
            won = asyncio.run(run(report, Path(work)))
    except SandboxHostError as error:
        return failed(str(error))
    except TimeoutError:
        return failed(f"an event did not arrive within {EVENTS_WITHIN_SECONDS:.0f} seconds.")
    except OutputError as error:
        # Or the interpreter would try, and complain, once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return failed(f"standard output cannot be written: {error}.", NOT_WRITTEN)
    except OSError as error:
        return failed(f"the temporary directory cannot be used: {error}.")
    except (LookupError, TypeError, ValueError) as error:
        return failed(f"a plugin's answer does not have the expected form ({error!r:.200}).")
    except KeyboardInterrupt:
        failed("interrupted.")
        return 130
    return 0 if won else failed("the model does not beat the majority class.")


def failed(reason: str, code: int = 1) -> int:
    """Say why in one paragraph; return the exit code."""
    print(f"weather_flow: {reason}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
