"""Resource limits (setrlimit(2))."""

from __future__ import annotations

import resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def set_rlimits(limits: Iterable[tuple[int, int]]) -> None:
    """Set each limit, soft and hard."""
    for number, value in limits:
        resource.setrlimit(number, (value, value))
