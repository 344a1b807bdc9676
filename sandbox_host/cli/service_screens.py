"""The screens `status` and `top`: what a service said of itself, as tables.

Everything shown is readable without colour, and passes through `output`, which escapes it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.cli.describe import counted, permission_lines, size
from sandbox_host.cli.output import note, print_table, say
from sandbox_host.cli.tables import print_receipt
from sandbox_host.model import Permissions
from sandbox_host.service.documents import receipt_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Document = dict[str, Any]

_MINUTE: Final = 60
_HOUR: Final = 3_600
_DAY: Final = 86_400
_MILLISECOND: Final = 1_000
_WATCHED: Final = {
    "no": "not watched",
    "notices": "watched",
    "scans": "watched by scans alone",
}


def duration(seconds: float) -> str:
    """Return a time that has passed, such as ``3 d 4 h`` or ``12 s``."""
    whole = int(seconds)
    if whole >= _DAY:
        return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"
    if whole >= _HOUR:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    if whole >= _MINUTE:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole} s"


def milliseconds(seconds: float) -> str:
    """Return a short time, such as ``0.21 ms`` or ``1500 ms``."""
    value = seconds * _MILLISECOND
    return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"  # noqa: PLR2004 - two digits do


def is_well(document: Document) -> bool:
    """Tell whether everything runs that should, and is looked after."""
    plugins = document["plugins"]
    broken = any(
        one["state"] == "failed" or one["quarantine"] or _health(one) == "unhealthy"
        for one in plugins
    )
    stuck = document["problems"] or document["waiting"]
    return bool(document["service"]["watchdog"]) and not broken and not stuck


def print_service(facts: Mapping[str, Any]) -> None:
    """Print what a service says of itself."""
    watchdog = "" if facts["watchdog"] else "; ITS WATCHDOG DOES NOT LOOK AT THE PLUGINS"
    up = duration(facts["uptime_seconds"])
    say(
        f"sandbox-host {facts['version']}, process {facts['pid']}: "
        f"{facts['phase']} for {up}{watchdog}"
    )
    restarts = "started again when they end" if facts["restarts"] else "not started again"
    if facts["plugin_directory"]:
        say(f"{facts['plugin_directory']}: {_WATCHED.get(facts['watching'], facts['watching'])}")
    say(f"plugins are {restarts}; {counted(facts['clients'], 'client')}")


def standing(plugins: Sequence[Document]) -> str:
    """Return how many plugins there are, and how many in which state."""
    if not plugins:
        return "no plugin is loaded"
    words = Counter("quarantined" if one["quarantine"] else str(one["state"]) for one in plugins)
    told = ", ".join(f"{number} {word}" for word, number in sorted(words.items()))
    return f"{counted(len(plugins), 'plugin')}: {told}"


def print_status(document: Document) -> None:
    """Print the screen of `status`."""
    print_service(document["service"])
    say(standing(document["plugins"]))
    if document["plugins"]:
        say()
        print_table(
            ("PLUGIN", "STATE", "PID", "PEAK", "CPU", "CALLS", "FAILED", "P99"),
            [_status_row(one) for one in document["plugins"]],
        )
    for one in document["plugins"]:
        if one["quarantine"]:
            note(f"note: {one['plugin']} is in quarantine: {one['quarantine']}")
            note(f"note: `sandbox-host release {one['plugin']}` starts it again.")
        elif _health(one) not in {"", "healthy"} and one["state"] != "failed":
            told = one["health"]
            note(f"note: {one['plugin']} is {told['status']} since {told['since']}:")
            note(f"note: {told['message']}")
        if one["dossier"] and one["state"] == "failed":
            note(f"note: why {one['plugin']} ended: sandbox-host dossier show")
        for text in one["lacking"]:
            note(f"note: {one['plugin']} runs without something that it needs: {text}")
    for one in document["waiting"]:
        note(f"note: {one['plugin']} waits: {one['reason']}")
    for problem in document["problems"]:
        note(f"note: {problem['path']}: {problem['reason']}")


def _status_row(one: Document) -> tuple[object, ...]:
    usage = one["usage"]
    return (
        f"{one['plugin']} {one['version']}",
        state(one),
        one["pid"],
        size(usage["memory_peak_bytes"]),
        f"{usage['cpu_seconds']:.2f} s",
        usage["calls"],
        usage["failures"],
        milliseconds(usage["p99_seconds"]),
    )


def state(one: Document) -> str:
    """Return a plugin's state in a word or two."""
    if one["quarantine"]:
        return "quarantined"
    if one["cause"]:
        return f"{one['state']} ({one['cause']})"
    health = _health(one)
    return str(one["state"]) if health in {"", "healthy"} else f"{one['state']}, {health}"


