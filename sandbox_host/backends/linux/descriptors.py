"""How many descriptors the host may have: a plugin takes about a dozen of them.

The soft limit is 1,024 on most systems for the sake of select(2), which cannot see higher numbers;
nothing here uses it, nor does anything of the standard library that does not name it. The hard
limit is the administrator's, and stays (getrlimit(2); systemd.exec(5) on ``LimitNOFILE=``).
"""

from __future__ import annotations

import logging
import resource
from typing import Final

_log = logging.getLogger("sandbox_host")

MOST: Final = 1 << 20
"""Of a hard limit without end, so much is taken: some programs try every number up to the limit."""


def raise_soft_limit() -> None:
    """Let this process have as many descriptors as the administrator allows. Never raises."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:
            _log.info("the limit of descriptors stays %d: %s", soft, error)
