"""Runs every attack of `tests/hostile` without pytest; the argument is a directory for it.

Prints one line of JSON: the user, and per attack what is wrong, "" where all is as it should be.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.support.hostile import ATTACKS, Arena, arena, control_excused, control_fault


def faults_of(opened: Arena, name: str) -> str:
    """Return what is wrong with one attack: its control, or what it met inside."""
    attack = ATTACKS[name]
    fault = control_fault(attack, opened.controls[name])
    if fault and not control_excused(attack):
        return fault
    met = opened.attempt(name)
    return "" if met in attack.expected else f"inside it met {met}, not {attack.expected}"


def main(root: Path) -> None:
    """Run them all below ``root``, a directory of this user's own."""
    with arena(root) as opened:
        faults = {name: faults_of(opened, name) for name in sorted(ATTACKS)}
        report = {
            "user": os.geteuid(),
            "layers": [str(layer) for layer in opened.plugin.receipt.active],
            "faults": faults,
            "unchanged": opened.unchanged(),
            "signals": opened.received,
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
