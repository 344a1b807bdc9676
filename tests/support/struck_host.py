"""A host in a process of its own that is killed at a step: ``python -m tests.support.struck_host``.

The one argument is JSON: ``trust_store``, ``state_dir``, ``step``, ``data_dir`` and ``bundle`` of
the plugin that is started, ``before`` (bundles that are loaded first) and ``config`` (more of
the host's). Prints one line of JSON: pids of all that it has started; then kills itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from sandbox_host import HostConfig, SandboxHost
from tests.support.strikes import armed, journey, nurseries_wait
from tests.support.traces import processes_of


def _strike() -> None:
    print(json.dumps(sorted(processes_of(os.getpid()))), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def main(told: dict[str, Any]) -> None:
    """Load what comes before, then go through the journey until the step."""
    config = HostConfig(
        trust_store=told["trust_store"], state_dir=told["state_dir"], **told["config"]
    )
    data_dir = Path(told["data_dir"])
    with nurseries_wait(told["step"], data_dir), SandboxHost.blocking(config) as host:
        for bundle in told["before"]:
            host.load(bundle)
        with armed(told["step"], data_dir, _strike):
            journey(host, Path(told["bundle"]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
