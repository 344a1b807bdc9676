"""What a conversation is with, and what is asked in it: the other rooms' side of `conversation`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sandbox_host.errors import PluginError
    from sandbox_host.ipc.calls import Pending
    from sandbox_host.model import Denial, Limits
    from sandbox_host.runtime.asked import Asked


class Party(Protocol):
    """The plugin's process, as far as talking to it goes."""

    @property
    def takes_calls(self) -> bool:
        """It is ready."""

    @property
    def operations(self) -> tuple[str, ...]:
        """What it offers."""

    @property
    def held_seconds(self) -> float:
        """For how long, all in all, it was not read, because it sent or printed too much."""

    def check_ready(self) -> None:
        """Raise why it takes no calls now, if it takes none."""

    def unanswered(self, pending: Pending) -> PluginError:
        """Return the error for a call that will not be answered any more."""

    def violated(self, what: str) -> None:
        """It broke the protocol: end it."""

    def broken(self, reason: BaseException | None) -> None:
        """Nothing can be said any more; see `Channel`."""

    def published(self, event_type: str, payload: bytes) -> None:
        """It published an event; its right to has not been checked."""

    def asked(self, asked: Asked) -> None:
        """It asks for a service; its right to has not been checked."""

    def withdrawn(self, number: int) -> None:
        """It waits no more for what it asked for under that number."""

    def logged(self, level: int, logger: str, payload: bytes) -> None:
        """It has an entry for the log."""

    def handler_failed(self, event_type: str, report: Any) -> None:
        """A handler of an event failed."""

    def reported(self, denial: Denial) -> None:
        """It says that it was refused something."""

    def rearm(self, for_room: bool, /) -> None:
        """Have the keeper pump when there is something to read, or room to write."""

    def hurry(self) -> None:
        """Have the keeper look at once: a budget may be used up before its next look."""


@dataclass(slots=True)  # one that is frozen takes three times as long to make
class Request:
    """What an application asks of a plugin.

    Attributes:
        operation: the operation's name.
        arguments: positional arguments.
        keywords: keyword arguments.
        deadline: seconds from now; of a stream, for all of it, and infinite where it has none.
        limits: tighter ones than the plugin's own, or None.
        feeds: where streams were passed: indices of arguments, names of keywords.
        streams: what it yields is wanted.
        asked_seconds: as long as it is waited for, where that is shorter than its deadline.
        many: each argument has the arguments, or the keywords, of a call of its own.
        of_hosts_own: asked by the host itself, of a plugin that takes no other calls now.
        packed: arguments and keywords as another plugin packed them; None where they are here.
    """

    operation: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    deadline: float
    limits: Limits | None = None
    feeds: tuple[int | str, ...] = ()
    streams: bool = False
    asked_seconds: float = math.inf
    packed: bytes | None = None
    many: bool = False
    of_hosts_own: bool = False
