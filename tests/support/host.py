"""Plugins from source text, signed with a test key, and hosts that trust it."""

from __future__ import annotations

import itertools
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox_host import BlockingHost, BlockingPlugin, HostConfig
from sandbox_host.bundle.trust import Role
from sandbox_host.runtime.workspace import remove_tree
from tests.support.bundles import make_key, signed_plugin, trust_store

PRELUDE = """\
from __future__ import annotations
import ctypes, errno, os, signal, sys, threading, time
from plugin_sdk import Model, context, on, operation
"""
"""What every `main.py` written by `Workshop.write` starts with."""

BASICS = """
@operation
def echo(value=None):
    return value

@operation
def pid():
    return os.getpid()
"""
"""Two operations that many tests need."""

HOLD = """
@operation
def hold(value=None):
    while not os.path.exists(context().data_dir + "/go-on"):
        time.sleep(0.005)
    return value
"""
"""An operation that goes on until `Workshop.let_go` is called, however long that takes."""

Load = Callable[..., BlockingPlugin]


START = os.environ.get("SANDBOX_HOST_TEST_START", "nursery")
"""How plugins are started where a test does not say; the long form of the tests takes the other."""


class Workshop:
    """Writes and signs plugins below one directory, and makes configurations that trust them.

    Args:
        root: a directory of the test's own.
        role: of the key that signs. Tests change plugins and leave their version as it is, as
            developers do; a publisher's versions are remembered.
    """

    def __init__(self, root: Path, role: Role = "developer") -> None:
        self.root = root
        self.key = make_key()
        self.trust_store = trust_store(root, self.key, roles=(role,))
        self.state_dir = root / "state"
        self._numbers = itertools.count(1)

    def config(self, **options: Any) -> HostConfig:
        """Return a configuration; `options` are its fields."""
        defaults = {"trust_store": self.trust_store, "state_dir": self.state_dir, "start": START}
        return HostConfig(**defaults | options)

    def write(
        self,
        source: str = "",
        *,
        name: str = "sample",
        files: Mapping[str, str | bytes] | None = None,
        **manifest: Any,
    ) -> Path:
        """Write and sign a plugin whose ``main.py`` is `PRELUDE`, `BASICS` and `source`.

        Args:
            source: more of ``main.py``, dedented.
            name: the plugin's name.
            files: other files by path; one named ``main.py`` replaces the whole of it.
            manifest: keys of plugin.json.
        """
        main = PRELUDE + BASICS + textwrap.dedent(source)
        directory = self.root / "plugins" / str(next(self._numbers)) / name
        return signed_plugin(directory, self.key, {"main.py": main, **(files or {})}, **manifest)

    def loader(self, host: BlockingHost) -> Load:
        """Return a function that takes what `write` takes and loads the result in ``host``."""

        def load(source: str = "", **options: Any) -> BlockingPlugin:
            return host.load(self.write(source, **options))

        return load

    def data_dir(self, identity: str) -> Path:
        """Return where the host keeps a plugin's data."""
        return self.state_dir / "data" / identity

    def let_go(self, identity: str = "sample") -> None:
        """Let all operations of `HOLD` return."""
        (self.data_dir(identity) / "go-on").touch()


@contextmanager
def nothing_left_in(host: BlockingHost, workshop: Workshop) -> Iterator[None]:
    """Unload what was loaded meanwhile, and remove the data of plugins; `host` goes on."""
    try:
        yield
    finally:
        for name in tuple(host.plugins):
            host.unload(name)
        for data in (workshop.state_dir / "data").iterdir():
            remove_tree(data)
