"""A host in a process of its own that is killed at a step: ``python -m tests.support.struck_host``.

The one argument is JSON: ``trust_store``, ``state_dir``, ``step``, ``data_dir`` and ``bundle`` of
the plugin that is started, ``before`` (bundles that are loaded first) and ``config`` (more of
the host's). Prints one line of JSON: pids of all that it has started; then kills itself.

Without an argument, each line of standard input is one: each such host is a fork of this process,
which has imported everything. When it has ended, the line behind its own is its pid and its exit
code, as `subprocess` has it.
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


def serve() -> None:
    """Fork a host for each line, one after the other."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                main(json.loads(line))
            finally:
                os._exit(1)  # nothing has killed it
        _, status = os.waitpid(pid, 0)
        print(json.dumps([pid, os.waitstatus_to_exitcode(status)]), flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(json.loads(sys.argv[1]))
    else:
        serve()