def _health(one: Document) -> str:
    """Return how a plugin is doing, in a word; "" where nobody knows yet."""
    health = one.get("health")
    return str(health["status"]) if health else ""


def _health_told(one: Document) -> str:
    told = one.get("health")
    if not told:
        return "not known yet"
    return f"{told['status']} since {told['since']}: {told['message']}"


def print_one(one: Document) -> None:
    """Print all that there is about one plugin."""
    usage = one["usage"]
    say(f"{one['plugin']} {one['version']}: {state(one)}")
    rows = [
        ("root digest", one["digest"]),
        ("granted", ", ".join(permission_lines(_permissions(one["permissions"])))),
        ("operations", ", ".join(one["operations"]) or "none"),
        ("memory", f"{size(usage['memory_peak_bytes'])} of {size(one['memory_limit_bytes'])}"),
        ("CPU time", f"{usage['cpu_seconds']:.2f} s"),
        ("calls", f"{usage['calls']}, of which {usage['failures']} failed"),
        ("p50, p99", f"{milliseconds(usage['p50_seconds'])}, {milliseconds(usage['p99_seconds'])}"),
        ("health", _health_told(one)),
        ("lacks", " ".join(one["lacking"]) or "nothing"),
        ("quarantine", one["quarantine"] or "no"),
        ("dossier", one["dossier"] or "none"),
    ]
    print_table(("WHAT", "VALUE"), rows)
    say()
    print_receipt(receipt_of(one["receipt"]))


def _permissions(told: Mapping[str, Any]) -> Permissions:
    known: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else bool(v)
        for k, v in told.items()
        if k in Permissions.__dataclass_fields__
    }
    return Permissions(**known)


def print_top(document: Document, before: Document | None, rows: int) -> None:
    """Print the screen of `top`: the busiest plugins, and how many are left out.

    Args:
        document: what the service says now.
        before: what it said the last time, for what is per second; None for the first time.
        rows: the most plugins that are shown, at least one.
    """
    plugins = document["plugins"]
    print_service(document["service"])
    say(standing(plugins))
    if not plugins:
        return
    say()
    earlier = {one["plugin"]: one for one in before["plugins"]} if before else {}
    seconds = _between(document, before)
    all_rows = [_top_row(one, earlier.get(one["plugin"]), seconds) for one in plugins]
    all_rows.sort(key=lambda row: row[0])
    headings = ("PLUGIN", "STATE", "CPU %", "PEAK", "CALLS/S", "ERR/S", "P99")
    print_table(headings, [row[1:] for row in all_rows[:rows]])
    left = len(plugins) - rows
    if left > 0:
        say()
        say(f"left out: {counted(left, 'plugin')}, less busy; --rows shows more")


def _between(document: Document, before: Document | None) -> float:
    if before is None or before["service"]["pid"] != document["service"]["pid"]:
        return 0.0
    now, then = (d["service"]["uptime_seconds"] for d in (document, before))
    return max(0.0, float(now) - float(then))


def _top_row(one: Document, before: Document | None, seconds: float) -> tuple[Any, ...]:
    usage = one["usage"]
    # Another process of the plugin counts from nothing.
    same = before is not None and before["pid"] == one["pid"] and seconds > 0

    def rate(name: str) -> float | None:
        if not same or before is None:
            return None
        return max(0.0, float(usage[name] - before["usage"][name]) / seconds)

    cpu, calls, failures = rate("cpu_seconds"), rate("calls"), rate("failures")
    # The busiest first: now, or in all its life where nothing is known of now; else by name.
    order = (-(cpu or 0.0), -(calls or 0.0), -float(usage["cpu_seconds"]), one["plugin"])
    share = 100 * usage["memory_peak_bytes"] / max(1, one["memory_limit_bytes"])
    return (
        order,
        one["plugin"],
        state(one),
        "-" if cpu is None else f"{100 * cpu:.1f}",
        f"{size(usage['memory_peak_bytes'])} {share:.0f}%",
        "-" if calls is None else f"{calls:.1f}",
        "-" if failures is None else f"{failures:.1f}",
        milliseconds(usage["p99_seconds"]),
    )
