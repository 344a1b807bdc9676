"""The peers: other ways to have work done in another process, each used in its fastest usual way.

A peer answers with the payload that it gets. Its other end runs in a process of its own; Extism's
in ours: that is what it is. A peer that cannot be had here raises `NotThereError`, or what its
library raises; `opened` keeps the reason for the table. None confines what it runs, but Extism.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from frame import reason  # beside this file, like the others
from peer import (
    ANSWER_SECONDS,
    HERE,
    Peer,
    awaited_trips,
    bare_main,
    child,
    child_line,
    distinct,
    preload_forkserver,
    python,
    worker,
)
from peer_pipes import (
    CHUNK,
    CPeer,
    CProgram,
    bytes_pipe,
    c_peer,
    c_program,
    executor,
    object_pipe,
    raw_pipe,
)
from peer_rpc import (
    extism_plugin,
    grpc_child,
    grpc_peer,
    plugin_client,
    plugin_peer,
    wasm,
    zmq_pair,
)

__all__ = [
    "ANSWER_SECONDS",
    "CHUNK",
    "HERE",
    "CPeer",
    "CProgram",
    "Peer",
    "awaited_trips",
    "bare_main",
    "c_program",
    "child",
    "child_line",
    "distinct",
    "extism_plugin",
    "grpc_child",
    "opened",
    "plugin_client",
    "preload_forkserver",
    "python",
    "raw_pipe",
    "wasm",
    "worker",
]

C_BLOCKING, C_YIELDING = "C over a pipe", "C over a pipe, polling"
RAW, MP = "raw Python over a pipe", "multiprocessing.Pipe"
MP_BYTES, EXECUTOR = "multiprocessing.Pipe, bytes", "ProcessPoolExecutor"
ZMQ, GRPC = "zmq", "gRPC"
PLUGIN, PLUGIN_TLS = "python-plugin", "python-plugin, mTLS"
EXTISM = "Extism, in process"


OPENERS: dict[str, Callable[[], AbstractContextManager[Peer]]] = {
    C_BLOCKING: c_peer("r"),
    C_YIELDING: c_peer("y"),
    RAW: raw_pipe,
    MP: object_pipe,
    MP_BYTES: bytes_pipe,
    EXECUTOR: executor,
    ZMQ: zmq_pair,
    GRPC: grpc_peer,
    PLUGIN: plugin_peer(tls=False),
    PLUGIN_TLS: plugin_peer(tls=True),
    EXTISM: extism_plugin,
}


def opened(stack: ExitStack, *names: str) -> tuple[dict[str, Peer], dict[str, str]]:
    """Open peers, and see that they answer.

    Args:
        stack: closes them.
        *names: of `OPENERS`.

    Returns:
        Those that are there, and the reason of each that is not, by name.
    """
    there: dict[str, Peer] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            peer = stack.enter_context(OPENERS[name]())
            peer.call(b"there?")
        except Exception as error:  # noqa: BLE001 - a peer fails as it pleases; it is told
            missing[name] = reason(error)
        else:
            there[name] = peer
    return there, missing
