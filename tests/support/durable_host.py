"""A host that kills itself amid durable events: ``python -m tests.support.durable_host``.

Arguments: trust store, state directory, after how many events. Eight threads publish, as fast as
they can; one reads and acknowledges every third. Each line tells of one event: ``p7`` when its
publisher has heard that it was kept, ``r7`` before its reader acknowledges it.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading

from sandbox_host import BlockingHost, HostConfig, SandboxHost

PUBLISHERS = 8


def tell(what: str) -> None:
    """Write a line at once: no buffer of this process's survives it."""
    os.write(1, f"{what}\n".encode())


def publish(host: BlockingHost, numbers: itertools.count[int], end: int) -> None:
    """Publish until enough have been kept, and be killed then."""
    for number in numbers:
        host.publish("orders.new", number)
        tell(f"p{number}")
        if number >= end:
            os.kill(os.getpid(), signal.SIGKILL)


def main(trust_store: str, state_dir: str, end: str) -> None:
    """Publish, read, and never return."""
    config = HostConfig(trust_store=trust_store, state_dir=state_dir)
    with SandboxHost.blocking(config) as host:
        events = host.subscribe("orders.*", durable="billing")
        numbers = itertools.count()
        for _ in range(PUBLISHERS):
            arguments = (host, numbers, int(end))
            threading.Thread(target=publish, args=arguments, daemon=True).start()
        for event in events:
            if event.data % 3 == 0:
                tell(f"r{event.data}")
                events.ack(event)


if __name__ == "__main__":
    main(*sys.argv[1:])
