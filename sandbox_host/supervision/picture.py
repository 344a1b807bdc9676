"""The tables as pictures and tables for the documentation; a test compares them with the page.

The pictures are in Mermaid's language for state diagrams, which the forges draw.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from sandbox_host.supervision import lifecycle, rollout
from sandbox_host.supervision.machine import S, T

if TYPE_CHECKING:
    from sandbox_host.supervision.machine import Table

_BLOCK: Final = re.compile(
    r"(<!-- generated: ([a-z-]+) -->\n)(.*?)(<!-- end of generated -->)", re.DOTALL
)


def mermaid(table: Table[S, T], first: S, ends: Collection[S]) -> str:
    """Return a table as a state diagram: steps from one state to another on one arrow."""
    lines = ["stateDiagram-v2", f"    [*] --> {_id(first)}"]
    lines += [f'    state "{_said(state)}" as {_id(state)}' for state in table if "-" in state]
    for state, row in table.items():
        arrows: dict[S, list[str]] = {}
        for trigger, after in row.items():
            arrows.setdefault(after, []).append(_said(trigger))
        for after, triggers in arrows.items():
            lines.append(f"    {_id(state)} --> {_id(after)}: {', '.join(triggers)}")
    lines += [f"    {_id(state)} --> [*]" for state in table if state in ends and not table[state]]
    return "\n".join(lines)


def page(text: str) -> str:
    """Return a page with its generated blocks made afresh; the rest stays as it is.

    Raises:
        KeyError: there is no block of such a name.
    """
    return _BLOCK.sub(lambda found: f"{found[1]}\n{BLOCKS[found[2]]()}\n{found[4]}", text)


def _id(state: str) -> str:
    return state.replace("-", "_")


def _said(state: str) -> str:
    return state.replace("-", " ")


def _fenced(text: str) -> str:
    return f"```mermaid\n{text}\n```\n"


def _rows(head: str, rows: Iterator[str]) -> str:
    columns = head.count("|") - 1
    return "\n".join((head, "|" + "---|" * columns, *rows, ""))


def _life() -> str:
    return _fenced(mermaid(lifecycle.TABLE, lifecycle.FIRST, ()))


def _states() -> str:
    rows = (f"| `{state}` | {one.means} | {one.calls} |" for state, one in lifecycle.STATES.items())
    return _rows("| state | what it means | a call |", rows)


def _steps() -> str:
    return _step_rows(lifecycle.TABLE, lifecycle.JOURNAL)


def _step_rows(table: Table[S, T], journal: Mapping[T, str]) -> str:
    def shown(trigger: T) -> str:
        after: dict[S, list[str]] = {}
        for state, row in table.items():
            if trigger in row:
                after.setdefault(row[trigger], []).append(f"`{state}`")
        ways = "; ".join(f"{', '.join(before)} → `{state}`" for state, before in after.items())
        return f"| {_said(trigger)} | {ways} | `{journal[trigger]}` |"

    return _rows("| step | from → to | in the journal |", (shown(one) for one in journal))


def _rollout() -> str:
    return _fenced(mermaid(rollout.TABLE, rollout.FIRST, rollout.ENDS))


def _rollout_states() -> str:
    rows = (
        f"| `{state}` | {one.means} | {one.serves} | {'yes' if one.timed else 'no'} |"
        for state, one in rollout.STATES.items()
    )
    return _rows("| state | what it means | who serves | deadline |", rows)


def _rollout_steps() -> str:
    return _step_rows(rollout.TABLE, rollout.JOURNAL)


BLOCKS: Final[Mapping[str, Callable[[], str]]] = {
    "life": _life,
    "states": _states,
    "steps": _steps,
    "rollout": _rollout,
    "rollout-states": _rollout_states,
    "rollout-steps": _rollout_steps,
}
"""What is generated, by the name in the page."""
