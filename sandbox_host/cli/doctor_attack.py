"""``doctor --attack``: the attacks on this machine's sandbox, as tables and as one document."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict, dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.cli.doctor_report import receipt_document
from sandbox_host.cli.exits import Exit, exit_for
from sandbox_host.cli.output import clean, field, no_library_notes, print_table, say
from sandbox_host.cli.tables import print_receipt
from sandbox_host.errors import SandboxHostError
from sandbox_host.selftest.audit import audit
from sandbox_host.selftest.report import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sandbox_host.config import HostConfig
    from sandbox_host.selftest.report import Attempt, AuditReport, Tally

_WIDTH: Final = 76
"""Of a line of names, which is indented by four, on a terminal of 80 columns."""

_BAD: Final = (Verdict.NOT_STOPPED, Verdict.UNCLEAR, Verdict.NOT_MADE)

_LEGEND: Final = (
    ("HELD", "it works here without the sandbox, and failed inside as it has to"),
    ("GOT THROUGH", "it worked inside"),
    ("UNCLEAR", "it failed inside, but not by what is known to stop it"),
    ("ACCEPTED", "what stops it is not in force here, or was given up by name"),
    ("NO CONTROL", "it failed inside; this user or machine cannot do it outside either"),
)


@dataclass(frozen=True, slots=True)
class Attacked:
    """What came of the attacks: a report, or the error that kept them from being made."""

    report: AuditReport | None = None
    error: SandboxHostError | None = None

    @property
    def fault(self) -> str:
        """What is wrong, as a paragraph; "" where everything held."""
        if self.error is not None:
            return str(self.error)
        if self.report is None or self.report.holds:
            return ""
        names = ", ".join(one.name for one in self.report.of(*_BAD)) or "see the last table"
        return f"the sandbox did not hold, or that could not be shown: {names}."

    @property
    def exit(self) -> Exit:
        """The exit code that goes with it."""
        if self.error is not None:
            return exit_for(self.error)
        return Exit.REFUSED if self.fault else Exit.OK

    def print(self) -> None:
        """Print it for a person, the sentence that says it all last."""
        if self.report is not None:
            _print(self.report)

    def document(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        if self.report is None:
            return {"error": clean(self.error)}
        return _document(self.report)


def attack(config: HostConfig) -> Attacked:
    """Make every attack, and show on a terminal that it takes its time."""
    # What the library would warn of, plugins that are ended, is what the attacks are for.
    with no_library_notes(), _progress() as progress:
        try:
            return Attacked(report=audit(config, progress))
        except SandboxHostError as error:
            return Attacked(error=error)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status("attacking ...") as status:
        yield lambda text: status.update(f"{escape(clean(text))} ...")


# -- for a person ------------------------------------------------------------------------------


def _print(report: AuditReport) -> None:
    say()
    say("Attacked, from inside a real plugin:")
    field("user", report.user)
    field("system", report.system)
    field("python", report.python)
    field("took", f"{report.seconds:.0f} s")
    say()
    print_receipt(report.receipt)
    print_table(
        ("CLASS", "MADE", "HELD", "GOT THROUGH", "UNCLEAR", "ACCEPTED", "NO CONTROL"),
        [_row(one) for one in (*report.by_class(), report.total())],
    )
    say()
    for word, meaning in _LEGEND:
        field(word, meaning)
    say()
    _print_attempts(report)
    print_table(
        ("AFTERWARDS", "TRUE", "SEEN"),
        [(one.what, "yes" if one.holds else "NO", one.detail) for one in report.aftermath],
    )
    say()
    say(report.summary())


def _row(one: Tally) -> tuple[object, ...]:
    counts = (one.attempted, one.held, one.not_stopped, one.unclear, one.accepted, one.no_control)
    return (one.what, *counts)


def _print_attempts(report: AuditReport) -> None:
    """Print each attack by name that is not simply held."""
    bad = report.of(*_BAD)
    if bad:
        told = ((o, " or ".join(o.expected)) for o in bad)
        rows = [
            (o.verdict, f"{o.name} ({o.boundary}): met {o.met}, should meet {expected}")
            for o, expected in told
        ]
        print_table(("DID NOT HOLD", "ATTACK"), rows)
        say()
    _print_grouped(
        "ACCEPTED, FOR WANT OF", ((", ".join(o.needs), o) for o in report.of(Verdict.ACCEPTED))
    )
    _print_grouped(
        "NO CONTROL, BECAUSE WITHOUT THE SANDBOX IT",
        ((o.control, o) for o in report.of(Verdict.NO_CONTROL)),
    )


def _print_grouped(heading: str, attempts: Iterable[tuple[str, Attempt]]) -> None:
    """Print the names of attacks by what they have in common; a name is never broken."""
    found: dict[str, list[str]] = {}
    for reason, one in attempts:
        found.setdefault(reason, []).append(one.name)
    if not found:
        return
    say(heading)
    for reason, names in sorted(found.items()):
        say(f"  {reason}:")
        for line in wrap(", ".join(names), _WIDTH, break_long_words=False, break_on_hyphens=False):
            say(f"    {line}")
    say()


# -- for a program -----------------------------------------------------------------------------


def _document(report: AuditReport) -> dict[str, Any]:
    return {
        "holds": report.holds,
        "summary": clean(report.summary()),
        "user": clean(report.user),
        "system": clean(report.system),
        "python": report.python,
        "seconds": round(report.seconds, 1),
        "total": _counts(report.total()),
        "classes": [{"class": one.what, **_counts(one)} for one in report.by_class()],
        "attacks": [
            {
                "name": one.name,
                "class": one.boundary,
                "verdict": one.verdict,
                "met": clean(one.met),
                "expected": list(one.expected),
                "control": clean(one.control),
                "needs": list(one.needs),
            }
            for one in report.attempts
        ],
        "aftermath": [
            {"what": one.what, "holds": one.holds, "detail": clean(one.detail)}
            for one in report.aftermath
        ],
        "receipt": receipt_document(report.receipt),
    }


def _counts(one: Tally) -> dict[str, int]:
    return {name: value for name, value in asdict(one).items() if name != "what"}
