"""A host whose main thread ends: ``python -m tests.support.headless_host``.

Arguments: trust store, state directory, two bundles. Prints 1 when a plugin has answered before
that end, 2 when it has after it, 3 when another was loaded then.
"""

from __future__ import annotations

import sys
import threading

from sandbox_host import HostConfig, SandboxHost


def serve(trust_store: str, state_dir: str, first: str, second: str) -> None:
    """Use a host before and after the end of the main thread."""
    config = HostConfig(trust_store=trust_store, state_dir=state_dir)
    with SandboxHost.blocking(config) as host:
        plugin = host.load(first)
        print(plugin.call("echo", 1), flush=True)
        threading.main_thread().join()
        print(plugin.call("echo", 2), flush=True)
        print(host.load(second).call("echo", 3), flush=True)
        host.unload(plugin.name)
    print("closed", flush=True)


if __name__ == "__main__":
    threading.Thread(target=serve, args=sys.argv[1:]).start()
