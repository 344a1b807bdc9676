"""Test support for plugin authors: the pytest fixture `sandbox`.

It is there wherever `sandbox_host` is installed, without an import. A test hands it a plugin's
directory and gets the plugin, running in the real sandbox::

    def test_counts(sandbox):
        plugin = sandbox("plugins/word_counter")
        assert plugin.call("count", "one two") == 2

What runs is a copy, signed with a throw-away key that only a temporary trust store believes. The
plugin's own directory is read and never written, its code never runs in the test's process, and
after the test the process, its data and the copy are gone. For unit tests of a plugin's functions
without a sandbox there is `plugin_sdk.testing`.

pytest imports this file in every run of every project, so it imports nothing of the host.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox_host.runtime.blocking import BlockingPlugin
    from sandbox_host.runtime.process import PluginProcess
    from sandbox_host.runtime.throwaway import ThrowawayHost

__all__ = ["LoadInSandbox", "sandbox"]

_OURS = ("trust_store", "state_dir")


class LoadInSandbox(Protocol):
    """What the fixture `sandbox` gives to a test."""

    def __call__(self, plugin_dir: str | os.PathLike[str], **config: Any) -> BlockingPlugin:
        """Load a plugin into a sandbox of its own.

        Args:
            plugin_dir: the plugin's directory; it needs no signature, and one that is there is not
                looked at.
            **config: fields of `HostConfig`, such as ``plugin_environment=`` or ``grants=``; not
                ``trust_store`` and ``state_dir``, which are temporary here.

        Returns:
            The plugin, ready to be called.

        Raises:
            SandboxHostError: whatever `SandboxHost.load` raises.
            UsageError: `config` names what the fixture makes itself.
        """


@pytest.fixture
def sandbox() -> Iterator[LoadInSandbox]:
    """Load plugins in the real sandbox; see the module. They are unloaded after the test."""
    with ExitStack() as hosts:

        def load(plugin_dir: str | os.PathLike[str], **config: Any) -> BlockingPlugin:
            from sandbox_host.config import HostConfig
            from sandbox_host.errors import UsageError
            from sandbox_host.runtime.blocking import BlockingPlugin
            from sandbox_host.runtime.throwaway import ThrowawayHost
            from sandbox_host.runtime.trace import TRACE_VARIABLE

            for name in _OURS:
                if name in config:
                    text = f"The fixture sandbox makes its own {name}."
                    raise UsageError(text, remedy=f"Leave {name} away.")
            record = os.environ.get(TRACE_VARIABLE, "")
            # A host of its own for each: plugins under test meet only where the test says so.
            host = hosts.enter_context(ThrowawayHost(HostConfig(**config), observing=bool(record)))
            process = host.load(Path(plugin_dir))
            if record:
                hosts.callback(_write_trace, record, host, process)
            return BlockingPlugin(process)

        yield load


def _write_trace(record: str, host: ThrowawayHost, process: PluginProcess) -> None:
    from sandbox_host.runtime.trace import take

    line = take(host, process).line()
    with open(record, "a", encoding="utf-8") as file:
        file.write(line)
