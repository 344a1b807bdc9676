"""``python -m sandbox_host`` is ``sandbox-host``."""

from __future__ import annotations

import sys

from sandbox_host.cli import main

if __name__ == "__main__":
    sys.exit(main())
