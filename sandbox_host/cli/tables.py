"""Tables of running plugins: what confines each, what each has used and was granted.

The rows of guarantees and layers are `doctor`'s as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sandbox_host.cli.describe import permission_lines, size
from sandbox_host.cli.output import print_table, say
from sandbox_host.reading import sentence
from sandbox_host.terms import LIMIT_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox_host.model import Enforced, GuaranteeReport, LayerReport, Receipt
    from sandbox_host.runtime.handle import PluginView


_KEY_OF: Final = {key.field: key.key for key in LIMIT_KEYS}


def guarantee_rows(reports: Iterable[GuaranteeReport]) -> list[tuple[str, str, str]]:
    """Return a row for each guarantee: how it stands, and by which layers."""
    return [(r.guarantee, r.status, r.detail) for r in reports]


def enforced_rows(entries: Iterable[Enforced]) -> list[tuple[str, str, str]]:
    """Return a row for each mechanism, limits under plugin.json's names; a name stands once."""
    rows, before = [], ""
    for entry in entries:
        name = _KEY_OF.get(entry.name, entry.name)
        rows.append(("" if name == before else name, entry.value, entry.mechanism))
        before = name
    return rows


def layer_rows(layers: Iterable[LayerReport]) -> list[tuple[str, str, str]]:
    """Return a row for each layer of confinement; a missing one says what to do."""
    return [
        (r.layer, r.status, f"{sentence(r.detail)} {r.remedy}" if r.remedy else r.detail)
        for r in layers
    ]


def print_receipt(receipt: Receipt) -> None:
    """Print what confines one plugin: what is promised, what keeps it, what is bounded, granted."""
    say(f"{receipt.plugin}: process {receipt.pid}, confined by")
    sections = (
        (("GUARANTEE", "STATUS", "BY"), guarantee_rows(receipt.guarantees)),
        (("LAYER", "STATUS", "READ BACK"), layer_rows(receipt.layers)),
        (("LIMIT", "VALUE", "ENFORCED BY"), enforced_rows(receipt.limits)),
        (("PERMISSION", "VALUE", "ENFORCED BY"), enforced_rows(receipt.permissions)),
    )
    for headings, rows in sections:
        if rows:
            print_table(headings, rows)
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
