"""The session as a table: who may send what, when. What is not in it is a protocol error.

The table is neutral: one state for the session, and each side feeds it both what it sends and
what it receives, as the messages pass *its* end of the pipe. Because both directions cross on the
wire, a message that was legal when it was sent must stay legal until the other side's answer to
the change can have arrived; that is why STOPPING still lets answers through.
"""

from __future__ import annotations

from plugin_sdk.wire.message import HOST, PLUGIN, Message
from plugin_sdk.wire.messages import (
    Answer,
    Ask,
    Call,
    Cancel,
    Confine,
    Confined,
    Deliver,
    DeliverMany,
    Failed,
    Failure,
    Feed,
    FeedCredit,
    FeedEnd,
    FeedStop,
    Handled,
    HandledSome,
    Load,
    Log,
    Progress,
    Publish,
    Ready,
    Result,
    Stop,
    Stopped,
    Withdraw,
    Yield,
    YieldCredit,
)

NEW = "new"
CONFINING = "confining"
CONFINED = "confined"
LOADING = "loading"
RUNNING = "running"
STOPPING = "stopping"
CLOSED = "closed"

# What may be said at any time while calls may be at work, and leads nowhere.
_OF_CALLS: dict[str, tuple[type[Message], ...]] = {
    HOST: (Answer, Cancel, YieldCredit, Feed, FeedEnd),
    PLUGIN: (Result, Failure, Yield, FeedCredit, FeedStop, Progress, Handled, HandledSome),
}
# The same from the first line of the plugin's code on.
_UNASKED: tuple[type[Message], ...] = (Publish, Log, Ask, Withdraw)


def _staying(state: str, *messages: type[Message]) -> dict[type[Message], str]:
    return dict.fromkeys(messages, state)


TABLE: dict[str, dict[str, dict[type[Message], str]]] = {
    HOST: {
        NEW: {Confine: CONFINING},
        CONFINED: {Load: LOADING},
        LOADING: {Answer: LOADING},
        RUNNING: {
            **_staying(RUNNING, Call, Deliver, DeliverMany, *_OF_CALLS[HOST]),
            Stop: STOPPING,
        },
        STOPPING: _staying(STOPPING, *_OF_CALLS[HOST]),
    },
    PLUGIN: {
        CONFINING: {Confined: CONFINED, Failed: CLOSED},
        LOADING: {**_staying(LOADING, *_UNASKED), Ready: RUNNING, Failed: CLOSED},
        RUNNING: _staying(RUNNING, *_OF_CALLS[PLUGIN], *_UNASKED),
        STOPPING: {**_staying(STOPPING, *_OF_CALLS[PLUGIN], *_UNASKED), Stopped: CLOSED},
    },
}
