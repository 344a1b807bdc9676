"""Releases of one plugin by a publisher, for tests of what a host remembers of them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from sandbox_host import HostConfig
from tests.support.bundles import make_key, signed_plugin, trust_store

MAIN = """\
from plugin_sdk import context, on, operation

@operation
def version():
    return {version!r}

@operation
def publish(event):
    context().publish(event, None)
"""


class Publisher:
    """Releases versions of one plugin, and makes configurations that trust them.

    Args:
        root: a directory of the test's own.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.key, self.developer = make_key(), make_key(2)
        self.trust_store = trust_store(root, self.key)
        trust_store(root, self.developer, roles=("developer",))
        self.state_dir = root / "state of a host"
        self._numbers = itertools.count(1)

    def config(self, **options: Any) -> HostConfig:
        """Return a configuration; `options` are its fields."""
        paths = {"trust_store": self.trust_store, "state_dir": self.state_dir}
        return HostConfig(**paths | options)

    def release(
        self, version: str, more: str = "", *, developer: bool = False, **manifest: Any
    ) -> Path:
        """Write and sign one; `more` source makes other files of the same version."""
        directory = self.root / "re leases" / str(next(self._numbers)) / "weather"
        main = MAIN.format(version=version) + more
        key = self.developer if developer else self.key
        return signed_plugin(directory, key, {"main.py": main}, version=version, **manifest)

    @property
    def options(self) -> tuple[str, ...]:
        """The same for the command line."""
        return ("--trust-store", str(self.trust_store), "--state-dir", str(self.state_dir))
