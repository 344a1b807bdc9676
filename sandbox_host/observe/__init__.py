"""What the host writes down and counts: the journal, and the metrics of operations.

Texts that come in may be a plugin's and are bounded and escaped before they are kept. Nothing here
decides anything.
"""

from __future__ import annotations

from sandbox_host.observe.journal import Journal, JournalEntry, JournalFault, verify_journal
from sandbox_host.observe.metrics import LatencyHistogram, OperationMetrics

__all__ = [
    "Journal",
    "JournalEntry",
    "JournalFault",
    "LatencyHistogram",
    "OperationMetrics",
    "verify_journal",
]
