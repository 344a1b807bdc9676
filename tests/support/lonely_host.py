"""A host in a process of its own, for tests that kill it: ``python -m tests.support.lonely_host``.

Arguments: trust store, state directory, then bundles. Every plugin is made to spin. Prints one line
of JSON ``{name: pid}`` and stays.
"""

from __future__ import annotations

import json
import sys
import threading

from sandbox_host import HostConfig, SandboxHost


def main(trust_store: str, state_dir: str, *bundles: str) -> None:
    """Load the bundles, call ``spin`` in each, and never return."""
    config = HostConfig(trust_store=trust_store, state_dir=state_dir)
    with SandboxHost.blocking(config) as host:
        plugins = [host.load(bundle) for bundle in bundles]
        for plugin in plugins:
            threading.Thread(target=plugin.call, args=("spin",), daemon=True).start()
        print(json.dumps({plugin.name: plugin.receipt.pid for plugin in plugins}), flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
