"""Tables of running plugins: what confines each, what each has used and was granted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox_host.cli.describe import permission_lines, size
from sandbox_host.cli.output import print_table, say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox_host.model import LayerReport, Receipt
    from sandbox_host.runtime.handle import PluginView


def layer_rows(layers: Iterable[LayerReport]) -> list[tuple[str, str, str]]:
    """Return a row for each layer of confinement; a missing one says what to do."""
    return [(r.layer, r.status, f"{r.detail}. {r.remedy}".removesuffix(". ")) for r in layers]


def print_receipt(receipt: Receipt) -> None:
    """Print what confines one plugin, a row for each layer."""
    say(f"{receipt.plugin}: process {receipt.pid}, confined by")
    print_table(("LAYER", "STATUS", "READ BACK"), layer_rows(receipt.layers))
    say()


def print_plugins(plugins: Iterable[PluginView]) -> None:
    """Print a row for each plugin: its life, its use, its rights."""
    rows = []
    for plugin in plugins:
        usage = plugin.usage()
        rows.append(
            (
                f"{plugin.name} {plugin.version}",
                f"{plugin.state}{f' ({plugin.cause})' if plugin.cause else ''}",
                len(plugin.receipt.active),
                size(usage.memory_peak_bytes),
                f"{usage.cpu_seconds:.2f} s",
                usage.descriptors_peak,
                ", ".join(permission_lines(plugin.plan.permissions)),
            )
        )
    print_table(("PLUGIN", "STATE", "LAYERS", "PEAK", "CPU", "FDS", "GRANTED"), rows)
