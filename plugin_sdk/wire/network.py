"""What a plugin and its host's network desk say to each other: packed dicts, one a packet.

A request is ``{id, ask, host, port, seconds}``; ``ask`` is `CONNECT` or `RESOLVE`. The answer has
the same id and ``error``: "" or a sentence, with ``errno``. To `RESOLVE` it has ``addresses``; with
that to `CONNECT` travels the descriptor of a connected TCP socket, which is blocking.
"""

from __future__ import annotations

CONNECT = "connect"
RESOLVE = "resolve"

MAX_REQUEST_BYTES = 1_024
MAX_ANSWER_BYTES = 4_096
MAX_ADDRESSES = 32
MAX_HOST_LENGTH = 255
