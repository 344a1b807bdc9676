"""Why a plugin was refused something, in the host's words: rule, request, and what that opens.

What was asked for, and where, a plugin's own process reports. That is hostile text and no evidence:
the rule must be one of this table, the rest is bounded, quoted or dropped, and nothing is decided
by it. Which line of plugin.json would ask for a permission, and what that opens, is said here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from sandbox_host.admission.requests import covers_path, never
from sandbox_host.model import Denial, Permissions
from sandbox_host.reading import BadValueError, quoted
from sandbox_host.terms import read_permissions

MAX_ASKED_LENGTH: Final = 200

BUNDLE: Final = "bundle"
NEVER: Final = "never"
"""Rules that are no permissions: the plugin's own files, and what nothing opens."""

_PLACE: Final = re.compile(r"[\w./+-]{1,160}:[0-9]{1,7}(?: in [\w.<>]{1,100})?")
_NEVER: Final[Mapping[str, str]] = {
    "symbolic links": "making a symbolic link",
    "special files": "making a FIFO or a device",
    "signals to others": "a signal to another process",
    "owners of files": "changing whose a file is",
    "listening": "listening on a socket",
    "shared memory": "memory that processes share",
    "other programs": "starting a program other than its own interpreter",
    "other sockets": "a socket that is not of TCP",
}
_KERNELS_OWN: Final = ("/proc", "/sys", "/dev")


@dataclass(frozen=True, slots=True)
class _Rule:
    """One permission.

    Attributes:
        doing: what was refused; ``{}`` is what was asked for.
        otherwise: the same where that is not known.
        opens: what granting it opens.
        listed: whether plugin.json has a list of entries for it.
        granted: what it means that it is refused although it is granted; "" where that cannot be.
    """

    doing: str
    otherwise: str
    opens: str
    listed: bool = True
    granted: str = ""


_MODES: Final = (
    "is granted, and what refused it is outside of the sandbox: the modes of the file or of a "
    "directory above it, or a file system that is mounted for reading only. Where the host is "
    "root, a plugin has a user id of its own, so that others must have access: chmod o+{}"
)

RULES: Final[Mapping[str, _Rule]] = {
    "publish": _Rule(
        "publishing {}",
        "publishing an event",
        "events of that type to every subscriber of the host's",
    ),
    "subscribe": _Rule(
        "handling {}",
        "handling an event",
        "the data of every event of that type, whoever publishes it",
    ),
    "read": _Rule(
        "reading {}",
        "reading a file",
        "the path and all that is below it, for reading",
        granted=_MODES.format("rX"),
    ),
    "write": _Rule(
        "writing to {}",
        "writing to a file",
        "the path and all that is below it, for making, changing and removing files, and not for "
        "reading them",
        granted=_MODES.format("wx"),
    ),
    "network": _Rule(
        "connecting to {}",
        "connecting to another machine",
        "TCP connections to that host and port, and to nothing else; whatever the plugin can read, "
        "it can send there",
    ),
    "unix": _Rule(
        "connecting to the Unix socket {}",
        "connecting to a Unix socket",
        "that socket, and whatever its server does for who asks",
    ),
    "env": _Rule(
        "seeing the environment variable {}",
        "seeing an environment variable",
        "its value, as the host has it when the plugin is loaded",
        granted="is granted, and not set in the host's environment",
    ),
    "services": _Rule(
        "calling the service {}",
        "calling a service",
        "that service of the application, or of the host's own",
    ),
    "calls": _Rule(
        "calling {}",
        "calling another plugin",
        "that operation of another plugin, with whatever that plugin may do, as long as its "
        "plugin.json exports it",
    ),
    "native_code": _Rule(
        "using native code ({})",
        "using native code of its own",
        "shared objects that the plugin brings or writes, and executable memory: a fault in a "
        "library is easier to turn into code of an attacker's",
        listed=False,
    ),
    "subprocess": _Rule(
        "starting a process ({})",
        "starting a process",
        "processes of its own, which are confined and accounted for as the plugin is",
        listed=False,
    ),
    "threads": _Rule(
        "starting a thread",
        "starting a thread",
        'threads, as many as "limits": {"threads": …} says',
        listed=False,
        granted='is granted, and as many run as "limits": {"threads": …} lets it have',
    ),
}


