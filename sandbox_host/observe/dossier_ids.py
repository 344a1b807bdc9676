"""What dossiers are called, and in which order they go when there are too many. Pure.

``20260131T120000-weather_model-4711``: the end in UTC, the plugin, or the instance of it
(``weather_model@tenant_a``), its process; ``-2`` for a twin.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sandbox_host.errors import DossierError
from sandbox_host.model import INSTANCE_MARK, plugin_of
from sandbox_host.reading import quoted

if TYPE_CHECKING:
    from sandbox_host.observe.dossier import Dossier

_ID: Final = re.compile(
    r"[0-9]{8}T[0-9]{6}-[a-z0-9_]{1,64}(?:@[a-z0-9_]{1,32})?-[0-9]{1,16}(?:-[0-9]{1,3})?"
)
_TIME: Final = "%Y%m%dT%H%M%S"
_TIME_LENGTH: Final = 15


def is_dossier_id(text: str) -> bool:
    """Tell whether text can name a dossier: ``20260131T120000-weather_model-4711``."""
    return _ID.fullmatch(text) is not None and _moment(text) is not None


def check_id(text: str) -> None:
    """Refuse what cannot name a dossier.

    Raises:
        DossierError: it is no id.
    """
    if not is_dossier_id(text):
        raise _no_id(text)


def id_of(dossier: Dossier) -> str:
    """Return the id that a dossier gets unless another has it already; of fitted ones."""
    plugin, instance = (re.sub(r"[^a-z0-9_]", "_", n) for n in plugin_of(dossier.plugin.lower()))
    plugin = (plugin[:64] or "_") + (f"{INSTANCE_MARK}{instance[:32]}" if instance else "")
    time = datetime.fromtimestamp(dossier.ended_at, UTC)
    # Not strftime: it writes the year 7 as "7" (glibc), and no more than four digits fit here.
    day = f"{time.year:04}{time.month:02}{time.day:02}"
    return f"{day}T{time:%H%M%S}-{plugin}-{dossier.pid}"


def ended_at(dossier_id: str) -> datetime:
    """Return when the plugin ended, in whole seconds, as the dossier's id says.

    Raises:
        DossierError: it is no id.
    """
    moment = _moment(dossier_id)
    if moment is None:
        raise _no_id(dossier_id)
    return moment


def time_in(dossier_id: str) -> str:
    """Return the part of an id that is the time; in order of time where compared as text."""
    return dossier_id[:_TIME_LENGTH]


def in_order_of_removal(dossier_ids: Sequence[str]) -> Iterator[str]:
    """Yield all ids but the newest, each time the oldest of the plugin that has the most left.

    A plugin that crashes again and again so pushes out its own, and not what is known of others.
    Where several plugins have as many, the oldest of theirs is next.

    Args:
        dossier_ids: the oldest first.
    """
    newest = len(dossier_ids) - 1
    by_plugin: dict[str, list[int]] = {}
    for number in range(newest, -1, -1):
        by_plugin.setdefault(_plugin_in(dossier_ids[number]), []).append(number)
    heap = [(-len(left), left[-1], plugin) for plugin, left in by_plugin.items()]
    heapq.heapify(heap)
    while heap:
        _, oldest, plugin = heapq.heappop(heap)
        left = by_plugin[plugin]
        left.pop()
        if left:
            heapq.heappush(heap, (-len(left), left[-1], plugin))
        if oldest != newest:
            yield dossier_ids[oldest]


def _plugin_in(dossier_id: str) -> str:
    return dossier_id[_TIME_LENGTH + 1 :].partition("-")[0]


def _moment(dossier_id: str) -> datetime | None:
    try:
        return datetime.strptime(dossier_id[:_TIME_LENGTH], _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None


def _no_id(text: str) -> DossierError:
    return DossierError(
        f"{quoted(text)} is no id of a dossier, such as 20260131T120000-weather_model-4711.",
        remedy="`sandbox-host dossier list` shows those there are.",
    )
