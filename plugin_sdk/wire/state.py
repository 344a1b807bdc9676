"""The session as a table: who may send what, when. What is not in it is a protocol error.

The table is neutral: one state for the session, and each side feeds it both what it sends and
what it receives, as the messages pass *its* end of the pipe. Because both directions cross on the
wire, a message that was legal when it was sent must stay legal until the other side's answer to
the change can have arrived; that is why STOPPING still lets answers through.
"""

from __future__ import annotations

from plugin_sdk.wire.messages import (
    HOST,
    PLUGIN,
    Answer,
    Ask,
    Call,
    Confine,
    Confined,
    Deliver,
    Failed,
    Failure,
    Handled,
    Load,
    Message,
    Publish,
    Ready,
    Result,
    Stop,
    Stopped,
)

NEW = "new"
CONFINING = "confining"
CONFINED = "confined"
LOADING = "loading"
RUNNING = "running"
STOPPING = "stopping"
CLOSED = "closed"

TABLE: dict[str, dict[str, dict[type[Message], str]]] = {
    HOST: {
        NEW: {Confine: CONFINING},
        CONFINED: {Load: LOADING},
        RUNNING: {Call: RUNNING, Deliver: RUNNING, Answer: RUNNING, Stop: STOPPING},
        STOPPING: {Answer: STOPPING},
    },
    PLUGIN: {
        CONFINING: {Confined: CONFINED, Failed: CLOSED},
        LOADING: {Publish: LOADING, Ready: RUNNING, Failed: CLOSED},
        RUNNING: {
            Result: RUNNING,
            Failure: RUNNING,
            Handled: RUNNING,
            Publish: RUNNING,
            Ask: RUNNING,
        },
        STOPPING: {
            Result: STOPPING,
            Failure: STOPPING,
            Handled: STOPPING,
            Publish: STOPPING,
            Ask: STOPPING,
            Stopped: CLOSED,
        },
    },
}


def next_state(state: str, message: type[Message]) -> str | None:
    """Return the state after ``message``, or None where the table does not allow it."""
    return TABLE[message.sender].get(state, {}).get(message)