@dataclass(frozen=True, slots=True)
class Report:
    """What a plugin's process says that it was refused; checked, and advice all the same.

    Attributes:
        rule: a key of `RULES`, `BUNDLE` or `NEVER`.
        asked: what for, at most `MAX_ASKED_LENGTH` characters of anything; "" if it did not say.
        place: line of its code, such as "main.py:12 in predict"; "" if it did not say.
    """

    rule: str
    asked: str
    place: str


def read_report(told: object) -> Report | None:
    """Return what a plugin's process reports, or None where that is no such report.

    Args:
        told: any value that came from it.
    """
    if not isinstance(told, dict):
        return None
    rule, asked, where = told.get("rule"), told.get("asked"), told.get("where")
    if not isinstance(rule, str) or not (rule in RULES or rule in {BUNDLE, NEVER}):
        return None
    place = where if isinstance(where, str) and _PLACE.fullmatch(where[:300]) else ""
    return Report(rule, asked[:MAX_ASKED_LENGTH] if isinstance(asked, str) else "", place)


def explained(report: Report, granted: Permissions) -> Denial:
    """Return the denial that a report is of.

    Args:
        report: what was reported.
        granted: the permissions in force for this plugin.
    """
    at = f" at {report.place}" if report.place else ""
    # ASCII in quotes: nothing in it can act on a terminal, begin a line or end the quotes.
    shown = quoted(report.asked, MAX_ASKED_LENGTH) if report.asked else ""
    words = (report.rule, report.asked, report.place)
    if report.rule == BUNDLE:
        text = (
            f"writing to {shown or 'its own bundle'}{at}: nobody changes the files that were "
            "signed. What a plugin keeps goes to context().data_dir, the rest to scratch_dir"
        )
        return Denial(*words, text=text)
    if report.rule == NEVER:
        what = _NEVER.get(report.asked, "something")
        text = f"{what}{at} is refused to every plugin: no permission opens that"
        return Denial(*words, text=text)
    rule = RULES[report.rule]
    what = (rule.doing.format(shown) if shown else rule.otherwise) + at
    if rule.granted and _is_granted(report, granted):
        text = f"{what} {rule.granted}"
        return Denial(*words, text=text)
    request, why_not = _request(report, rule, granted)
    if why_not:
        text = f"{what} is not granted to this plugin, and nobody can grant it: {why_not}"
        return Denial(*words, text=text)
    more = " (or its directory, for a file that is to be made)" if report.rule == "write" else ""
    text = (
        f"{what} is not granted to this plugin; in plugin.json it would be {request}{more}, and "
        f"the operator grants it. That opens {rule.opens}"
    )
    return Denial(*words, request=request, text=text)


def is_in_force(report: Report, granted: Permissions) -> bool:
    """Tell whether the plugin has what it says that it was refused."""
    return report.rule in RULES and _is_granted(report, granted)


def _is_granted(report: Report, granted: Permissions) -> bool:
    given = getattr(granted, report.rule)
    if isinstance(given, bool):
        return given
    if report.rule in {"read", "write"}:
        return covers_path(given, report.asked)
    return report.asked in given


def _request(report: Report, rule: _Rule, granted: Permissions) -> tuple[str, str]:
    """Return what plugin.json would say, or why nothing that it says would help."""
    # Some are never given together, some not in this version, and some names are the host's.
    wanted = Permissions(unix=granted.unix, network=granted.network)
    value = (report.asked,) if rule.listed else True
    if hopeless := never(replace(wanted, **{report.rule: value})):  # type: ignore[arg-type]  # a field of it
        return "", hopeless[0].problem
    if not rule.listed:
        return f'"permissions": {{"{report.rule}": true}}', ""
    if report.rule in {"read", "write"} and covers_path(_KERNELS_OWN, report.asked):
        return "", "what is the kernel's own is given to no plugin"
    try:
        read_permissions({report.rule: [report.asked]}, "permissions")
    except BadValueError as error:
        if report.rule == "env":
            return "", error.problem
        entry = _ENTRIES.get(report.rule, "…")  # what was reported is no entry; its form is known
    else:
        entry = quoted(report.asked, MAX_ASKED_LENGTH)
    return f'"permissions": {{"{report.rule}": [{entry}]}}', ""


_ENTRIES: Final = {"network": '"<host>:<port>"', "unix": '"<path>"'}
