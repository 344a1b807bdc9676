"""Runs every attack of the collection without pytest, as whoever it is started by.

Prints one line of JSON: the user, the layers, what did not hold, and what was left afterwards.
"""

from __future__ import annotations

import json
import logging
import os

from sandbox_host import HostConfig
from sandbox_host.selftest.audit import audit
from sandbox_host.selftest.report import Verdict


def main() -> None:
    """Make the attacks and report."""
    logging.disable(logging.CRITICAL)  # plugins that are ended are what it is about
    report = audit(HostConfig())
    told = {
        "user": os.geteuid(),
        "layers": [str(layer) for layer in report.receipt.active],
        "verdicts": {one.name: one.verdict for one in report.attempts},
        "bad": {
            one.name: one.met
            for one in report.of(Verdict.NOT_STOPPED, Verdict.UNCLEAR, Verdict.NOT_MADE)
        },
        "no_control": {one.name: one.control for one in report.of(Verdict.NO_CONTROL)},
        "aftermath": {one.what: one.detail for one in report.aftermath if not one.holds},
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
